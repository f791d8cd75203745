"""Patches: what hangs together in one class. Those below the minimum mapping unit join the
neighbour most like them.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

from alps.engine.base.errors import SettingsError
from alps.engine.images.georeference import Georeference
from alps.kernels.regions import areas_up_to, unite

ALIKE = 8.0  # L*a*b* units across a border at which it counts 1/e
SINGLE_STEPS = 64  # rounds after which chains of small patches are followed to their end
NO_CLASS = -1


def pixels_of(text: str, place: Georeference, option: str = "--min-patch") -> int:
    """A minimum mapping unit in pixels: ``64``, or ``25m2`` where the source has a scale.

    option: where it was given.

    Raises:
        SettingsError: it is neither, or in m² while the source has no scale.
    """
    number, unit = parse_unit(text, option)
    if not unit:
        return math.ceil(number)
    area = place.pixel_area()
    if area is None:
        raise SettingsError(
            f"{option} {text}: the image has no scale in metres; give a number of pixels"
        )
    return max(math.ceil(number / area), 0)


def parse_unit(text: str, option: str = "--min-patch") -> tuple[float, str]:
    """``25m2`` -> (25.0, "m2"), ``64`` -> (64.0, ""). Raises SettingsError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(px|m2|m²)?\s*", text)
    if not found:
        raise SettingsError(
            f"{option} {text}: give a number of pixels, 64 say, or an area, 25m2 say"
        )
    return float(found[1]), "m2" if (found[2] or "").startswith("m") else ""


def join_small_patches(
    classes: np.ndarray,
    area: np.ndarray,
    borders: Callable[[], Iterable[pa.Table]],
    least: int,
) -> np.ndarray:
    """Classes in which every patch has at least ``least`` pixels.

    Round by round, a small patch takes the class of a larger one that it touches: of the one with
    the greatest sum of border length, less where colour differs across it; of equals the lowest.
    A patch with none, an island in nodata, loses its class.

    Args:
        classes: (R,) int32 of each region, -1 none.
        area: (R,) pixels.
        borders: gives the tables of BORDER_SCHEMA, as often as it is called.
        least: pixels.

    Returns (R,) int32.
    """
    classes = classes.astype(np.int32)
    for rounds in itertools.count():  # each leaves fewer patches than there were
        patch = patches_of_classes(classes, borders)
        size = areas_up_to(least, patch, area)
        small = (size[patch] < least) & (classes >= 0)
        if not small.any():
            break
        goes, to = _best_neighbours(patch, size, small, classes >= 0, borders())
        if not len(goes):
            classes[small] = NO_CLASS
            break
        while rounds >= SINGLE_STEPS and ((further := _looked_up(to, goes, to)) != to).any():
            to = further
        joining = np.flatnonzero(small)
        # A patch has the number of its lowest region.
        classes[joining] = classes[_looked_up(patch[joining], goes, to)]
    return classes


def _looked_up(patches: np.ndarray, goes: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Where patches (n,) end that are among ``goes``, ascending, and so join ``to``."""
    at = np.minimum(np.searchsorted(goes, patches), len(goes) - 1)
    return np.where(goes[at] == patches, to[at], patches)


def patches_of_classes(
    classes: np.ndarray, borders: Callable[[], Iterable[pa.Table]]
) -> np.ndarray:
    """The patch of each region, (R,) int32: the lowest number of its regions. Arguments as of
    ``join_small_patches``.
    """
    return unite(classes, (_ends(table) for table in borders()))


def _ends(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    return table.column("region").to_numpy(), table.column("other").to_numpy()


def _best_neighbours(
    patch: np.ndarray,
    size: np.ndarray,
    small: np.ndarray,
    classed: np.ndarray,
    borders: Iterable[pa.Table],
) -> tuple[np.ndarray, np.ndarray]:
    """Small patches, ascending, and the patch that each joins.

    Args:
        patch: (R,) of each region.
        size: (R,) int32 pixels of patches, as far as they count.
        small: (R,) bool regions of small patches.
        classed: (R,) bool regions that have a class.
        borders: of all regions.
    """
    own, other, weight = [], [], []
    for table in borders:
        a, b = _ends(table)
        length = table.column("length").to_numpy().astype(np.float64)
        contrast = table.column("contrast").to_numpy().astype(np.float64)
        strength = length * np.exp(-contrast / ALIKE)
        for here, there in ((a, b), (b, a)):
            p, q = patch[here], patch[there]
            larger = (size[q] > size[p]) | ((size[q] == size[p]) & (q < p))
            useful = small[here] & classed[there] & (p != q) & larger
            own.append(p[useful])
            other.append(q[useful])
            weight.append(strength[useful])
    if not own:
        return np.zeros(0, int), np.zeros(0, int)
    p, q, w = (np.concatenate(parts) for parts in (own, other, weight))
    order = np.lexsort((q, p))
    p, q, w = p[order], q[order], w[order]
    first = np.flatnonzero((np.diff(p, prepend=-1) != 0) | (np.diff(q, prepend=-1) != 0))
    if not len(first):
        return p, q
    total = np.add.reduceat(w, first)
    p, q = p[first], q[first]
    order = np.lexsort((q, -total, p))
    best = order[np.flatnonzero(np.diff(p[order], prepend=-1))]
    return p[best], q[best]
