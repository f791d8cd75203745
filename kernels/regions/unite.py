"""Which regions hang together in one class: pairs that touch come part by part.

Bytes moved by ``unite``: B x 8 of pairs and R x (4 + 4) of parents and classes read; R x 4
written; by ``areas_up_to`` R x (4 + 4) and R x 4.
"""

from collections.abc import Iterable

import numpy as np

from alps.kernels.base.compiled import njit


def unite(classes: np.ndarray, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The lowest region of the patch of one class that each region lies in, (R,) int32.

    Args:
        classes: (R,) int32, -1 none; a region of none is by itself.
        pairs: regions (B,) and (B,) int32 that touch, part by part.
    """
    parent = np.arange(len(classes), dtype=np.int32)
    for a, b in pairs:
        _unite(parent, classes, a, b)
    _to_roots(parent)
    return parent


def areas_up_to(most: int, patch: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Pixels of each patch, or ``most`` where it has more: (R,) int32, at the patch's number.

    Args:
        most: below 2^31.
        patch: (R,) int32 of ``unite``.
        area: (R,) int32 pixels of each region.
    """
    return _areas(min(most, np.iinfo(np.int32).max), patch, area)


def reference_areas_up_to(most: int, patch: np.ndarray, area: np.ndarray) -> np.ndarray:
    """As ``areas_up_to``, in NumPy."""
    total = np.zeros(len(patch), np.int64)
    np.add.at(total, patch, area)
    return np.minimum(total, most).astype(np.int32)


def reference_unite(
    classes: np.ndarray, pairs: Iterable[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """As ``unite``: what is lowest is handed on until nothing changes."""
    lowest = np.arange(len(classes), dtype=np.int32)
    parts = [np.stack(part) for part in pairs]
    a, b = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), np.int32)
    alike = (classes[a] == classes[b]) & (classes[a] >= 0)
    a, b = a[alike], b[alike]
    before = None
    while before is None or (before != lowest).any():
        before = lowest.copy()
        np.minimum.at(lowest, a, before[b])
        np.minimum.at(lowest, b, before[a])
    return lowest


@njit(nogil=True, cache=True)
def _unite(parent: np.ndarray, classes: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Join regions a and b (B,) that touch and have one class; a root is its patch's lowest."""
    for i in range(a.size):
        if classes[a[i]] >= 0 and classes[a[i]] == classes[b[i]]:
            low, high = a[i], b[i]
            while parent[low] != low:
                parent[low] = parent[parent[low]]
                low = parent[low]
            while parent[high] != high:
                parent[high] = parent[parent[high]]
                high = parent[high]
            if low > high:
                low, high = high, low
            parent[high] = low


@njit(nogil=True, cache=True)
def _to_roots(parent: np.ndarray) -> None:
    for i in range(parent.size):
        parent[i] = parent[parent[i]]  # a parent comes before, and has its root by now


@njit(nogil=True, cache=True)
def _areas(most: int, patch: np.ndarray, area: np.ndarray) -> np.ndarray:
    found = np.zeros(patch.size, np.int32)
    for i in range(patch.size):
        root = patch[i]
        found[root] += min(area[i], most - found[root])  # so that no sum leaves 32 bits
    return found
