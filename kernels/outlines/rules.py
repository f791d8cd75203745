"""What outlines are, and how their vertices say where one can go on from."""

from dataclasses import dataclass

import numpy as np

NOTHING = -1  # the value of pixels that lie in no patch

# Directions, clockwise as an image is looked at: a bit each in a vertex's arcs. Walking along one,
# the patch lies on the right.
EAST, SOUTH, WEST, NORTH = 0, 1, 2, 3
# All four arcs, and two pixels across the corner that are of one patch: above left and below
# right, or the other two. Its outline passes between them, so that no ring touches itself.
JOINED_FALLING, JOINED_RISING = 16, 32


@dataclass(frozen=True)
class Outlines:
    """Outlines of all patches of an image, along the edges of pixels.

    A patch is what hangs together, by sides of pixels, in one value; patches are in the order of
    their first pixels, row by row. Vertices are the corners of all patches, also those of a
    neighbour alone: what two patches share is the same vertices in both.

    Attributes:
        x: (V,) int32 column of each vertex, from 0 to the width.
        y: (V,) int32 row, from 0 to the height.
        corners: (C,) int32 vertices of all rings, one after the other, none closed. A patch lies
            on the right of its rings where y grows downwards.
        ring_starts: (R + 1,) int64 where rings begin in ``corners``.
        patch_starts: (P + 1,) int64 where patches begin among the rings: the outer ring, then one
            for each hole.
        values: (P,) int32 the value of each patch.
        pixels: (P,) int64 how many it has.
        sums: (P,) float64 of the weights of its pixels, of those that have one.
        weighed: (P,) int64 how many have one.
    """

    x: np.ndarray
    y: np.ndarray
    corners: np.ndarray
    ring_starts: np.ndarray
    patch_starts: np.ndarray
    values: np.ndarray
    pixels: np.ndarray
    sums: np.ndarray
    weighed: np.ndarray

    def __len__(self) -> int:
        return len(self.values)
