"""A label map of a tile from 100 segments."""

from collections.abc import Callable

import numpy as np
import pytest
from pycocotools import mask as cocoapi
from pytest_benchmark.fixture import BenchmarkFixture

from alps.kernels.masks import coco
from alps.kernels.masks.pixels import runs_of
from alps.kernels.paint import paint, paint_order, reference_paint

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # in pycocotools

SIZE, UNLABELLED = (1024, 1024), 255
GROUP = "painting 100 masks of 1024 x 1024"


@pytest.fixture(scope="module")
def counts(masks: np.ndarray) -> list[bytes]:
    return coco.encode(runs_of(masks))


@pytest.fixture(scope="module")
def order(masks: np.ndarray) -> np.ndarray:
    return paint_order(masks.sum((1, 2)), np.ones(len(masks), np.float32))


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 46, 100).astype(np.uint8)


@pytest.fixture(scope="module")
def n_bytes(counts: list[bytes]) -> int:
    """Codes in, labels out."""
    return sum(len(code) for code in counts) + SIZE[0] * SIZE[1]


@pytest.fixture(scope="module")
def expected(counts: list[bytes], values: np.ndarray, order: np.ndarray) -> np.ndarray:
    return paint(counts, values, order, SIZE, UNLABELLED)


@pytest.mark.benchmark(group=GROUP)
def test_numpy_loop_over_decoded_masks(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    masks: np.ndarray,
    values: np.ndarray,
    order: np.ndarray,
    n_bytes: int,
    expected: np.ndarray,
) -> None:
    bytes_moved(benchmark, n_bytes, baseline=True)
    labels = benchmark(reference_paint, masks, values, order, UNLABELLED)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.benchmark(group=GROUP)
def test_pycocotools_and_numpy_loop(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    counts: list[bytes],
    values: np.ndarray,
    order: np.ndarray,
    n_bytes: int,
    expected: np.ndarray,
) -> None:
    """From the same codes as ours."""
    records = [{"size": list(SIZE), "counts": code} for code in counts]

    def decode_and_paint() -> np.ndarray:
        labels = np.full(SIZE, UNLABELLED, np.uint8)
        for index in order:
            labels[cocoapi.decode(records[index]) == 1] = values[index]
        return labels

    bytes_moved(benchmark, n_bytes)
    np.testing.assert_array_equal(benchmark(decode_and_paint), expected)


@pytest.mark.benchmark(group=GROUP)
def test_ours(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    counts: list[bytes],
    values: np.ndarray,
    order: np.ndarray,
    n_bytes: int,
    expected: np.ndarray,
) -> None:
    bytes_moved(benchmark, n_bytes)
    labels = benchmark(paint, counts, values, order, SIZE, UNLABELLED)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.benchmark(group=GROUP)
def test_ours_16_bits(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    counts: list[bytes],
    values: np.ndarray,
    order: np.ndarray,
    n_bytes: int,
    expected: np.ndarray,
) -> None:
    """Twice the label map: more than 255 clusters."""
    values = values.astype(np.uint16)
    paint(counts, values, order, SIZE, 65_535)
    bytes_moved(benchmark, n_bytes + SIZE[0] * SIZE[1])
    labels = benchmark(paint, counts, values, order, SIZE, UNLABELLED)
    np.testing.assert_array_equal(labels, expected)
