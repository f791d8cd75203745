"""How well the outlines of classes lie on the real ones: precision, recall and F1 of boundaries.

A boundary pixel differs in class from the pixel on its right or below it. One of the labels counts
as right where a real one lies within the tolerance, and a real one as found where one of the labels
does, as in boundary detection since Martin, Fowlkes and Malik (TPAMI 2004), but without matching
pixels one to one. Sums run over images, strip by strip.
"""

import math
from dataclasses import dataclass

import numpy as np
from rasterio.windows import Window

from alps.engine.quality.label_file import Grid, LabelFile, open_image, read_bands
from alps.engine.quality.truth import (
    LabelPair,
    TruthRules,
    class_bands,
    read_classes,
    unlabelled_value,
)

NOTHING = -1  # class of pixels without one
STRIP_ROWS = 1024


@dataclass(frozen=True)
class BoundaryCounts:
    """Boundary pixels of label maps and of the truth, and those that have each other near."""

    labels: int = 0
    labels_near: int = 0
    truth: int = 0
    truth_near: int = 0

    def __add__(self, other: "BoundaryCounts") -> "BoundaryCounts":
        return BoundaryCounts(
            self.labels + other.labels,
            self.labels_near + other.labels_near,
            self.truth + other.truth,
            self.truth_near + other.truth_near,
        )

    @property
    def precision(self) -> float:
        """Share of the labels' boundary pixels near a real one; nan where there is none."""
        return self.labels_near / self.labels if self.labels else math.nan

    @property
    def recall(self) -> float:
        """Share of the real boundary pixels near one of the labels; nan where there is none."""
        return self.truth_near / self.truth if self.truth else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 0 where nothing is near, nan where neither has a boundary."""
        if not self.labels and not self.truth:
            return math.nan
        if not self.labels_near or not self.truth_near:
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def boundary_counts(
    pair: LabelPair, rules: TruthRules, classes: dict[int, int], tolerance: float
) -> BoundaryCounts:
    """Compare the outlines of one image.

    Args:
        pair, rules: as for ``truth.read_strips``; both files must have one size.
        classes: truth class that each pseudo-class is read as; what is not in it is no class.
        tolerance: distance in pixels that is near enough.
    """
    halo = math.ceil(tolerance) + 1
    total = BoundaryCounts()
    with open_image(pair.labels) as labels, LabelFile(pair.truth, Grid.of(labels)) as truth:
        mapped = np.full(unlabelled_value(labels) + 1, NOTHING, np.int64)
        for pseudo, truth_class in classes.items():
            mapped[pseudo] = truth_class
        bands = class_bands(truth, rules)
        for first in range(0, labels.height, STRIP_ROWS):
            top = max(0, first - halo)
            last = min(labels.height, first + STRIP_ROWS)
            window = Window(0, top, labels.width, min(labels.height, last + halo) - top)
            real, valid = read_classes(truth, bands, window, rules)
            read = mapped[read_bands(labels, 1, window)]
            total += _counts(read, real, valid, tolerance, slice(first - top, last - top))
    return total


def boundaries(classes: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another class, both valid: (H, W) bool."""
    found = np.zeros(classes.shape, bool)
    for one, other in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1], np.s_[1:]),
    ):
        found[one] |= (classes[one] != classes[other]) & valid[one] & valid[other]
    return found


def _counts(
    read: np.ndarray, real: np.ndarray, valid: np.ndarray, tolerance: float, rows: slice
) -> BoundaryCounts:
    ours, theirs = boundaries(read, valid), boundaries(real, valid)
    near_ours, near_theirs = _near(ours, tolerance), _near(theirs, tolerance)
    return BoundaryCounts(
        labels=int(ours[rows].sum()),
        labels_near=int((ours & near_theirs)[rows].sum()),
        truth=int(theirs[rows].sum()),
        truth_near=int((theirs & near_ours)[rows].sum()),
    )


def _near(found: np.ndarray, tolerance: float) -> np.ndarray:
    """Pixels within the tolerance of one that is set."""
    import cv2  # not before: `alps --help` would wait for it

    if not found.any():
        return found
    away = cv2.distanceTransform((~found).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return away <= tolerance + 1e-4
