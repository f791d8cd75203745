"""Keeps a bounded, deterministic choice of rows out of a stream of any length."""

from typing import Any

import numpy as np

# splitmix64: https://prng.di.unimi.it/splitmix64.c names the constants.
STEP, MIX_A, MIX_B = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Shortlist:
    """Of every group of rows, the ``keep`` with the lowest keys; memory is groups × keep.

    Rows are named columns of equal length. Three have a meaning: ``group`` (n,) int64, ``key``
    (n,) float64, and ``id`` (n,) int64 or uint64, which decides between equal keys. With ``spread``
    a group holds at most one row of each value of that column: the one with the lowest key.
    """

    def __init__(self, keep: int, spread: str | None = None) -> None:
        self.keep = keep
        self.spread = spread
        self._columns: dict[str, np.ndarray] = {}

    def add(self, columns: dict[str, np.ndarray]) -> None:
        """Take more rows into consideration."""
        if not len(columns["group"]):
            return
        if self._columns:
            columns = {
                name: np.concatenate([self._columns[name], values])
                for name, values in columns.items()
            }
        if self.spread:
            by = (columns["id"], columns["key"], columns[self.spread], columns["group"])
            order = np.lexsort(by)
            pairs = np.stack([columns["group"][order], columns[self.spread][order]])
            first = np.ones(len(order), bool)
            first[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
            columns = {name: values[order[first]] for name, values in columns.items()}
        order = np.lexsort((columns["id"], columns["key"], columns["group"]))
        order = order[_rank(columns["group"][order]) < self.keep]
        self._columns = {name: values[order] for name, values in columns.items()}

    def rows(self) -> list[dict[str, Any]]:
        """The rows kept, by group, then by key; each an int or a float, as its column is."""
        names = list(self._columns)
        values = zip(*(self._columns[name].tolist() for name in names), strict=True)
        return [dict(zip(names, row, strict=True)) for row in values]


def scatter(*ids: np.ndarray) -> np.ndarray:
    """Map integer ids (n,) to numbers in [0, 1), float64, that look random and never change."""
    mixed = np.zeros(ids[0].shape, np.uint64)
    with np.errstate(over="ignore"):
        for part in ids:
            mixed = (mixed ^ part.astype(np.uint64)) + np.uint64(STEP)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(MIX_A)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(MIX_B)
            mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def _rank(groups: np.ndarray) -> np.ndarray:
    """Position of each row within its group, for groups (n,) that stand together."""
    starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
