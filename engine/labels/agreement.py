"""One thing, one class: patches between which no border can be seen take one class.

What windows say of one surface differs a little, and clusters cut there; the image does not. So two
patches of different classes become one where the colour steps no more across their border than
within them, their mean colours are alike, and the dearer class costs not much more.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

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

    def merged(self, into: np.ndarray) -> "Patches":
        """Those that ``into`` (P,) numbers alike as one; numbers from 0."""
        count = int(into.max(initial=-1)) + 1
        pairs = np.sort(into[self.pairs], axis=1)
        within = pairs[:, 0] == pairs[:, 1]
        inner = _sums(into, self.inner, count)
        inner += _sums(pairs[within, 0], self.outer[within], count)
        return Patches(
            _sums(into, self.area, count),
            _sums(into, self.vectors, count),
            _sums(into, self.colours, count),
            inner,
            *_summed_pairs(pairs[~within], self.outer[~within]),
        )


def agree(
    patches: Patches, classes: np.ndarray, centroids: np.ndarray, tolerance: float
) -> np.ndarray:
    """Classes (P,) of patches after neighbours had their say.

    In a round each patch looks at the border over which a class costs least, and where its
    neighbour finds the same border best, the two become one, in the class that costs both least.
    A patch that has come to touch one of its own class finds that border best, and stays.

    Args:
        patches: of one scene.
        classes: (P,) their classes.
        centroids: (K, D) float32 that classes are of.
        tolerance: mean squared distance to the centroid that a patch may lose where nothing can
            be seen of a border; less where something can.
    """
    centroids = centroids.astype(np.float64)
    place = np.arange(len(classes))  # of each patch asked about, among those left
    classes = classes.copy()
    for _ in range(MOST_ROUNDS):
        a, b = patches.pairs.T
        if not len(a):
            break
        cost, keeps_first = _cost(patches, classes, centroids)
        ratio = cost / (tolerance * np.maximum(_unseen(patches), 1e-9))
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
        into = np.arange(len(classes))
        into[second] = first
        names, into = np.unique(into, return_inverse=True)
        patches, classes, place = patches.merged(into), classes[names], into[place]
    return classes[place]


def _cost(
    patches: Patches, classes: np.ndarray, centroids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each border, what a pixel of the patch that changes its class loses, (E,), and whether
    it is the second patch that changes, (E,) bool.
    """
    a, b = patches.pairs.T
    first = _loss(patches, a, classes[a], classes[b], centroids)
    second = _loss(patches, b, classes[b], classes[a], centroids)
    keeps_first = second < first
    mover = np.where(keeps_first, b, a)
    return np.where(keeps_first, second, first) / patches.area[mover], keeps_first


def _loss(
    patches: Patches, which: np.ndarray, own: np.ndarray, other: np.ndarray, centroids: np.ndarray
) -> np.ndarray:
    """Sum over a patch's pixels of squared distance to another centroid less that to its own."""
    squared = (centroids**2).sum(1)
    step = np.empty(len(which))
    for start in range(0, len(which), AT_ONCE):
        some = np.s_[start : start + AT_ONCE]
        towards = centroids[other[some]] - centroids[own[some]]
        step[some] = (towards * patches.vectors[which[some]]).sum(1)
    return patches.area[which] * (squared[other] - squared[own]) - 2 * step


def _unseen(patches: Patches) -> np.ndarray:
    """How little can be seen of each border, (E,) 0 to 1."""
    a, b = patches.pairs.T
    within = patches.inner[:, 1] / np.maximum(patches.inner[:, 0], 1)
    known = patches.inner[:, 0] > 0
    usual = np.maximum(np.where(known[a], within[a], 0), np.where(known[b], within[b], 0))
    excess = np.maximum(patches.outer[:, 1] / patches.outer[:, 0] - usual, 0)
    mean = patches.colours / patches.area[:, None]
    apart = np.sqrt(((mean[a] - mean[b]) ** 2).sum(1))
    return np.exp(-(excess + apart / 2) / FADES)


def patches_of(
    patch: np.ndarray,
    area: np.ndarray,
    rows: Iterable[tuple[np.ndarray, np.ndarray]],
    borders: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> Patches:
    """Gather patches from the tables of a scene's regions.

    Args:
        patch: (R,) the patch of each region from 0, -1 none that has a say.
        area: (R,) pixels of each.
        rows: features (n, D) and colours (n, 3) of the regions, part by part in their order.
        borders: region, other, length and mean contrast of those that touch, part by part.
    """
    count = int(patch.max(initial=-1)) + 1
    pixels = _sums(patch, area.astype(np.float64), count)
    vectors: np.ndarray | float = 0.0
    colours = np.zeros((count, 3))
    start = 0
    for features, colour in rows:
        part = np.s_[start : start + len(features)]
        start += len(features)
        weight = area[part, None]
        vectors = vectors + _sums(patch[part], features * weight, count)
        colours += _sums(patch[part], colour.astype(np.float64) * weight, count)
    inner = np.zeros((count, 2))
    pairs: list[np.ndarray] = []
    outer: list[np.ndarray] = []
    for region, other, length, contrast in borders:
        ends = np.sort(np.stack([patch[region], patch[other]], axis=1), axis=1)
        along = np.stack([length, length * contrast.astype(np.float64)], axis=1)
        within = (ends[:, 0] == ends[:, 1]) & (ends[:, 0] >= 0)
        inner += _sums(ends[within, 0], along[within], count)
        across = (ends[:, 0] != ends[:, 1]) & (ends[:, 0] >= 0)
        for kept, found in zip(
            (pairs, outer), _summed_pairs(ends[across], along[across]), strict=True
        ):
            kept.append(found)
    joined = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
    along = np.concatenate([np.zeros((0, 2)), *outer])
    return Patches(pixels, np.asarray(vectors), colours, inner, *_summed_pairs(joined, along))


def _sums(place: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Sums of values (n,) or (n, d) by place (n,), -1 left out: (count,) or (count, d)."""
    inside = place >= 0
    if values.ndim == 1:
        return np.bincount(place[inside], values[inside], count)
    columns = [np.bincount(place[inside], column[inside], count) for column in values.T]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def _summed_pairs(pairs: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each pair once, ascending, and the sums of its values (n, d)."""
    if not len(pairs):
        return np.zeros((0, 2), np.int64), np.zeros((0, values.shape[1]))
    found, place = np.unique(pairs, axis=0, return_inverse=True)
    return found, _sums(place.ravel(), values, len(found))
