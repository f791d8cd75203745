"""Box NMS of the masks of a tile: 1024 points, 3 masks each."""

from typing import Any

import cv2
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from alps.bench.kernels.timed import Timed
from alps.kernels.nms import box_nms, reference_box_nms

POINTS = 1024
THRESHOLD = 0.7


@pytest.fixture(scope="module")
def found() -> tuple[np.ndarray, np.ndarray]:
    """Boxes (3072, 4) float32 and scores as SAM finds them: each object by many points."""
    rng = np.random.default_rng(0)
    objects = rng.integers(0, 150, POINTS)
    centre, half = rng.uniform(50, 974, (150, 2)), rng.lognormal(3.5, 0.6, (150, 1, 2))
    half = half * np.array([[0.3], [0.6], [1.0]])  # part, object, group
    first, last = (centre[objects, None] + s * half[objects] for s in (-1, 1))
    boxes = np.concatenate([first, last], axis=2).reshape(-1, 4)
    boxes += rng.normal(size=boxes.shape)
    return boxes.round().astype(np.float32), rng.random(3 * POINTS).astype(np.float32)


@pytest.fixture(scope="module")
def apart() -> tuple[np.ndarray, np.ndarray]:
    """Boxes of which none drops another: the longest it can take."""
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    first = 20 * np.stack([x, y], axis=2).reshape(-1, 2)
    boxes = np.concatenate([first, first + 19], axis=1).astype(np.float32)
    return boxes, np.random.default_rng(1).random(len(boxes)).astype(np.float32)


def bytes_of(boxes: np.ndarray, kept: np.ndarray) -> int:
    return boxes.nbytes + 4 * len(boxes) + 8 * len(kept)


def by_opencv(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    suppress: Any = cv2.dnn.NMSBoxes  # its stubs do not say that it takes arrays
    return suppress(corner_and_size, scores, 0, THRESHOLD)


@pytest.mark.parametrize("name", ["found", "apart"])
class TestNms:
    @pytest.fixture
    def boxes(
        self, name: str, request: pytest.FixtureRequest, benchmark: BenchmarkFixture
    ) -> tuple[np.ndarray, np.ndarray]:
        benchmark.group = f"box NMS of 3072 boxes, {name}"
        return request.getfixturevalue(name)

    def test_opencv(self, timed: Timed, boxes: tuple[np.ndarray, np.ndarray]) -> None:
        kept = timed(by_opencv, *boxes)
        # In double; in float32 an IoU may come to lie on the other side of the threshold.
        assert len(np.setxor1d(kept, box_nms(*boxes, THRESHOLD))) <= 2
        timed.moves(bytes_of(boxes[0], kept), baseline=True)

    def test_numpy(self, timed: Timed, boxes: tuple[np.ndarray, np.ndarray]) -> None:
        kept = timed(reference_box_nms, *boxes, THRESHOLD)
        timed.moves(bytes_of(boxes[0], kept), baseline=True)

    def test_ours(self, timed: Timed, boxes: tuple[np.ndarray, np.ndarray]) -> None:
        np.testing.assert_array_equal(
            box_nms(*boxes, THRESHOLD), reference_box_nms(*boxes, THRESHOLD)
        )
        kept = timed(box_nms, *boxes, THRESHOLD)
        timed.moves(bytes_of(boxes[0], kept))
