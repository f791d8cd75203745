"""The vectors of a run's regions, written group by group: each region's own, and what lies around.

A region alone says little: some pixels of roof, of road, of shade. So its vector takes up those of
the regions beside it, the more the longer their border and the less colour differs across it.
Tables are read row group by row group; regions that touch lie in one row group of a file or
in two that follow each other, so memory is a few of them, whatever a scene's size.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.atomic import whole
from alps.engine.clusters.features import FeatureModel, lists
from alps.engine.clusters.region_reader import REGION_COLUMNS, RegionReader
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import note_table, open_table, read_table
from alps.kernels.regions import add_neighbours

FADES = 3.0  # L*a*b* units across a border at which a neighbour counts 1/e
COLUMN = "vector"


@dataclass(frozen=True)
class Touching:
    """Regions that touch, by their rows in the group's file, and how much they have in common."""

    first: np.ndarray  # (B,) int64
    second: np.ndarray  # (B,) int64
    weight: np.ndarray  # (B,) float32


def write_vectors(
    folder: RunFolder, group: int, features: FeatureModel, reader: RegionReader
) -> None:
    """Write the vector of each region of a group, float16, in the order of its rows.

    Raises RunFolderError where the group's tables do not belong together.
    """
    path = folder.region_vectors(group)
    path.parent.mkdir(exist_ok=True)
    parts = _own_vectors(folder, group, features, reader)
    if features.neighbours > 0:
        parts = mixed(folder, group, parts, _touching(folder, group), features.neighbours)
    first = next(parts)
    schema = pa.schema([(COLUMN, pa.list_(pa.float16(), first.shape[1]))])
    with whole(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for vectors in chain([first], parts):
            flat = features.scaled(vectors).astype(np.float16).ravel()
            column = pa.FixedSizeListArray.from_arrays(pa.array(flat), first.shape[1])
            writer.write_table(pa.table([column], schema=schema))
    note_table(path)


def read_vectors(file: pq.ParquetFile, row_group: int) -> np.ndarray:
    """A row group of what ``write_vectors`` wrote, (n, D) float32."""
    return lists(file.read_row_group(row_group), COLUMN).astype(np.float32)


def _own_vectors(
    folder: RunFolder, group: int, features: FeatureModel, reader: RegionReader
) -> Iterator[np.ndarray]:
    """What regions by themselves are, (n, D) float32, row group by row group."""
    with open_table(folder.regions(group)) as file:
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, list(REGION_COLUMNS))
            yield features.transform(reader.columns(rows))


def _touching(folder: RunFolder, group: int) -> Iterator[Touching]:
    """The borders of a group, row group by row group."""
    sources = read_table(folder.regions(group), ["source_index"]).column(0).to_numpy()
    with open_table(folder.borders(group)) as file, open_table(folder.regions(group)) as regions:
        if file.num_row_groups != regions.num_row_groups:
            raise folder.damaged(folder.regions(group), "its borders were written otherwise")
        for number in range(file.num_row_groups):
            names = ("source_index", "region", "other", "length", "contrast")
            table = file.read_row_group(number, list(names))
            source, region, other, length, contrast = (table[name].to_numpy() for name in names)
            start = np.searchsorted(sources, source)  # regions are numbered source by source
            weight = length * np.exp(contrast.astype(np.float64) / -FADES)
            yield Touching(start + region, start + other, weight.astype(np.float32))


@dataclass
class _Mixing:
    """Row groups whose neighbours are being added up."""

    vectors: np.ndarray  # (n, D) float32
    sums: np.ndarray  # (n, D) float32
    total: np.ndarray  # (n,) float32

    @classmethod
    def of(cls, vectors: np.ndarray) -> "_Mixing":
        return cls(vectors, np.zeros_like(vectors), np.zeros(len(vectors), np.float32))

    def followed_by(self, vectors: np.ndarray) -> "_Mixing":
        new = _Mixing.of(vectors)
        return _Mixing(
            np.concatenate([self.vectors, new.vectors]),
            np.concatenate([self.sums, new.sums]),
            np.concatenate([self.total, new.total]),
        )

    def split(self, at: int) -> "tuple[_Mixing, _Mixing]":
        return (
            _Mixing(self.vectors[:at], self.sums[:at], self.total[:at]),
            _Mixing(self.vectors[at:], self.sums[at:], self.total[at:]),
        )

    def result(self, share: float) -> np.ndarray:
        """``share`` of the neighbours' mean and the rest of the own; a region without stays."""
        mean = self.sums / np.maximum(self.total, np.finfo(np.float32).tiny)[:, None]
        mix = np.float32(1 - share) * self.vectors + np.float32(share) * mean
        return np.where(self.total[:, None] > 0, mix, self.vectors)


def mixed(
    folder: RunFolder,
    group: int,
    parts: Iterable[np.ndarray],
    touching: Iterable[Touching],
    share: float,
) -> Iterator[np.ndarray]:
    """Vectors that have taken up ``share`` of their neighbours' weighted mean, part by part.

    Args:
        folder: of the run, which errors speak of.
        group: likewise.
        parts: vectors (n, D) float32, row group by row group.
        touching: borders, row group by row group: each between regions of that row group and of
            the one before.
        share: 0 to 1.

    Raises RunFolderError where a border is between others.
    """
    waiting: _Mixing | None = None
    first = 0  # row of the first that waits
    for vectors, borders in zip(parts, touching, strict=True):
        known = 0 if waiting is None else len(waiting.vectors)
        both = _Mixing.of(vectors) if waiting is None else waiting.followed_by(vectors)
        pairs = borders.first - first, borders.second - first
        for rows in pairs:
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(both.vectors):
                raise folder.damaged(folder.borders(group), "it is of other regions")
        add_neighbours(both.vectors, pairs, borders.weight, both.sums, both.total)
        done, rest = both.split(known)
        if waiting is not None:
            yield done.result(share)
        waiting = rest
        first += known
    if waiting is not None:
        yield waiting.result(share)
