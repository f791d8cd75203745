"""Where centroids begin: k-means++, and new places for those that hardly anything is nearest to."""

import numpy as np

from alps.kernels import kmeans

SAME = 1e-5  # squared distance, of the squared lengths, below which two vectors are one


def plus_plus(
    sample: np.ndarray,
    clusters: int,
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """k-means++ (Arthur and Vassilvitskii, SODA 2007): (S, C) -> (clusters, C) float32.

    Each centroid is the best of a few candidates (greedy k-means++): drawn once, well separated
    groups too often share a centroid, which no later pass mends. weights: (S,), none below 0.
    """
    sample = np.ascontiguousarray(sample, np.float32)
    trials = 2 + int(np.log(clusters))
    own = np.ones(len(sample), np.float32) if weights is None else np.asarray(weights, np.float32)
    centred = sample - sample.mean(0)
    lengths = np.einsum("nc,nc->n", centred, centred)
    chosen = [_draw(own, 1, rng)[0]]
    distance = _squared_distance(sample, sample[chosen[0]]).astype(np.float32)
    while len(chosen) < clusters:
        drawn = _draw(distance * own, trials, rng)
        # (trials, S): each candidate's distances side by side.
        reached = centred[drawn] @ centred.T
        reached *= -2
        reached += lengths
        reached += lengths[drawn][:, None]
        # What rounding leaves of a distance between equals is none.
        np.putmask(reached, reached < SAME * (lengths + lengths[drawn][:, None]), 0)
        np.minimum(reached, distance, out=reached)
        best = int((reached @ own).argmin())
        chosen.append(int(drawn[best]))
        distance = reached[best].copy()
    return sample[chosen].copy()


def move_centroids(
    centroids: np.ndarray,
    poor: np.ndarray,
    mass: np.ndarray,
    sample: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """Move poor centroids to vectors which the others serve badly.

    A vector is drawn with a probability that grows with its squared distance, as in k-means++.

    Args:
        centroids: (K, C) float32, changed in place.
        poor: (K,) bool, those to be moved.
        mass: (K,) what each received; those with least go first, should vectors run out.
        sample: vectors (S, C) and weights (S,) to draw from.

    Returns which were moved, (K,) bool; not all where each vector has a centroid of its own.
    """
    vectors, weights = sample
    moved = np.zeros(len(centroids), bool)
    if not poor.any() or poor.all():
        return moved
    distance = kmeans.assign(vectors, centroids[~poor]).nearest.astype(np.float64)
    chances = distance * weights
    drawn = min(int(poor.sum()), int(np.count_nonzero(chances)))
    if drawn:
        picks = rng.choice(len(vectors), drawn, replace=False, p=chances / chances.sum())
        places = vectors[picks]
        places = places[np.sort(np.unique(places, axis=0, return_index=True)[1])]  # no twins
        emptiest = sorted(np.flatnonzero(poor), key=lambda k: (mass[k], k))[: len(places)]
        centroids[emptiest] = places
        moved[emptiest] = True
    return moved


def _draw(chances: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` indices, each drawn by its chances; all alike where there are none."""
    edges = np.cumsum(chances, dtype=np.float64)
    if not edges[-1] > 0:  # fewer distinct vectors than clusters: the rest coincide
        return rng.integers(len(chances), size=count)
    drawn = np.searchsorted(edges, rng.random(count) * edges[-1], side="right")
    return np.minimum(drawn, np.flatnonzero(chances)[-1])


def _squared_distance(vectors: np.ndarray, one: np.ndarray) -> np.ndarray:
    """(N, C) and (C,) -> (N,) float64, exactly 0 for equals."""
    difference = vectors - one
    return np.einsum("nc,nc->n", difference, difference).astype(np.float64)
