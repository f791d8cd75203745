"""A label map of a tile from 100 segments."""

from dataclasses import dataclass

import numpy as np
import pytest
from pycocotools import mask as cocoapi

from alps.bench.kernels.timed import Timed
from alps.kernels.masks import coco
from alps.kernels.masks.pixels import runs_of
from alps.kernels.paint import paint, paint_order, reference_paint

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),  # in pycocotools
    pytest.mark.benchmark(group="painting 100 masks of 1024 x 1024"),
]
SIZE, UNLABELLED = (1024, 1024), 255


@dataclass(frozen=True)
class Given:
    """100 masks with classes, and what is painted of them."""

    counts: list[bytes]
    values: np.ndarray  # (100,) uint8
    order: np.ndarray  # (100,), the lowest first
    labels: np.ndarray  # (1024, 1024) uint8

    @property
    def n_bytes(self) -> int:
        """Codes in, labels out."""
        return sum(len(code) for code in self.counts) + self.labels.nbytes


@pytest.fixture(scope="module")
def given(masks: np.ndarray) -> Given:
    counts = coco.encode(runs_of(masks))
    values = np.random.default_rng(0).integers(0, 46, len(masks)).astype(np.uint8)
    order = paint_order(masks.sum((1, 2)), np.ones(len(masks), np.float32))
    return Given(counts, values, order, paint(counts, values, order, SIZE, UNLABELLED))


def test_numpy_loop_over_decoded_masks(timed: Timed, given: Given, masks: np.ndarray) -> None:
    timed.moves(given.n_bytes, baseline=True)
    labels = timed(reference_paint, masks, given.values, given.order, UNLABELLED)
    np.testing.assert_array_equal(labels, given.labels)


def test_pycocotools_and_numpy_loop(timed: Timed, given: Given) -> None:
    """From the same codes as ours."""
    records = [{"size": list(SIZE), "counts": code} for code in given.counts]

    def decode_and_paint() -> np.ndarray:
        labels = np.full(SIZE, UNLABELLED, np.uint8)
        for index in given.order:
            labels[cocoapi.decode(records[index]) == 1] = given.values[index]
        return labels

    timed.moves(given.n_bytes)
    np.testing.assert_array_equal(timed(decode_and_paint), given.labels)


@pytest.mark.parametrize("bits", [8, 16])
def test_ours(timed: Timed, given: Given, bits: int) -> None:
    """With 16 bits, for more than 255 clusters, the label map has twice the bytes."""
    values = given.values.astype(f"uint{bits}")
    paint(given.counts, values, given.order, SIZE, UNLABELLED)
    timed.moves(given.n_bytes + given.labels.nbytes * (bits // 8 - 1))
    labels = timed(paint, given.counts, values, given.order, SIZE, UNLABELLED)
    np.testing.assert_array_equal(labels, given.labels)
