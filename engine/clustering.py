"""Online k-means over embeddings that come in chunks, from memory or from a run folder.

k-means++ on a sample chooses the first centroids; mini-batches drawn over all chunks in shuffled
order move them (Sculley, "Web-scale k-means clustering", WWW 2010: a centroid's step is its share
of what it has received); centroids that receive nothing are placed anew on the worst-served
vectors. Memory is one chunk and the sample, whatever the archive's size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from alps.engine.errors import SettingsError
from alps.engine.features import FeatureModel
from alps.engine.settings import ClusterSettings
from alps.kernels import kmeans

SAMPLE_PER_CLUSTER = 256  # vectors a centroid in the sample of k-means++
BATCH_ROWS = 4096
SETTLED = 1e-4  # relative change of inertia over a pass at which passes stop


class Chunks(Protocol):
    """Embeddings in pieces that fit in memory."""

    sizes: Sequence[int]  # vectors a piece

    def __getitem__(self, index: int) -> np.ndarray:
        """(n, C) floating point, finite; n may differ from piece to piece and be 0."""
        ...


@dataclass(frozen=True)
class ClusterModel:
    """Centroids and how vectors are brought to them."""

    centroids: np.ndarray  # (K, C) float32
    counts: np.ndarray  # (K,) int64 vectors of each in the last pass
    inertia: float  # mean squared distance to the own centroid
    normalised: bool
    seed: int
    features: FeatureModel | None = None  # makes the vectors that ``assign`` is given

    def assign(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cluster (N,) int32 and margin (N,) float32 of embeddings (N, C).

        The margin is 1 - nearest / second nearest distance: 0 on the fence, 1 on the centroid.
        """
        found = kmeans.assign(prepare(vectors, self.normalised), self.centroids)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.sqrt(found.nearest / found.second)
        # Two centroids in one place: nothing tells them apart.
        margin = np.where(found.second > 0, 1 - ratio, 0).astype(np.float32)
        return found.labels, margin


def prepare(vectors: np.ndarray, normalised: bool) -> np.ndarray:
    """float32, rows scaled to length 1 where asked; a zero row stays zero.

    Raises ValueError for NaN and infinity, which would spread to all centroids unseen.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError("embeddings hold NaN or infinity")
    if not normalised:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def fit_clusters(chunks: Chunks, settings: ClusterSettings) -> ClusterModel:
    """Fit K centroids; the same chunks and seed give the same centroids.

    Raises:
        SettingsError: more clusters asked for than there are vectors.
    """
    rng = np.random.default_rng(settings.seed)
    total, clusters = sum(chunks.sizes), settings.clusters
    check_enough(total, clusters)
    sample = _sample(chunks, clusters * SAMPLE_PER_CLUSTER, settings.normalise, rng)
    centroids = plus_plus(sample, clusters, rng)
    received = np.zeros(clusters, dtype=np.int64)
    before = np.inf
    for _ in range(settings.passes):
        inertia = 0.0
        counts = np.zeros(clusters, dtype=np.int64)
        for index in rng.permutation(len(chunks.sizes)):
            vectors = prepare(chunks[index], settings.normalise)
            vectors = vectors[rng.permutation(len(vectors))]
            for start in range(0, len(vectors), BATCH_ROWS):
                batch = vectors[start : start + BATCH_ROWS]
                found = kmeans.assign(batch, centroids)
                sums, new = found.sums, found.counts
                received += new
                counts += new
                inertia += found.inertia
                hit = new > 0
                step = (sums[hit] - new[hit, None] * centroids[hit]) / received[hit, None]
                centroids[hit] += step.astype(np.float32)
        inertia /= total
        if before - inertia <= SETTLED * inertia and (counts > 0).all():
            break
        before = inertia
        dead = np.flatnonzero(counts == 0)
        centroids = _revive(centroids, dead, sample)
        # Forget half: early batches, drawn to poor centroids, must not hold them for ever.
        received //= 2
        received[dead] = 0
    return ClusterModel(centroids, counts, inertia, settings.normalise, settings.seed)


def check_enough(total: int, clusters: int) -> None:
    """Raise SettingsError where there are fewer segments than clusters."""
    if total < clusters:
        raise SettingsError(
            f"--clusters {clusters}: the archive has only {total} segments; give at most that, or "
            "let more masks through the gate (--points-per-side up, --pred-iou-thresh down)"
        )


def plus_plus(sample: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ (Arthur and Vassilvitskii, SODA 2007): (S, C) -> (clusters, C) float32.

    Each centroid is the best of a few candidates (greedy k-means++): drawn once, well separated
    groups too often share a centroid, which no later pass mends.
    """
    trials = 2 + int(np.log(clusters))
    centred = sample - sample.mean(0)
    lengths = (centred**2).sum(1)
    chosen = [int(rng.integers(len(sample)))]
    distance = _squared_distance(sample, sample[chosen[0]])
    while len(chosen) < clusters:
        edges = np.cumsum(distance)
        if edges[-1] > 0:
            drawn = np.searchsorted(edges, rng.random(trials) * edges[-1], side="right")
            drawn = np.minimum(drawn, len(sample) - 1)
            reached = lengths[:, None] - 2 * (centred @ centred[drawn].T) + lengths[drawn]
            left = np.minimum(distance[:, None], np.maximum(reached, 0)).sum(0)
            pick = int(drawn[left.argmin()])
        else:  # fewer distinct vectors than clusters: the rest coincide and receive nothing
            pick = int(rng.integers(len(sample)))
        chosen.append(pick)
        distance = np.minimum(distance, _squared_distance(sample, sample[pick]))
    return sample[chosen].astype(np.float32)


def _squared_distance(vectors: np.ndarray, one: np.ndarray) -> np.ndarray:
    """(N, C) and (C,) -> (N,) float64."""
    return ((vectors - one) ** 2).sum(1, dtype=np.float64)


def _sample(chunks: Chunks, rows: int, normalised: bool, rng: np.random.Generator) -> np.ndarray:
    """Up to ``rows`` vectors drawn without replacement over all chunks, prepared."""
    total = sum(chunks.sizes)
    chosen = np.sort(rng.choice(total, min(rows, total), replace=False))
    edges = np.concatenate([[0], np.cumsum(chunks.sizes)])
    pieces = []
    for index in range(len(chunks.sizes)):
        low, high = np.searchsorted(chosen, edges[index : index + 2])
        if high > low:
            pieces.append(np.asarray(chunks[index])[chosen[low:high] - edges[index]])
    return prepare(np.concatenate(pieces), normalised)


def _revive(centroids: np.ndarray, dead: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Put centroids that received nothing on the sample's worst-served distinct vectors."""
    if not len(dead):
        return centroids
    distance = kmeans.assign(sample, np.delete(centroids, dead, axis=0)).nearest
    centroids = centroids.copy()
    for index in dead:
        worst = int(distance.argmax())
        if distance[worst] == 0:  # every vector has a centroid of its own
            break
        centroids[index] = sample[worst]
        distance = np.minimum(distance, _squared_distance(sample, sample[worst]))
    return centroids
