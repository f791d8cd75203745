"""Run lengths and COCO codes of masks, and back."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from pycocotools import mask as cocoapi
from pytest_benchmark.fixture import BenchmarkFixture

from alps.bench.kernels.blobs import blobs
from alps.kernels.base.threads import set_threads
from alps.kernels.masks import coco
from alps.kernels.masks.pixels import masks_of, reference_runs_of, runs_of

COUNT = 64
TO_CODES = f"codes of {COUNT} masks of 1024 x 1024, C order"
FROM_COLUMNS = f"codes of {COUNT} masks of 1024 x 1024, column-major"
TO_MASKS = f"{COUNT} masks of 1024 x 1024, C order, from codes"


@pytest.fixture(scope="module")
def masks() -> np.ndarray:
    return blobs(COUNT)


@pytest.fixture(scope="module")
def columns(masks: np.ndarray) -> np.ndarray:
    """The same masks, (64, 1024, 1024), each column-major."""
    return masks.transpose(0, 2, 1).copy().transpose(0, 2, 1)


@pytest.fixture(scope="module")
def codes(masks: np.ndarray) -> list[bytes]:
    return [code["counts"] for code in in_pycocotools(masks)]


@pytest.fixture(scope="module")
def n_bytes(masks: np.ndarray, codes: list[bytes]) -> int:
    """Masks once, codes once, whichever comes in."""
    return masks.nbytes + sum(len(code) for code in codes)


@pytest.fixture
def one_thread() -> Iterator[None]:
    set_threads(1)
    yield
    set_threads(None)


def in_pycocotools(masks: np.ndarray) -> list[dict]:
    """It wants each mask column-major, and uint8."""
    return [cocoapi.encode(np.asfortranarray(mask.view(np.uint8))) for mask in masks]


def ours(masks: np.ndarray) -> list[bytes]:
    return coco.encode(runs_of(masks))


def in_numpy(masks: np.ndarray) -> list[bytes]:
    runs = reference_runs_of(masks)
    return [coco.reference_encode(runs.of(index)) for index in range(len(runs))]


@pytest.mark.benchmark(group=TO_CODES)
def test_pycocotools(
    benchmark: BenchmarkFixture, bytes_moved: Callable[..., None], masks: np.ndarray, n_bytes: int
) -> None:
    bytes_moved(benchmark, n_bytes, baseline=True)
    benchmark(in_pycocotools, masks)


@pytest.mark.benchmark(group=TO_CODES)
def test_numpy(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    masks: np.ndarray,
    codes: list[bytes],
    n_bytes: int,
) -> None:
    bytes_moved(benchmark, n_bytes)
    assert benchmark.pedantic(in_numpy, (masks,)) == codes


@pytest.mark.benchmark(group=TO_CODES)
def test_ours(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    masks: np.ndarray,
    codes: list[bytes],
    n_bytes: int,
) -> None:
    assert ours(masks) == codes
    bytes_moved(benchmark, n_bytes)
    benchmark(ours, masks)


@pytest.mark.benchmark(group=TO_CODES)
def test_ours_with_one_thread(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    masks: np.ndarray,
    codes: list[bytes],
    n_bytes: int,
    one_thread: None,
) -> None:
    assert ours(masks) == codes
    bytes_moved(benchmark, n_bytes)
    benchmark(ours, masks)


@pytest.mark.benchmark(group=FROM_COLUMNS)
def test_pycocotools_from_columns(
    benchmark: BenchmarkFixture, bytes_moved: Callable[..., None], columns: np.ndarray, n_bytes: int
) -> None:
    bytes_moved(benchmark, n_bytes, baseline=True)
    benchmark(in_pycocotools, columns)


@pytest.mark.benchmark(group=FROM_COLUMNS)
def test_ours_from_columns(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    columns: np.ndarray,
    codes: list[bytes],
    n_bytes: int,
) -> None:
    assert ours(columns) == codes
    bytes_moved(benchmark, n_bytes)
    benchmark(ours, columns)


@pytest.mark.benchmark(group=TO_MASKS)
def test_pycocotools_decode(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    masks: np.ndarray,
    codes: list[bytes],
    n_bytes: int,
) -> None:
    """Column-major masks, as it gives them, put in C order."""
    records = [{"size": [1024, 1024], "counts": code} for code in codes]
    bytes_moved(benchmark, n_bytes, baseline=True)
    benchmark(lambda: np.stack([cocoapi.decode(record) for record in records]))


@pytest.mark.benchmark(group=TO_MASKS)
def test_ours_decode(
    benchmark: BenchmarkFixture,
    bytes_moved: Callable[..., None],
    masks: np.ndarray,
    codes: list[bytes],
    n_bytes: int,
) -> None:
    def decode() -> np.ndarray:
        return masks_of(coco.decode(codes, (1024, 1024)))

    np.testing.assert_array_equal(decode(), masks)
    bytes_moved(benchmark, n_bytes)
    benchmark(decode)
