"""Regions of an image: pieces of equal value that hang together, small ones joined, and who lies
beside whom.

All sums are of whole numbers, so a block of a scene gives its regions what the whole scene gives
them, wherever what they hang on lies within the block.

Bytes moved: ``pieces`` H x W x (8 + 4 x 4); ``borders`` H x W x (4 + 6) and 24 a pair of pixels
that lie in two regions; ``moments`` H x W x (4 + 6); ``overlaps`` h x w x (4 + 4) and 8 a region
and segment; ``add_neighbours``, ``blend``, ``unite`` and ``areas_up_to`` say theirs.
"""

from alps.kernels.regions.blend import blend, reference_blend
from alps.kernels.regions.cpu import borders, boxes, moments, pieces
from alps.kernels.regions.join import join_small
from alps.kernels.regions.neighbours import add_neighbours, reference_add_neighbours
from alps.kernels.regions.overlaps import overlaps, reference_overlaps, window_weights
from alps.kernels.regions.reference import (
    reference_borders,
    reference_boxes,
    reference_join_small,
    reference_moments,
    reference_pieces,
)
from alps.kernels.regions.rules import Borders, Moments
from alps.kernels.regions.unite import (
    areas_up_to,
    reference_areas_up_to,
    reference_unite,
    unite,
)

__all__ = [
    "Borders",
    "Moments",
    "add_neighbours",
    "areas_up_to",
    "blend",
    "borders",
    "boxes",
    "join_small",
    "moments",
    "overlaps",
    "pieces",
    "reference_add_neighbours",
    "reference_areas_up_to",
    "reference_blend",
    "reference_borders",
    "reference_boxes",
    "reference_join_small",
    "reference_moments",
    "reference_overlaps",
    "reference_pieces",
    "reference_unite",
    "unite",
    "window_weights",
]
