"""Resize of a tile to the network's input."""

import numpy as np
import pytest
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from alps.bench.kernels.timed import Timed
from alps.kernels.resize import resize


def by_pillow(image: np.ndarray, side: int) -> np.ndarray:
    return np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(("old", "new"), [(512, 1024), (1500, 1024)])
class TestResize:
    @pytest.fixture
    def image(self, old: int, new: int, benchmark: BenchmarkFixture) -> np.ndarray:
        benchmark.group = f"resize of {old} x {old} pixels to {new} x {new}"
        return np.random.default_rng(0).integers(0, 256, (old, old, 3), np.uint8)

    def test_pillow(self, timed: Timed, image: np.ndarray, new: int) -> None:
        timed.moves(image.nbytes + 3 * new * new, baseline=True)
        timed(by_pillow, image, new)

    def test_ours(self, timed: Timed, image: np.ndarray, new: int) -> None:
        np.testing.assert_array_equal(resize(image, new, new), by_pillow(image, new))
        timed.moves(image.nbytes + 3 * new * new)
        timed(resize, image, new, new)
