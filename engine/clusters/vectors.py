"""The vectors of a run's regions, written group by group: each region's own, and what lies around.

A region alone says little: some pixels of roof, of road, of shade. So its vector takes up those of
the regions beside it, the more the longer their border and the less colour differs across it. One
that differs from all around it, a tree in a yard, is a thing of its own and takes up little.
Regions that touch lie near each other in their file, and in one of its row groups or in two that
follow each other, so memory is a row group and a stretch of vectors, whatever a scene's size.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError
from alps.engine.clusters.features import FeatureModel
from alps.engine.clusters.region_reader import REGION_COLUMNS, RegionReader
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.sums import is_right
from alps.engine.run_folder.tables import note_table, open_table, rows_by_source
from alps.kernels.regions import add_neighbours

FADES = 4.0  # L*a*b* units across a border at which a neighbour counts 1/e
# Mean weight of a pixel of a region's borders at which it takes up half of the most: 1 where none
# can be seen, near 0 where it is clear on all sides and keeps to itself.
HALF = 0.1
AT_ONCE = 1 << 14  # regions that are described at once, and borders that are counted
NEVER = np.iinfo(np.int64).max  # a row after all others


@dataclass(frozen=True)
class Touching:
    """Regions that touch, by their rows in the group's file, and how much they have in common."""

    first: np.ndarray  # (B,) int64
    second: np.ndarray  # (B,) int64
    length: np.ndarray  # (B,) float32 of the border
    weight: np.ndarray  # (B,) float32, of a border that cannot be seen its length, else less
    end: int  # row at which the regions of the row group end

    @property
    def lowest(self) -> int:
        """The first row that a border lies at; where there is none, a row after all others."""
        return int(min(self.first.min(initial=NEVER), self.second.min(initial=NEVER)))

    @property
    def highest(self) -> int:
        """The last row that a border lies at, -1 where there is none."""
        return int(max(self.first.max(initial=-1), self.second.max(initial=-1)))

    def part(self, start: int, end: int) -> "Touching":
        """Some of them."""
        some = np.s_[start:end]
        return replace(
            self,
            first=self.first[some],
            second=self.second[some],
            length=self.length[some],
            weight=self.weight[some],
        )


def write_vectors(
    folder: RunFolder, group: int, features: FeatureModel, reader: RegionReader
) -> None:
    """Write the vector, float16, and the area of each region of a group, in the order of its rows.

    Raises RunFolderError where the group's tables do not belong together.
    """
    path = folder.region_vectors(group)
    path.parent.mkdir(exist_ok=True)
    parts = _own_vectors(folder, group, features, reader)
    if features.neighbours > 0:
        parts = mixed(parts, _touching(folder, group), features.neighbours)
    first = next(parts)
    kind = _kind(first.shape[1])
    with open_table(folder.regions(group)) as file:
        header = {"descr": kind.descr, "fortran_order": False, "shape": (file.metadata.num_rows,)}
    with whole(path) as part, open(part, "wb") as out:
        npy.write_array_header_1_0(out, header)
        areas, area = _areas(folder, group), np.zeros(0, np.int32)
        for vectors in chain([first], parts):
            while len(area) < len(vectors):
                area = np.concatenate([area, next(areas)])
            for start in range(0, len(vectors), AT_ONCE):
                some = np.s_[start : min(start + AT_ONCE, len(vectors))]
                rows = np.empty(len(vectors[some]), kind)
                rows["vector"], rows["area"] = features.scaled(vectors[some]), area[some]
                rows.tofile(out)
            area = area[len(vectors) :]
    note_table(path)


class VectorFile:
    """What ``write_vectors`` wrote, read in parts from any place.

    A plain array on the disk: fits ask for a few hundred rows here and there, for which a Parquet
    file would have to be decoded, or its row groups be so many that finding one takes longer.
    """

    def __init__(self, path: Path) -> None:
        """Raises RunFolderError where it is not there, or not as long as it says."""
        self._path = path
        try:
            with open(path, "rb") as file:
                if npy.read_magic(file) != (1, 0):
                    raise ValueError("it is of another version")
                shape, _, self._kind = npy.read_array_header_1_0(file)
                self._start = file.tell()
            (self.count,) = shape
            size = self._start + self.count * self._kind.itemsize
            self.width = self._kind["vector"].shape[0]  # values of a vector
            if self._kind != _kind(self.width) or path.stat().st_size != size:
                raise ValueError("it does not hold what it says")
        except (OSError, ValueError, LookupError) as error:
            raise _unreadable(path, error) from error

    def read(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows from ``first`` on: vectors (count, D) float32, and pixels (count,) float32."""
        offset = self._start + first * self._kind.itemsize
        try:
            rows = np.fromfile(self._path, self._kind, count, offset=offset)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        if len(rows) != count:
            raise _unreadable(self._path, "it ends early")
        return rows["vector"].astype(np.float32), rows["area"].astype(np.float32)


def vectors_of(folder: RunFolder, group: int, features: FeatureModel) -> VectorFile:
    """The vectors of a group's regions, which are written where they are not there."""
    path = folder.region_vectors(group)
    if not is_right(folder, path):
        write_vectors(folder, group, features, RegionReader(folder))
    return VectorFile(path)


def _kind(width: int) -> np.dtype:
    return np.dtype([("vector", "<f2", (width,)), ("area", "<i4")])


def _unreadable(path: Path, why: object) -> RunFolderError:
    return RunFolderError(f"cannot read {path}: {why}; make it anew with: alps cluster OUT")


def _areas(folder: RunFolder, group: int) -> Iterator[np.ndarray]:
    """Pixels of the regions of a group, (n,) int32, row group by row group."""
    with open_table(folder.regions(group)) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, ["area"]).column(0).to_numpy()


def _own_vectors(
    folder: RunFolder, group: int, features: FeatureModel, reader: RegionReader
) -> Iterator[np.ndarray]:
    """What regions by themselves are, (n, D) float32, part by part."""
    with open_table(folder.regions(group)) as file:
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, list(REGION_COLUMNS))
            # In parts, so that of what is made in between little is there; one also of no rows,
            # for the width.
            for start in range(0, len(rows) or 1, AT_ONCE):
                part = rows[start : start + AT_ONCE]
                yield features.transform(reader.columns(part, group))


def _touching(folder: RunFolder, group: int) -> Iterator[Touching]:
    """The borders of a group, row group by row group.

    Raises RunFolderError where they are between other regions.
    """
    rows = rows_by_source(folder.regions(group))
    with open_table(folder.borders(group)) as file, open_table(folder.regions(group)) as regions:
        if file.num_row_groups != regions.num_row_groups:
            raise folder.damaged(folder.regions(group), "its borders were written otherwise")
        before = begin = end = 0  # rows of the row group of regions before, and of this one
        for number in range(file.num_row_groups):
            before, begin, end = begin, end, end + regions.metadata.row_group(number).num_rows
            names = ("source_index", "region", "other", "length", "contrast")
            table = file.read_row_group(number, list(names))
            source, region, other, length, contrast = (table[name].to_numpy() for name in names)
            index, which = np.unique(source, return_inverse=True)
            if not rows.keys() >= set(index.tolist()):
                raise folder.damaged(folder.borders(group), "it is of other sources")
            # Regions are numbered source by source.
            start = np.array([rows[one].start for one in index.tolist()], np.int64)[which]
            weight = length * np.exp(contrast.astype(np.float64) / -FADES)
            length, weight = length.astype(np.float32), weight.astype(np.float32)
            found = Touching(start + region, start + other, length, weight, end)
            if found.highest >= end or found.lowest < before:
                raise folder.damaged(folder.borders(group), "it is of other regions")
            yield found


class _Mixing:
    """Regions whose neighbours are being added up, a stretch of rows that moves on."""

    def __init__(self, parts: Iterable[np.ndarray]) -> None:
        """``parts``: vectors (n, D) float32 of all regions, in order."""
        self._parts = iter(parts)
        first = next(self._parts, np.zeros((0, 0), np.float32))
        self._first = 0  # row of the first that is held
        self._vectors = np.zeros((0, first.shape[1]), np.float32)
        self._sums = self._vectors
        self._total = self._length = np.zeros(0, np.float32)  # of weights, of borders
        self._follow(first)

    def add(self, borders: Touching) -> None:
        """Count borders, between regions that are held or follow."""
        while self._first + len(self._vectors) <= borders.highest:
            self._follow(next(self._parts))
        pairs = borders.first - self._first, borders.second - self._first
        add_neighbours(self._vectors, pairs, borders.weight, self._sums, self._total)
        for rows in pairs:
            along = np.bincount(rows, borders.length, len(self._length))
            self._length += along.astype(np.float32)

    def before(self, row: int, most: float) -> np.ndarray:
        """The results of all that are held before ``row``, which are let go of."""
        done = min(max(row - self._first, 0), len(self._vectors))
        if not done:
            return self._sums[:0]
        columns = self._vectors, self._sums, self._total, self._length
        vectors, sums, total, length = (rows[:done] for rows in columns)
        found = _taken_up(vectors, sums, total, length, most)
        self._first += done
        # Copies, or what is done would stay in memory.
        self._vectors, self._sums, self._total, self._length = (
            rows[done:].copy() for rows in columns
        )
        return found

    def rest(self, most: float) -> Iterator[np.ndarray]:
        """The results of all that are left, part by part."""
        yield self.before(self._first + len(self._vectors), most)
        for part in self._parts:
            self._follow(part)
            yield self.before(self._first + len(part), most)

    def _follow(self, vectors: np.ndarray) -> None:
        none = np.zeros(len(vectors), np.float32)
        self._vectors = np.concatenate([self._vectors, vectors])
        self._sums = np.concatenate([self._sums, np.zeros_like(vectors)])
        self._total = np.concatenate([self._total, none])
        self._length = np.concatenate([self._length, none])


def _taken_up(
    vectors: np.ndarray, sums: np.ndarray, total: np.ndarray, length: np.ndarray, most: float
) -> np.ndarray:
    """Up to ``most`` of the neighbours' mean and the rest of the own; a region without any keeps
    its own. Written over ``sums``.
    """
    seen_through = total / np.maximum(length, 1)
    share = np.float32(most) * seen_through / (seen_through + np.float32(HALF))
    sums /= np.maximum(total, np.finfo(np.float32).tiny)[:, None]
    sums -= vectors
    sums *= share[:, None]
    sums += vectors
    return sums


def mixed(
    parts: Iterable[np.ndarray], touching: Iterable[Touching], most: float
) -> Iterator[np.ndarray]:
    """Vectors that have taken up some of their neighbours' weighted mean, in parts of any length.

    Args:
        parts: vectors (n, D) float32, in parts of any length.
        touching: borders, row group by row group: each between regions of that row group and of
            the one before.
        most: share that a region takes up at most, 0 to 1.

    Memory is the stretch of regions that borders reach over, and two row groups of borders.
    """
    mixing = _Mixing(parts)
    groups = iter(touching)
    borders = next(groups, None)
    while borders is not None:
        following = next(groups, None)
        # The row group after next has borders with regions of the next one alone.
        later = borders.end if following is None else min(borders.end, following.lowest)
        # The lowest row that each border or one after it lies at.
        ahead = np.append(np.minimum(borders.first, borders.second), later)
        ahead = np.minimum.accumulate(ahead[::-1])[::-1]
        for start in range(0, len(borders.first), AT_ONCE):
            some = borders.part(start, start + AT_ONCE)
            mixing.add(some)
            yield mixing.before(int(ahead[start + len(some.first)]), most)
        borders = following
    yield from mixing.rest(most)
