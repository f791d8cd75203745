"""Vectors to be clustered that look like embeddings of an archive, generated from a seed.

Groups of groups of unequal sizes, drawn out along few directions that all share and a few of their
own, on top of noise in every channel: what k-means meets in pooled embeddings, where isotropic
blobs would be too easy and noise alone has no clusters to be found.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

FAMILIES = 24
GROUPS = 600
DIRECTIONS = 32  # along which members of all groups differ
PIECE_ROWS = 50_000


@dataclass(frozen=True)
class Mixture:
    """The distribution; pieces drawn from it differ by their seed."""

    centres: np.ndarray  # (G, C) float32
    shares: np.ndarray  # (G,) float64, they sum to 1
    spread: np.ndarray  # (G,) float32, how far members lie apart
    directions: np.ndarray  # (R, C) float32, the first the longest

    def draw(self, rows: int, seed: int) -> np.ndarray:
        """(rows, C) float16; the same rows and seed give the same vectors."""
        rng = np.random.default_rng((seed, 1))
        group = rng.choice(len(self.shares), rows, p=self.shares)
        along = rng.standard_normal((rows, len(self.directions)), np.float32)
        vectors = along @ self.directions
        vectors += 0.3 * rng.standard_normal(vectors.shape, np.float32)
        vectors *= self.spread[group, None]
        vectors += self.centres[group]
        return vectors.astype(np.float16)

    def pieces(self, rows: int, seed: int, size: int = PIECE_ROWS) -> Iterator[np.ndarray]:
        """Draw ``rows`` vectors, ``size`` at a time."""
        for index, start in enumerate(range(0, rows, size)):
            yield self.draw(min(size, rows - start), seed * 1_000_003 + index)

    def array(self, rows: int, seed: int) -> np.ndarray:
        """(rows, C) float16 in one array."""
        vectors = np.empty((rows, self.centres.shape[1]), np.float16)
        start = 0
        for piece in self.pieces(rows, seed):
            vectors[start : start + len(piece)] = piece
            start += len(piece)
        return vectors


def mixture(channels: int = 256, seed: int = 0) -> Mixture:
    """A distribution over ``channels``."""
    rng = np.random.default_rng((seed, 0))
    fall = np.arange(1, channels + 1, dtype=np.float32) ** -0.4  # few channels carry most

    def places(count: int) -> np.ndarray:
        return rng.standard_normal((count, channels), np.float32) * fall

    family = rng.integers(FAMILIES, size=GROUPS)
    centres = 1.5 * places(FAMILIES)[family] + 0.8 * places(GROUPS)
    turn = np.linalg.qr(rng.standard_normal((channels, channels)))[0].astype(np.float32)
    shares = np.arange(1, GROUPS + 1) ** -0.7
    directions = (
        0.5 * places(DIRECTIONS) * np.linspace(1.5, 0.5, DIRECTIONS, dtype=np.float32)[:, None]
    )
    return Mixture(
        centres @ turn,
        rng.permutation(shares / shares.sum()),
        rng.uniform(0.5, 1.5, GROUPS).astype(np.float32),
        (directions @ turn).astype(np.float32),
    )
