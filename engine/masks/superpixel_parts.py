"""Cuts masks, and what lies under none, along edges of colour.

A mask may hold several things, and a model's outlines are coarser than the image; colour knows
better where a roof ends, and masks know better what belongs together. So a window is cut into
superpixels, each of which is cut by the masks, and every part takes its embedding from its mask
and its colour from itself.
"""

from dataclasses import dataclass

import numpy as np

from alps.kernels import paint as painting
from alps.kernels.masks.algebra import runs_of_labels
from alps.kernels.masks.runs import Runs
from alps.kernels.superpixels import superpixels

# Of a superpixel's nominal area; what a mask's outline cuts off in smaller slivers follows colour.
SLIVER = 0.25


@dataclass(frozen=True)
class Parts:
    """Disjoint parts of an image, P of them, by mask; they hold all its valid pixels."""

    runs: Runs
    mask: np.ndarray  # (P,) int32, index of the mask on top there; -1 under none, these come last


def cut_masks(
    counts: list[bytes],
    order: np.ndarray,
    lab: np.ndarray,
    valid: np.ndarray | None,
    per_megapixel: float,
) -> Parts:
    """Cut M masks of an image into parts.

    Args:
        counts: their COCO compressed run lengths.
        order: (M,) indices, bottom first, as they would be painted.
        lab: (H, W, 3) int16 of ``kernels.colour.lab_of``.
        valid: (H, W) bool, pixels that belong to a part; None: all.
        per_megapixel: superpixels a million pixels.
    """
    size, masks = lab.shape[:2], len(counts)
    regions = superpixels(lab, valid, per_megapixel)
    top = painting.paint(counts, np.arange(masks, dtype=np.uint32), order, size, masks)
    inside = regions >= 0
    number = int(regions.max(initial=0)) + 1
    keys = top[inside].astype(np.int64) * number + regions[inside]
    found, part, area = np.unique(keys, return_inverse=True, return_counts=True)

    # The largest part of each superpixel, of equals that of the first mask.
    region = found % number
    by_region = np.lexsort((found, -area, region))
    first = np.flatnonzero(np.diff(region[by_region], prepend=-1))
    main = np.zeros(number, np.int64)
    main[region[by_region[first]]] = by_region[first]
    sliver = area < SLIVER * 1e6 / per_megapixel
    goes_to = np.where(sliver, main[region], np.arange(len(found)))
    kept, renumbered = np.unique(goes_to, return_inverse=True)

    labels = np.full(size, -1, np.int32)
    labels[inside] = renumbered[part]
    mask = found[kept] // number
    return Parts(
        runs_of_labels(labels, len(kept)), np.where(mask < masks, mask, -1).astype(np.int32)
    )
