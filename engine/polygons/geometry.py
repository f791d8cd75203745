"""Polygons out of outlines. Coordinates are made vertex by vertex, so that what two polygons share
is the same number in both, wherever it lies.
"""

from collections.abc import Callable, Iterator

import numpy as np
import shapely

from alps.kernels.outlines import Outlines

CORNERS_AT_ONCE = 1 << 19

Points = Callable[[np.ndarray], np.ndarray]  # (N, 2) float64 to (N, 2)


def polygons_of(
    outlines: Outlines, patches: np.ndarray, points: Points | None = None, turned: bool = False
) -> np.ndarray:
    """Some patches as polygons, (n,) of shapely's.

    Args:
        outlines: of an image.
        patches: (n,) integers, which of them.
        points: where x and y of corners come to lie; None: they stay pixels.
        turned: whether rings run the other way round: where ``points`` turns y upwards, they run
            anticlockwise then, holes clockwise.
    """
    rings_each = np.diff(outlines.patch_starts)[patches]
    rings = _spans(outlines.patch_starts[patches], rings_each, False)
    corners_each = np.diff(outlines.ring_starts)[rings]
    corners = outlines.corners[_spans(outlines.ring_starts[rings], corners_each, turned)]
    xy = np.stack([outlines.x[corners], outlines.y[corners]], axis=1).astype(np.float64)
    if points is not None:
        xy = points(xy)
    drawn = shapely.linearrings(xy, indices=np.repeat(np.arange(len(rings)), corners_each))
    return shapely.polygons(drawn, indices=np.repeat(np.arange(len(patches)), rings_each))


def joined(polygons: np.ndarray, of_polygon: np.ndarray, count: int) -> np.ndarray:
    """Multipolygons of one polygon or several, (count,).

    of_polygon: (n,) which each belongs to, ascending, none without one.
    """
    found: np.ndarray = shapely.multipolygons(polygons, indices=of_polygon)
    assert len(found) == count
    return found


def corners_of(outlines: Outlines) -> np.ndarray:
    """(P,) int64 how many corners each patch has, its holes' too."""
    starts = outlines.ring_starts[outlines.patch_starts]
    found: np.ndarray = np.diff(starts)
    return found


def portions(sizes: np.ndarray, most: int = CORNERS_AT_ONCE) -> Iterator[tuple[int, int]]:
    """First and end of neighbours whose ``sizes`` (n,) add up to ``most``, or of a larger one."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = ends[first] - sizes[first]
        end = max(int(np.searchsorted(ends, before + most, side="right")), first + 1)
        yield first, end
        first = end


def _spans(starts: np.ndarray, lengths: np.ndarray, backwards: bool) -> np.ndarray:
    """start, start + 1, … of each, one after the other; backwards: from its last to its start."""
    total = int(lengths.sum())
    step = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    if backwards:
        return np.repeat(starts + lengths - 1, lengths) - step
    return np.repeat(starts, lengths) + step
