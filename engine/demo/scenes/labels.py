"""From a painted canvas to a partition: connected segments, parts that refine them, classes."""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from alps.engine.demo.scenes.canvas import Canvas
from alps.engine.demo.scenes.render import sample

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
    part_pieces = components(part)
    pieces = _join(part_pieces, segment)
    shreds = _shreds(pieces, SMALLEST_SEGMENT)
    if shreds.any():
        part = _fill_from_nearest(part, shreds)
        segment = tables.part_segment.take(part)
        part_pieces = components(part)
        pieces = _join(part_pieces, segment)
    shreds = _shreds(part_pieces, SMALLEST_PART)
    if shreds.any():
        nearest = _fill_from_nearest(part_pieces, shreds)
        same = _fill_from_nearest(pieces, shreds) == pieces
        part_pieces = _renumber(np.where(same, nearest, part_pieces))
    return Labels(
        classes=tables.segment_class.take(segment),
        segments=pieces,
        parts=part_pieces,
    )


def _shreds(pieces: np.ndarray, least: int) -> np.ndarray:
    """Pixels (h, w) bool of pieces of fewer than ``least``; none where no piece is larger."""
    shreds = np.bincount(pieces.ravel()).take(pieces) < least
    return np.zeros_like(shreds) if shreds.all() else shreds


def components(labels: np.ndarray) -> np.ndarray:
    """Split labels, (h, w), into 4-connected pieces: (h, w) int32, numbered from 1."""
    height, width = labels.shape
    # Pixels become every other cell of a finer grid; the cells between them are open where two
    # neighbours have the same label. Its binary components are the pieces, whatever their number.
    grid = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    grid[::2, ::2] = 1
    grid[::2, 1::2] = labels[:, 1:] == labels[:, :-1]
    grid[1::2, ::2] = labels[1:] == labels[:-1]
    _, pieces = cv2.connectedComponents(grid, connectivity=4, ltype=cv2.CV_32S)
    return np.ascontiguousarray(pieces[::2, ::2])


def _join(part_pieces: np.ndarray, segment: np.ndarray) -> np.ndarray:
    """Pieces of segments from pieces of parts: neighbours within one segment belong together.

    The pieces are few, so this is cheaper than finding the segments' components afresh.
    """
    pairs = []
    for low, high in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        touch = (segment[low] == segment[high]) & (part_pieces[low] != part_pieces[high])
        pairs.append(np.stack([part_pieces[low][touch], part_pieces[high][touch]]))
    first, second = np.concatenate(pairs, axis=1) - 1
    count = int(part_pieces.max())
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    return (group.astype(np.int32) + 1).take(part_pieces - 1)


def _fill_from_nearest(labels: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Labels with holes closed by the nearest pixel that is not one."""
    _, nearest = cv2.distanceTransformWithLabels(
        holes.astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    value_of = np.zeros(int(nearest.max()) + 1, labels.dtype)
    value_of[nearest[~holes]] = labels[~holes]
    filled = labels.copy()
    filled[holes] = value_of[nearest[holes]]
    return filled


def _renumber(labels: np.ndarray) -> np.ndarray:
    """Close the gaps in positive ids: 1..n in the order of the old ones, int32."""
    used = np.bincount(labels.ravel()) > 0
    return np.cumsum(used, dtype=np.int32).take(labels)
