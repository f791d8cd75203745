"""One thing, one class: patches between which no border can be seen take one class.

What windows say of one surface differs a little, and clusters cut there; the image does not. So two
patches of different classes become one where the colour steps no more across their border than
within them, their mean colours are alike, and the dearer class costs not much more.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from alps.engine.labels.patches import patches_of_classes
from alps.kernels.regions import areas_up_to

LEAST_PIXELS = 256  # of a patch that has a say; smaller ones are details, and many
FADES = 1.5  # L*a*b* units by which colour steps more across a border, at which 1/e is allowed
MOST_ROUNDS = 100
AT_ONCE = 1 << 13  # borders whose costs are found at once


@dataclass(frozen=True)
class Patches:
    """P patches of one scene and the E borders between them."""

    area: np.ndarray  # (P,) pixels
    vectors: np.ndarray  # (P, D) float64 sums over the pixels of features
    colours: np.ndarray  # (P, 3) float64 sums of mean L*, a*, b*
    inner: np.ndarray  # (P, 2) float64 length of the borders between regions within, and contrast
    pairs: np.ndarray  # (E, 2) int64, lower first, ascending
    outer: np.ndarray  # (E, 2) float64 length of a border, and contrast along it

    def joined(self, first: np.ndarray, second: np.ndarray) -> "Patches":
        """Those of ``second`` (N,) as one with those of ``first``, by whose numbers they go on; no
        patch is named twice. Sums are added in place.
        """
        for start in range(0, len(first), AT_ONCE):
            kept, gone = first[start : start + AT_ONCE], second[start : start + AT_ONCE]
            for sums in (self.area, self.vectors, self.colours, self.inner):
                sums[kept] += sums[gone]
        into = np.arange(len(self.area))
        into[second] = first
        pairs = np.sort(into[self.pairs], axis=1)
        within = pairs[:, 0] == pairs[:, 1]
        self.inner[pairs[within, 0]] += self.outer[within]
        pairs, outer = _summed_pairs(pairs[~within], self.outer[~within], len(into))
        return replace(self, pairs=pairs, outer=outer)


def agree(
    patches: Patches, classes: np.ndarray, centroids: np.ndarray, tolerance: float
) -> np.ndarray:
    """Classes (P,) of patches after neighbours had their say.

    In a round each patch looks at the border over which a class costs least, and where its
    neighbour finds the same border best, the two become one, in the class that costs both least.
    A patch that has come to touch one of its own class finds that border best, and stays.

    Args:
        patches: of one scene; they are added up in place.
        classes: (P,) their classes.
        centroids: (K, D) float32 that classes are of.
        tolerance: mean squared distance to the centroid that a patch may lose where nothing can
            be seen of a border; less where something can.
    """
    centroids = centroids.astype(np.float64)
    into = np.arange(len(classes))  # the patch that each is a part of
    classes = classes.copy()
    for _ in range(MOST_ROUNDS):
        a, b = patches.pairs.T
        if not len(a):
            break
        ratio, keeps_first = _ratios(patches, classes, centroids, tolerance)
        best = np.full(len(classes), np.inf)
        np.minimum.at(best, a, ratio)
        np.minimum.at(best, b, ratio)
        chosen = (ratio <= 1) & (ratio <= best[a]) & (ratio <= best[b])
        chosen &= classes[a] != classes[b]
        if not chosen.any():
            break
        first, second = a[chosen], b[chosen]
        # Borders that cost the same: a patch takes part in one of them.
        _, once = np.unique(first, return_index=True)
        first, second, keeps = first[once], second[once], keeps_first[chosen][once]
        _, once = np.unique(second, return_index=True)
        first, second, keeps = first[once], second[once], keeps[once]
        free = ~np.isin(second, first)
        first, second, keeps = first[free], second[free], keeps[free]
        classes[first] = np.where(keeps, classes[first], classes[second])
        into[second] = first
        patches = patches.joined(first, second)
    while ((further := into[into]) != into).any():
        into = further
    return classes[into]


def _ratios(
    patches: Patches, classes: np.ndarray, centroids: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """For each border, what a pixel of the patch that changes its class loses, of what it may,
    (E,), and whether it is the second patch that changes, (E,) bool.
    """
    ratio = np.empty(len(patches.pairs))
    keeps_first = np.empty(len(patches.pairs), bool)
    for start in range(0, len(ratio), AT_ONCE):
        some = np.s_[start : start + AT_ONCE]
        a, b = patches.pairs[some].T
        first = _loss(patches, a, classes[a], classes[b], centroids)
        second = _loss(patches, b, classes[b], classes[a], centroids)
        keeps_first[some] = second < first
        mover = np.where(keeps_first[some], b, a)
        cost = np.where(keeps_first[some], second, first) / patches.area[mover]
        ratio[some] = cost / (tolerance * np.maximum(_unseen(patches, some), 1e-9))
    return ratio, keeps_first


def _loss(
    patches: Patches, which: np.ndarray, own: np.ndarray, other: np.ndarray, centroids: np.ndarray
) -> np.ndarray:
    """Sum over a patch's pixels of squared distance to another centroid less that to its own."""
    squared = (centroids**2).sum(1)
    towards = centroids[other] - centroids[own]
    step = (towards * patches.vectors[which]).sum(1)
    return patches.area[which] * (squared[other] - squared[own]) - 2 * step


def _unseen(patches: Patches, some: slice) -> np.ndarray:
    """How little can be seen of some of the borders, 0 to 1."""
    (a, b), outer = patches.pairs[some].T, patches.outer[some]
    usual = np.maximum(_step_within(patches.inner[a]), _step_within(patches.inner[b]))
    excess = np.maximum(outer[:, 1] / outer[:, 0] - usual, 0)
    mean_a, mean_b = (patches.colours[one] / patches.area[one, None] for one in (a, b))
    apart = np.sqrt(((mean_a - mean_b) ** 2).sum(1))
    return np.exp(-(excess + apart / 2) / FADES)


def _step_within(inner: np.ndarray) -> np.ndarray:
    """How much colour steps within patches whose inner borders these are, 0 where there is none."""
    return np.where(inner[:, 0] > 0, inner[:, 1] / np.maximum(inner[:, 0], 1), 0)


def patches_with_say(
    classes: np.ndarray, area: np.ndarray, borders: Callable[[], Iterable[pa.Table]]
) -> tuple[np.ndarray, np.ndarray]:
    """The patches that have a say, each by its lowest region, (P,) int64 ascending, and which of
    them each region lies in, (R,) int32, -1 none. Arguments as of ``join_small_patches``.
    """
    patch = patches_of_classes(classes, borders)
    size = areas_up_to(LEAST_PIXELS, patch, area)
    has_say = (classes >= 0) & (size >= LEAST_PIXELS)  # sizes stand at the lowest regions alone
    names = np.flatnonzero(has_say)
    number = size
    number[:] = -1
    number[names] = np.arange(len(names))
    return names, number[patch]


def patches_of(
    patch: np.ndarray,
    rows: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    borders: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> Patches:
    """Gather patches from the tables of a scene's regions.

    Args:
        patch: (R,) the patch of each region from 0, -1 none that has a say.
        rows: features (n, D), colours (n, 3) and pixels (n,) of the regions, part by part in their
            order.
        borders: region, other, length and mean contrast of those that touch, part by part.
    """
    count = int(patch.max(initial=-1)) + 1
    pixels, colours = np.zeros(count), np.zeros((count, 3))
    vectors = np.zeros((count, 0))
    start = 0
    for features, colour, area in rows:
        if not start:
            vectors = np.zeros((count, features.shape[1]))
        own = patch[start : start + len(area)]
        start += len(area)
        weight = area[:, None]
        _add(pixels, own, area.astype(np.float64))
        _add(vectors, own, features * weight)
        _add(colours, own, colour.astype(np.float64) * weight)
    inner = np.zeros((count, 2))
    pairs, outer = [np.zeros((0, 2), np.int64)], [np.zeros((0, 2))]
    for region, other, length, contrast in borders:
        ends = np.sort(np.stack([patch[region], patch[other]], axis=1), axis=1)
        along = np.stack([length, length * contrast.astype(np.float64)], axis=1)
        within = (ends[:, 0] == ends[:, 1]) & (ends[:, 0] >= 0)
        _add(inner, ends[within, 0], along[within])
        across = (ends[:, 0] != ends[:, 1]) & (ends[:, 0] >= 0)
        found = _summed_pairs(ends[across], along[across], count)
        pairs.append(found[0])
        outer.append(found[1])
    joined = _summed_pairs(np.concatenate(pairs), np.concatenate(outer), count)
    return Patches(pixels, vectors, colours, inner, *joined)


def _add(sums: np.ndarray, place: np.ndarray, values: np.ndarray) -> None:
    """Add the sums of values (n,) or (n, d) by place (n,), -1 left out, to (P,) or (P, d)."""
    inside = place >= 0
    names, which = np.unique(place[inside], return_inverse=True)  # of all patches but a few
    sums[names] += _sums(which, values[inside], len(names))


def _sums(place: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Sums of values (n,) or (n, d) by place (n,): (count,) or (count, d)."""
    if values.ndim == 1:
        return np.bincount(place, values, count)
    columns = [np.bincount(place, column, count) for column in values.T]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def _summed_pairs(
    pairs: np.ndarray, values: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of ``count`` patches once, ascending, and the sums of its values (n, d)."""
    keys, place = np.unique(pairs[:, 0] * np.int64(count) + pairs[:, 1], return_inverse=True)
    found = np.stack(np.divmod(keys, max(count, 1)), axis=1)
    return found, _sums(place, values, len(keys))
