"""Run lengths and COCO codes of masks, and back."""

from dataclasses import dataclass

import numpy as np
import pytest
from pycocotools import mask as cocoapi

from alps.bench.kernels.blobs import blobs
from alps.bench.kernels.timed import Timed
from alps.kernels.masks import coco
from alps.kernels.masks.pixels import masks_of, reference_runs_of, runs_of

COUNT = 64
TO_CODES = f"codes of {COUNT} masks of 1024 x 1024, C order"
FROM_COLUMNS = f"codes of {COUNT} masks of 1024 x 1024, column-major"
TO_MASKS = f"{COUNT} masks of 1024 x 1024, C order, from codes"


@dataclass(frozen=True)
class Given:
    """64 masks, and what they come to."""

    masks: np.ndarray  # (64, 1024, 1024) bool
    columns: np.ndarray  # the same, each column-major
    codes: list[bytes]

    @property
    def n_bytes(self) -> int:
        """Masks once, codes once, whichever comes in."""
        return self.masks.nbytes + sum(len(code) for code in self.codes)


@pytest.fixture(scope="module")
def given() -> Given:
    masks = blobs(COUNT)
    columns = masks.transpose(0, 2, 1).copy().transpose(0, 2, 1)
    return Given(masks, columns, [code["counts"] for code in in_pycocotools(masks)])


def in_pycocotools(masks: np.ndarray) -> list[dict]:
    """It wants each mask column-major, and uint8."""
    return [cocoapi.encode(np.asfortranarray(mask.view(np.uint8))) for mask in masks]


def ours(masks: np.ndarray) -> list[bytes]:
    return coco.encode(runs_of(masks))


def in_numpy(masks: np.ndarray) -> list[bytes]:
    runs = reference_runs_of(masks)
    return [coco.reference_encode(runs.of(index)) for index in range(len(runs))]


@pytest.mark.benchmark(group=TO_CODES)
def test_pycocotools(timed: Timed, given: Given) -> None:
    timed.moves(given.n_bytes, baseline=True)
    timed(in_pycocotools, given.masks)


@pytest.mark.benchmark(group=TO_CODES)
def test_numpy(timed: Timed, given: Given) -> None:
    timed.moves(given.n_bytes)
    assert timed(in_numpy, given.masks, rounds=1) == given.codes


@pytest.mark.benchmark(group=TO_CODES)
def test_ours(timed: Timed, given: Given, threads: None) -> None:
    assert ours(given.masks) == given.codes
    timed.moves(given.n_bytes)
    timed(ours, given.masks)


@pytest.mark.benchmark(group=FROM_COLUMNS)
def test_pycocotools_from_columns(timed: Timed, given: Given) -> None:
    timed.moves(given.n_bytes, baseline=True)
    timed(in_pycocotools, given.columns)


@pytest.mark.benchmark(group=FROM_COLUMNS)
def test_ours_from_columns(timed: Timed, given: Given) -> None:
    assert ours(given.columns) == given.codes
    timed.moves(given.n_bytes)
    timed(ours, given.columns)


@pytest.mark.benchmark(group=TO_MASKS)
def test_pycocotools_decode(timed: Timed, given: Given) -> None:
    """Column-major masks, as it gives them, put in C order."""
    records = [{"size": [1024, 1024], "counts": code} for code in given.codes]
    timed.moves(given.n_bytes, baseline=True)
    timed(lambda: np.stack([cocoapi.decode(record) for record in records]))


@pytest.mark.benchmark(group=TO_MASKS)
def test_ours_decode(timed: Timed, given: Given) -> None:
    def decode() -> np.ndarray:
        return masks_of(coco.decode(given.codes, (1024, 1024)))

    np.testing.assert_array_equal(decode(), given.masks)
    timed.moves(given.n_bytes)
    timed(decode)
