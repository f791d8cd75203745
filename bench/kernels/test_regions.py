"""An image of 1024 x 1024 cut into superpixels, and small pieces of it joined."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from skimage.segmentation import slic

from alps.bench.kernels.timed import Timed
from alps.kernels.colour import lab_of
from alps.kernels.regions import join_small, pieces
from alps.kernels.superpixels import superpixels
from alps.kernels.superpixels.rules import PASSES

SIDE, PER_MEGAPIXEL = 1024, 3906.25  # cells of 16 pixels
LEAST = 26  # pixels: a tenth of a cell


@dataclass(frozen=True)
class Given:
    """An image, and its superpixels cut by a few masks."""

    image: np.ndarray  # (SIDE, SIDE, 3) uint8
    lab: np.ndarray  # (SIDE, SIDE, 3) int16
    regions: np.ndarray  # (SIDE, SIDE) int32
    family: np.ndarray  # (N,)
    owner: np.ndarray  # (N,)


@pytest.fixture(scope="module")
def given(masks: np.ndarray) -> Given:
    noise = np.random.default_rng(0).normal(0, 1, (SIDE, SIDE, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    image = np.clip(128 + 40 * smooth / smooth.std() + 6 * noise, 0, 255).astype(np.uint8)
    lab = lab_of(image)
    cells = superpixels(lab, None, PER_MEGAPIXEL)
    top = masks.argmax(0)
    regions, first = pieces(cells.astype(np.int64) * (len(masks) + 1) + top)
    family = cells.ravel()[first]
    return Given(image, lab, regions, family, join_small(regions, lab, LEAST, family))


@pytest.mark.benchmark(group="superpixels of 1024 x 1024, cells of 16 pixels, five passes")
def test_scikit_image_slic(timed: Timed, given: Given) -> None:
    """Without its own joining of small pieces."""
    timed.moves(PASSES * SIDE**2 * 24, baseline=True)
    count = round(SIDE**2 / 1e6 * PER_MEGAPIXEL)
    found = timed(
        lambda: slic(given.image, count, 10, PASSES, start_label=0, enforce_connectivity=False)
    )
    assert found.max() > 0.9 * count


@pytest.mark.benchmark(group="superpixels of 1024 x 1024, cells of 16 pixels, five passes")
def test_ours(timed: Timed, given: Given) -> None:
    """Colours and all."""
    timed.moves(PASSES * SIDE**2 * 24)
    found = timed(lambda: superpixels(lab_of(given.image), None, PER_MEGAPIXEL))
    assert found.max() > 0.9 * SIDE**2 / 1e6 * PER_MEGAPIXEL


@pytest.mark.benchmark(group="small pieces of 1024 x 1024 joined")
def test_ours_join(timed: Timed, given: Given) -> None:
    timed.moves(2 * SIDE**2 * 10)
    owner = timed(join_small, given.regions, given.lab, LEAST, given.family)
    np.testing.assert_array_equal(owner, given.owner)
