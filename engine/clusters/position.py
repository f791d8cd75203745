"""What an embedding says about its place in the window, and not about what is there.

A ViT's embeddings carry their position; where a thing lies in a window is chance, and left alone
it decides the clusters (60 % of the variance with `tiny`). So the part that the place predicts,
averaged over the archive, is subtracted: a least-squares fit of the embedding on low frequencies
of a cosine basis over the window.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MOST_FREQUENCIES = 6  # an axis; beyond, hardly more is explained
ROWS_AT_ONCE = 512
SEGMENTS_PER_TERM = 40  # fewer segments get fewer frequencies, or the fit would eat the content


@dataclass(frozen=True)
class PositionEffect:
    """The mean embedding as a function of place."""

    coefficients: np.ndarray  # (F², C) float32, F frequencies an axis

    def remove(self, vectors: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Embeddings (N, C) at places (N, 2) in 0…1 -> (N, C) float32 without the effect."""
        frequencies = round(len(self.coefficients) ** 0.5)
        predicted = rows_times(cosine_basis(places, frequencies), self.coefficients)
        return vectors.astype(np.float32) - predicted


def rows_times(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """rows (N, A) @ matrix (A, B), float32, each row to the bit the same in whatever company.

    BLAS multiplies the last rows of an array by another routine than the others, and few rows by
    another than many; so it is only ever given as many at a time.
    """
    product = np.empty((len(rows), matrix.shape[1]), np.float32)
    block = np.zeros((ROWS_AT_ONCE, matrix.shape[0]), np.float32)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        block[: len(some)] = some
        product[start : start + len(some)] = (block @ matrix)[: len(some)]
    return product


def cosine_basis(places: np.ndarray, frequencies: int) -> np.ndarray:
    """cos(π i x) cos(π j y) for i, j < frequencies: (N, 2) -> (N, frequencies²) float32."""
    waves = np.cos(np.pi * places[:, :, None] * np.arange(frequencies))  # (N, 2, F)
    terms = waves[:, 0, :, None] * waves[:, 1, None, :]
    return terms.reshape(len(places), frequencies**2).astype(np.float32)


class PositionFit:
    """Sums of a fit over an archive, whose pieces come one after the other.

    Sums are kept for all frequencies; how many are used is decided when all segments were seen.
    """

    def __init__(self) -> None:
        self._total, self._weight = 0, 0.0
        self._gram: np.ndarray | float = 0.0
        self._moment: np.ndarray | float = 0.0
        self._square: np.ndarray | float = 0.0

    def add(
        self, vectors: np.ndarray, places: np.ndarray, weights: np.ndarray | None = None
    ) -> None:
        """Count embeddings (n, C) at places (n, 2) in 0…1, by weights (n,) or all alike."""
        basis = cosine_basis(places, MOST_FREQUENCIES).astype(np.float64)
        weights = np.ones(len(vectors)) if weights is None else weights.astype(np.float64)
        self._total += len(vectors)
        self._weight += float(weights.sum())
        vectors = vectors.astype(np.float64)
        weighted = vectors * weights[:, None]
        self._gram = self._gram + basis.T @ (basis * weights[:, None])
        self._moment = self._moment + basis.T @ weighted
        self._square = self._square + vectors.T @ weighted

    def covariance(self, effect: PositionEffect | None) -> np.ndarray:
        """Of the embeddings seen, without the effect, or as they are: (C, C) float64."""
        moment, square = np.asarray(self._moment), np.asarray(self._square)
        if effect is None:
            mean = moment[0] / self._weight  # the first term of the basis is 1
            return square / self._weight - np.outer(mean, mean)
        solution = effect.coefficients.astype(np.float64)
        used = terms(round(len(solution) ** 0.5))
        cross = moment[used].T @ solution
        gram = np.asarray(self._gram)[np.ix_(used, used)]
        return (square - cross - cross.T + solution.T @ gram @ solution) / self._weight

    def solve(self, total: int | None = None) -> PositionEffect:
        """The effect, as fine as ``total`` segments allow (None: as many as were counted).

        With few there is the mean alone.
        """
        total = self._total if total is None else total
        frequencies = int(np.clip(np.sqrt(total / SEGMENTS_PER_TERM), 1, MOST_FREQUENCIES))
        used = terms(frequencies)
        gram, moment = np.asarray(self._gram)[np.ix_(used, used)], np.asarray(self._moment)[used]
        # Segments may leave a term undetermined (all in one row, say): least norm decides.
        solution = np.linalg.lstsq(gram, moment, rcond=1e-9)[0]
        return PositionEffect(solution.astype(np.float32))


def terms(frequencies: int) -> np.ndarray:
    """Which of the terms of most frequencies are those of fewer, in their order."""
    terms = np.arange(MOST_FREQUENCIES**2).reshape(MOST_FREQUENCIES, MOST_FREQUENCIES)
    return terms[:frequencies, :frequencies].ravel()


def fit_position_effect(
    pieces: Iterable[tuple[np.ndarray, np.ndarray]], total: int | None = None
) -> PositionEffect:
    """Fit over an archive in one pass: embeddings (n, C) and places (n, 2), piece by piece."""
    fit = PositionFit()
    for vectors, places in pieces:
        fit.add(vectors, places)
    return fit.solve(total)
