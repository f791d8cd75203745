"""Masks as rings without holes, for tools that know no others.

A ring runs through the centres of the outermost pixels of a part, as OpenCV finds and fills them.
Holes hang on it by bridges, gone there and back. Filled by even and odd, as trainers do, that is
the part again, but for pixels of one hole that the bridge to another crosses.
"""

import cv2
import numpy as np
from scipy.spatial import KDTree

LEAST = 3  # points of a ring


def rings_of(mask: np.ndarray) -> list[np.ndarray]:
    """A ring for each part of a mask (h, w) bool: (n, 2) int64, x and y of pixels, n at least 3.

    Pixels that touch by a corner are of one part.
    """
    outlines, trees = cv2.findContours(
        np.ascontiguousarray(mask, np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    rings = [outline[:, 0].astype(np.int64) for outline in outlines]
    holes: dict[int, list[np.ndarray]] = {}
    for ring, parent in zip(rings, trees[0][:, 3].tolist(), strict=True):
        holes.setdefault(parent, []).append(ring)
    parts = [index for index, tree in enumerate(trees[0].tolist()) if tree[3] < 0]
    return [_long_enough(_hung(rings[index], holes.get(index, []))) for index in parts]


def _long_enough(ring: np.ndarray) -> np.ndarray:
    """A ring of a pixel or a line of them has too few points: the last is repeated."""
    return np.concatenate([ring, np.repeat(ring[-1:], max(0, LEAST - len(ring)), axis=0)])


def _hung(ring: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    """A ring from which one goes to each of the others, around it and back, where it is nearest."""
    if not others:
        return ring
    tree = KDTree(ring)
    detours: dict[int, list[np.ndarray]] = {}
    for other in others:
        distance, place = tree.query(other)
        start = int(distance.argmin())
        around = np.concatenate([other[start:], other[: start + 1]])
        at = int(place[start])
        detours.setdefault(at, []).extend([around, ring[at : at + 1]])
    pieces, before = [], 0
    for at in sorted(detours):
        pieces += [ring[before : at + 1], *detours[at]]
        before = at + 1
    return np.concatenate([*pieces, ring[before:]])
