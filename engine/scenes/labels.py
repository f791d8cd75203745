"""From a painted canvas to a partition: connected segments, parts that refine them, classes."""

from dataclasses import dataclass

import cv2
import numpy as np
from alps.engine.scenes.canvas import Canvas
from alps.engine.scenes.render import sample

SMALLEST_SEGMENT = 9  # pixels; smaller shreds join their surroundings
SMALLEST_PART = 6


@dataclass(frozen=True)
class Labels:
    """The three maps of a scene, each (size, size)."""

    classes: np.ndarray  # uint8
    segments: np.ndarray  # int32, 1..n
    parts: np.ndarray  # int32, 1..m


def extract_labels(canvas: Canvas) -> Labels:
    """Read the labels off a canvas; shreds too small to be seen take a neighbour's."""
    tables = canvas.tables()
    part = tables.paint_part.take(sample(canvas.paint))
    segment = tables.part_segment.take(part)
    pieces, sizes = components(segment)
    shreds = sizes.take(pieces) < SMALLEST_SEGMENT
    if shreds.any() and not shreds.all():
        part = _fill_from_nearest(part, shreds)
        segment = tables.part_segment.take(part)
        pieces, _ = components(segment)
    part_pieces, sizes = components(part)
    shreds = sizes.take(part_pieces) < SMALLEST_PART
    if shreds.any() and not shreds.all():
        nearest = _fill_from_nearest(part, shreds)
        same = tables.part_segment.take(nearest) == segment
        part_pieces, _ = components(np.where(same, nearest, part))
    # A part stays inside its segment's piece even where shreds were joined to it.
    both = pieces.astype(np.int64) * (int(part_pieces.max()) + 1) + part_pieces
    return Labels(
        classes=tables.segment_class.take(segment),
        segments=pieces,
        parts=_renumber(both),
    )


def components(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split labels into 4-connected pieces.

    Returns the piece of each pixel, (h, w) int32 from 1, and the sizes by piece (index 0 unused).
    """
    height, width = labels.shape
    # Pixels become every other cell of a finer grid; the cells between them are open where two
    # neighbours have the same label. Its binary components are the pieces, whatever their number.
    grid = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    grid[::2, ::2] = 1
    grid[::2, 1::2] = labels[:, 1:] == labels[:, :-1]
    grid[1::2, ::2] = labels[1:] == labels[:-1]
    _, pieces = cv2.connectedComponents(grid, connectivity=4, ltype=cv2.CV_32S)
    pieces = np.ascontiguousarray(pieces[::2, ::2])
    return pieces, np.bincount(pieces.ravel())


def _fill_from_nearest(labels: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Labels with holes closed by the nearest pixel that is not one."""
    _, nearest = cv2.distanceTransformWithLabels(
        holes.astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    value_of = np.zeros(int(nearest.max()) + 1, labels.dtype)
    value_of[nearest[~holes]] = labels[~holes]
    return np.where(holes, value_of[nearest], labels)


def _renumber(labels: np.ndarray) -> np.ndarray:
    """Ids 1..n in the order of the old ones."""
    _, inverse = np.unique(labels, return_inverse=True)
    return (inverse.reshape(labels.shape) + 1).astype(np.int32)
