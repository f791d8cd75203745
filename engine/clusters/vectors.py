"""The vectors of a run's regions, written group by group: each region's own, and what lies around.

A region alone says little: some pixels of roof, of road, of shade. So its vector takes up those of
the regions beside it, the more the longer their border and the less colour differs across it. One
that differs from all around it, a tree in a yard, is a thing of its own and takes up little.
Tables are read row group by row group; regions that touch lie in one row group of a file or
in two that follow each other, so memory is a few of them, whatever a scene's size.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
AT_ONCE = 1 << 14  # regions that are described at once


@dataclass(frozen=True)
class Touching:
    """Regions that touch, by their rows in the group's file, and how much they have in common."""

    first: np.ndarray  # (B,) int64
    second: np.ndarray  # (B,) int64
    length: np.ndarray  # (B,) float32 of the border
    weight: np.ndarray  # (B,) float32, of a border that cannot be seen its length, else less


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
        parts = mixed(folder, group, parts, _touching(folder, group), features.neighbours)
    first = next(parts)
    kind = _kind(first.shape[1])
    with open_table(folder.regions(group)) as file:
        header = {"descr": kind.descr, "fortran_order": False, "shape": (file.metadata.num_rows,)}
    with whole(path) as part, open(part, "wb") as out:
        npy.write_array_header_1_0(out, header)
        for vectors, area in zip(chain([first], parts), _areas(folder, group), strict=True):
            for start in range(0, len(vectors), AT_ONCE):
                some = np.s_[start : start + AT_ONCE]
                rows = np.empty(len(area[some]), kind)
                rows["vector"], rows["area"] = features.scaled(vectors[some]), area[some]
                rows.tofile(out)
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
    """What regions by themselves are, (n, D) float32, row group by row group."""
    with open_table(folder.regions(group)) as file:
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, list(REGION_COLUMNS))
            # In parts, so that of what is made in between little is there; one also of no rows,
            # for the width.
            parts = (rows[start : start + AT_ONCE] for start in range(0, len(rows) or 1, AT_ONCE))
            yield np.concatenate(
                [features.transform(reader.columns(part, group)) for part in parts]
            )


def _touching(folder: RunFolder, group: int) -> Iterator[Touching]:
    """The borders of a group, row group by row group."""
    rows = rows_by_source(folder.regions(group))
    with open_table(folder.borders(group)) as file, open_table(folder.regions(group)) as regions:
        if file.num_row_groups != regions.num_row_groups:
            raise folder.damaged(folder.regions(group), "its borders were written otherwise")
        for number in range(file.num_row_groups):
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
            yield Touching(start + region, start + other, length, weight)


@dataclass
class _Mixing:
    """Row groups whose neighbours are being added up."""

    vectors: np.ndarray  # (n, D) float32
    sums: np.ndarray  # (n, D) float32
    total: np.ndarray  # (n,) float32 of weights
    length: np.ndarray  # (n,) float32 of borders

    @classmethod
    def of(cls, vectors: np.ndarray) -> "_Mixing":
        total, length = np.zeros((2, len(vectors)), np.float32)
        return cls(vectors, np.zeros_like(vectors), total, length)

    def followed_by(self, vectors: np.ndarray) -> "_Mixing":
        new = _Mixing.of(vectors)
        return _Mixing(
            np.concatenate([self.vectors, new.vectors]),
            np.concatenate([self.sums, new.sums]),
            np.concatenate([self.total, new.total]),
            np.concatenate([self.length, new.length]),
        )

    def split(self, at: int) -> "tuple[_Mixing, _Mixing]":
        """The first ``at`` rows, and the others, which do not keep those in memory."""
        columns = self.vectors, self.sums, self.total, self.length
        rest = _Mixing(*(rows[at:].copy() for rows in columns))
        return _Mixing(*(rows[:at] for rows in columns)), rest

    def add(self, borders: Touching, first: int) -> None:
        """Count borders between these regions, whose rows begin at ``first``."""
        pairs = borders.first - first, borders.second - first
        add_neighbours(self.vectors, pairs, borders.weight, self.sums, self.total)
        for rows in pairs:
            self.length += np.bincount(rows, borders.length, len(self.length)).astype(np.float32)

    def result(self, most: float) -> np.ndarray:
        """Up to ``most`` of the neighbours' mean and the rest of the own; a region without any
        keeps its own.
        """
        seen_through = self.total / np.maximum(self.length, 1)
        share = np.float32(most) * seen_through / (seen_through + np.float32(HALF))
        mixed = self.sums  # in place, since a row of a wide scene is large
        mixed /= np.maximum(self.total, np.finfo(np.float32).tiny)[:, None]
        mixed -= self.vectors
        mixed *= share[:, None]
        mixed += self.vectors
        return mixed


def mixed(
    folder: RunFolder,
    group: int,
    parts: Iterable[np.ndarray],
    touching: Iterable[Touching],
    most: float,
) -> Iterator[np.ndarray]:
    """Vectors that have taken up some of their neighbours' weighted mean, part by part.

    Args:
        folder: of the run, which errors speak of.
        group: likewise.
        parts: vectors (n, D) float32, row group by row group.
        touching: borders, row group by row group: each between regions of that row group and of
            the one before.
        most: share that a region takes up at most, 0 to 1.

    Raises RunFolderError where a border is between others.
    """
    waiting: _Mixing | None = None
    first = 0  # row of the first that waits
    for vectors, borders in zip(parts, touching, strict=True):
        known = 0 if waiting is None else len(waiting.vectors)
        both = _Mixing.of(vectors) if waiting is None else waiting.followed_by(vectors)
        for rows in (borders.first, borders.second):
            if len(rows) and not first <= rows.min() <= rows.max() < first + len(both.vectors):
                raise folder.damaged(folder.borders(group), "it is of other regions")
        both.add(borders, first)
        done, rest = both.split(known)
        has_done, waiting = waiting is not None, rest
        del vectors, both
        if has_done:
            yield done.result(most)
        del done
        first += known
    if waiting is not None:
        yield waiting.result(most)
