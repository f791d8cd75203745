"""Patches: what hangs together in one class. Those below the minimum mapping unit join the
neighbour most like them.
"""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from alps.engine.base.errors import SettingsError
from alps.engine.images.georeference import Georeference
from alps.kernels.regions import areas_up_to, unite

ALIKE = 8.0  # L*a*b* units across a border at which it counts 1/e
SINGLE_STEPS = 64  # rounds after which chains of small patches are followed to their end
NO_CLASS = -1
AT_ONCE = 1 << 18  # regions that are looked at at once


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

    Returns (R,) int32: ``classes``, changed in place where they are of that type. Memory is 9 bytes
    a region besides, and what small patches of a few tables have around them.
    """
    classes = np.asarray(classes, np.int32)
    for rounds in itertools.count():  # each leaves fewer patches than there were
        lowest: list[int] = []  # region of each table
        patch = unite(classes, (_ends(table) for table in _noting(borders(), lowest)))
        size = areas_up_to(least, patch, area)
        small = np.empty(len(classes), bool)
        for some in _slices(len(classes)):
            small[some] = (size[patch[some]] < least) & (classes[some] >= 0)
        if not small.any():
            break
        around = _Around(classes, patch, size, small)
        # Regions from which on the tables that follow speak.
        ahead = np.minimum.accumulate([*lowest[1:], len(classes)][::-1])[::-1]
        none = np.zeros(0, np.int64)
        best = [(none, none)]
        best += [around.best(table, int(low)) for table, low in zip(borders(), ahead, strict=False)]
        goes, to = (np.concatenate(column) for column in zip(*best, strict=True))
        if not len(goes):
            classes[small] = NO_CLASS
            break
        order = np.argsort(goes)
        goes, to = goes[order], to[order]
        while rounds >= SINGLE_STEPS and ((further := _looked_up(to, goes, to)) != to).any():
            to = further
        taken = classes[to]  # a patch has the number of its lowest region
        for some in _slices(len(classes)):
            joining = some.start + np.flatnonzero(small[some])
            at = np.minimum(np.searchsorted(goes, patch[joining]), len(goes) - 1)
            known = goes[at] == patch[joining]
            classes[joining[known]] = taken[at[known]]
    return classes


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + AT_ONCE) for start in range(0, count, AT_ONCE))


def _noting(tables: Iterable[pa.Table], lowest: list[int]) -> Iterator[pa.Table]:
    """The tables, whose lowest regions are appended to a list."""
    for table in tables:
        ends = _ends(table)
        lowest.append(int(min(one.min(initial=np.iinfo(np.int32).max) for one in ends)))
        yield table


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


class _Around:
    """What lies around small patches, gathered table by table until all of a patch is known."""

    def __init__(
        self, classes: np.ndarray, patch: np.ndarray, size: np.ndarray, small: np.ndarray
    ) -> None:
        """Arguments are of each region.

        classes: (R,) -1 none. patch: (R,) its number. size: (R,) int32 pixels of patches, as far as
        they count. small: (R,) bool regions of small patches.
        """
        self._classes, self._patch, self._size, self._small = classes, patch, size, small
        none = np.zeros(0, patch.dtype)
        self._waiting = none, none, np.zeros(0)
        self._seen = -1  # the last region that a table spoke of

    def best(self, table: pa.Table, ahead: int) -> tuple[np.ndarray, np.ndarray]:
        """Small patches that are known by now, and the patch that each joins.

        ahead: the lowest region that later tables speak of.
        """
        a, b = _ends(table)
        length = table.column("length").to_numpy().astype(np.float64)
        contrast = table.column("contrast").to_numpy().astype(np.float64)
        strength = length * np.exp(-contrast / ALIKE)
        parts = [self._waiting]
        for here, there in ((a, b), (b, a)):
            p, q = self._patch[here], self._patch[there]
            own, other = self._size[p], self._size[q]
            larger = (other > own) | ((other == own) & (q < p))
            useful = self._small[here] & (self._classes[there] >= 0) & (p != q) & larger
            parts.append((p[useful], q[useful], strength[useful]))
        p, q, w = (np.concatenate(column) for column in zip(*parts, strict=True))
        self._seen = max(self._seen, int(max(one.max(initial=-1) for one in (a, b))))
        # A patch of which more is to come has a region that later tables may speak of: it hangs
        # together by borders.
        later = np.s_[ahead : self._seen + 1]
        open_ones = np.isin(p, np.unique(self._patch[later][self._small[later]]))
        self._waiting = p[open_ones], q[open_ones], w[open_ones]
        return _most_alike(p[~open_ones], q[~open_ones], w[~open_ones])


def _most_alike(p: np.ndarray, q: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each of patches ``p`` once, ascending, and its ``q`` with the greatest sum of weights."""
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
