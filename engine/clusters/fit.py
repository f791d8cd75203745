"""Online k-means over vectors that come in batches, from memory, a GPU or a run folder.

k-means++ on a sample chooses the first centroids. Batches drawn over the whole archive move them:
a centroid is the mean of what it received, in which the past fades (Sculley, "Web-scale k-means
clustering", WWW 2010, never forgets; early batches, drawn to poor centroids, then hold them back).
Where the archive is one batch, that is Lloyd's algorithm. Centroids that receive next to nothing
are moved to badly served vectors. Whether it pays to go on is asked of the sample: its inertia is
taken whenever the number of vectors seen has doubled, and once a pass.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from alps.engine.base.errors import SettingsError
from alps.engine.clusters.data import MemoryVectors, Vectors, to_host
from alps.engine.clusters.features import FeatureModel
from alps.engine.clusters.seeding import move_centroids, plus_plus
from alps.engine.settings import ClusterSettings
from alps.kernels import kmeans

SAMPLE_PER_CLUSTER, LEAST_SAMPLE = 24, 4096  # vectors of the sample of k-means++
SAMPLE_BYTES = 1 << 28
BATCH_PER_CLUSTER, LEAST_BATCH, MOST_BATCH = 32, 4096, 1 << 16
TINY = 0.02  # share of the mean mass below which a centroid is moved while vectors are new
MOVE_EVERY = 4  # batches
MEMORY = 0.5  # share of the vectors seen that a centroid's mean remembers
# Relative fall of the sample's inertia, for twice as many vectors or for another pass, at which
# fitting stops; lower where all vectors are few, and another pass costs next to nothing.
ENOUGH, SETTLED, FEW = 2e-3, 1e-4, 1 << 16


@dataclass(frozen=True)
class SplitCluster:
    """A cluster that somebody split: its parts, which it alone is divided among."""

    numbers: tuple[int, ...]  # of the parts; the first is the cluster's own
    centroids: np.ndarray  # (parts, D) float32

    @property
    def cluster(self) -> int:
        """The number of what is split."""
        return self.numbers[0]


@dataclass(frozen=True)
class ClusterModel:
    """Centroids, and how regions are brought to them."""

    centroids: np.ndarray  # (K, D) float32
    counts: np.ndarray  # (K,) int64 vectors of each in the archive that was clustered
    inertia: float  # mean squared distance to the own centroid there, by weight
    seed: int
    features: FeatureModel | None = None  # makes the vectors that ``assign`` is given
    splits: tuple[SplitCluster, ...] = ()  # in order: a part may be split again

    @property
    def classes(self) -> int:
        """How many numbers ``assign`` may give, 0…N-1; with splits some may be unused."""
        parts = (number for split in self.splits for number in split.numbers)
        return max([len(self.centroids) - 1, *parts]) + 1

    @property
    def class_centroids(self) -> np.ndarray:
        """Where each number lies, (N, D) float32; 0 for unused ones."""
        found = np.zeros((self.classes, self.centroids.shape[1]), np.float32)
        found[: len(self.centroids)] = self.centroids
        for split in self.splits:
            found[list(split.numbers)] = split.centroids
        return found

    def known_features(self) -> FeatureModel:
        """``features``. Raises ValueError where the clusters came without."""
        if self.features is None:
            raise ValueError("clusters without features say nothing of regions")
        return self.features

    def assign(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cluster (N,) int32 and margin (N,) float32 of vectors (N, D).

        The margin is 1 - nearest / second nearest distance: 0 on the fence, 1 on the centroid.
        Raises ValueError for NaN and infinity.
        """
        found = kmeans.assign(vectors, self.centroids)
        return self.divided(vectors, np.asarray(found.labels), margin_of(found))

    def divided(
        self, vectors: Any, labels: np.ndarray, margin: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Clusters (N,) int32 and margins (N,) float32 after those that are split were divided.

        vectors: (N, D), on a GPU too. The margin of a part is no larger than its cluster's.
        """
        if not self.splits:
            return labels, margin
        labels, margin = labels.copy(), margin.copy()
        for split in self.splits:
            rows = np.flatnonzero(labels == split.cluster)
            if len(rows):
                found = kmeans.assign(MemoryVectors(vectors).take(rows).vectors, split.centroids)
                labels[rows] = np.array(split.numbers, np.int32)[to_host(found.labels)]
                nearest, second = to_host(found.nearest), to_host(found.second)
                found = replace(found, nearest=nearest, second=second)
                margin[rows] = np.minimum(margin[rows], margin_of(found))
        return labels, margin


def margin_of(found: kmeans.Assignment) -> np.ndarray:
    """How much nearer the first centroid is than the second, (N,) float32 in 0…1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt(found.nearest / found.second)
    # Two centroids in one place: nothing tells them apart.
    return np.where(found.second > 0, 1 - ratio, 0).astype(np.float32)


def fit_clusters(vectors: Vectors, settings: ClusterSettings) -> ClusterModel:
    """Fit K centroids, and count in one more pass what each gets. Errors as ``fit_centroids``."""
    centroids = fit_centroids(vectors, settings)
    tally = Tally(len(centroids))
    for batch in vectors.batches(MOST_BATCH, np.random.default_rng(0)):
        tally.add(Counted.of(kmeans.assign(batch.vectors, centroids, batch.weights)))
    return ClusterModel(centroids, tally.counts, tally.mean_inertia, settings.seed)


@dataclass(frozen=True)
class Counted:
    """What the centroids get of one batch."""

    counts: np.ndarray  # (K,) int64
    inertia: float
    weight: float

    @classmethod
    def of(cls, found: kmeans.Assignment) -> Self:
        """Of a batch that was assigned."""
        return cls(found.counts, found.inertia, float(found.weights.sum()))


class Tally:
    """What the centroids get over an archive, batch by batch."""

    def __init__(self, clusters: int) -> None:
        self.counts = np.zeros(clusters, np.int64)
        self._inertia = self._weight = 0.0

    def add(self, found: Counted) -> None:
        """Count a batch."""
        self.counts += found.counts
        self._inertia += found.inertia
        self._weight += found.weight

    @property
    def mean_inertia(self) -> float:
        """The mean squared distance so far, by weight."""
        return self._inertia / self._weight if self._weight else 0.0


def fit_centroids(vectors: Vectors, settings: ClusterSettings) -> np.ndarray:
    """K centroids (K, D) float32; the same vectors and seed give the same bytes.

    Raises:
        SettingsError: more clusters asked for than there are vectors.
        ValueError: a vector holds NaN or infinity.
    """
    clusters = settings.clusters
    check_enough(vectors.count, clusters)
    rng = np.random.default_rng(settings.seed)
    sample = draw_sample(vectors, max(SAMPLE_PER_CLUSTER * clusters, LEAST_SAMPLE), rng)
    if not np.isfinite(sample[0]).all():
        raise ValueError("vectors hold NaN or infinity")
    fit = _Fit(plus_plus(sample[0], clusters, rng, sample[1]), vectors.count, sample, rng)
    rows = int(np.clip(BATCH_PER_CLUSTER * clusters, LEAST_BATCH, MOST_BATCH))
    for _ in range(settings.passes):
        for batch in vectors.batches(rows, rng):
            if fit.add(kmeans.assign(batch.vectors, fit.centroids, batch.weights)):
                return fit.centroids
    return fit.centroids


def draw_sample(
    vectors: Vectors, rows: int, rng: np.random.Generator, most_bytes: int = SAMPLE_BYTES
) -> tuple[np.ndarray, np.ndarray]:
    """Up to ``rows`` vectors (S, D) float32, drawn over all without replacement, and weights."""
    # The width is known once a vector is read; all of an archive have the same.
    width = vectors.take(np.zeros(1, np.int64)).vectors.shape[1]
    rows = min(rows, max(most_bytes // (4 * width), 1), vectors.count)
    return vectors.take(np.sort(rng.choice(vectors.count, rows, replace=False))).on_host()


class _Fit:
    """Centroids on their way."""

    def __init__(
        self,
        centroids: np.ndarray,
        total: int,
        sample: tuple[np.ndarray, np.ndarray],
        rng: np.random.Generator,
    ) -> None:
        self.centroids = centroids
        self._total, self._sample, self._rng = total, sample, rng
        self._mass = np.zeros(len(centroids))  # what the mean that a centroid is was taken of
        self._received = np.zeros(len(centroids))  # in this span
        self._batches = 0
        self._seen = self._begun = 0  # vectors, and at the span's begin
        self._inertia = np.inf

    def add(self, found: kmeans.Assignment) -> bool:
        """Move the centroids to what they received; returns whether that was enough."""
        count = int(found.counts.sum())
        self._seen += count
        # At least this batch is remembered; with one a pass, nothing else.
        memory = float(np.clip(MEMORY * self._seen, count, max(self._total, count)))
        self._mass *= 1 - count / memory
        self._mass += found.weights
        hit = found.weights > 0
        step = found.sums[hit] - found.weights[hit, None] * self.centroids[hit]
        self.centroids[hit] += (step / self._mass[hit, None]).astype(np.float32)
        self._received += found.weights
        done = self._seen - self._begun
        span = min(self._begun, self._total) or min(self._total, len(self._sample[0]))
        if done < span:
            # It costs an assignment of the sample; the second half of a span is for settling.
            self._batches += 1
            if self._batches % MOVE_EVERY == 0 and done < span / 2 and self._seen < self._total:
                self._move(self._mass < TINY * self._mass.mean())
            return False
        before, self._inertia = self._inertia, self._sample_inertia()
        enough = SETTLED if self._total <= FEW else ENOUGH
        if before - self._inertia <= enough * self._inertia:
            return True
        self._move(self._received == 0)
        self._begun = self._seen
        self._received[:] = 0
        return False

    def _move(self, poor: np.ndarray) -> None:
        moved = move_centroids(self.centroids, poor, self._mass, self._sample, self._rng)
        if moved.any():
            self._mass[moved] = self._mass[~poor].min()

    def _sample_inertia(self) -> float:
        vectors, weights = self._sample
        return kmeans.assign(vectors, self.centroids, weights.astype(np.float32)).inertia


def check_enough(total: int, clusters: int) -> None:
    """Raise SettingsError where there are fewer regions than clusters."""
    if total < clusters:
        raise SettingsError(
            f"--clusters {clusters}: the archive has only {total} regions; give at most that, or "
            "cut scenes finer (--superpixels up)"
        )
