"""Finds the few regions that stand for their classes, reading regions/*.parquet one at a time."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.errors import RunFolderError
from alps.engine.report.rows.shortlist import Shortlist, scatter
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import open_table, read_table

BATCH_ROWS = 16_384
# An archive's exemplars are looked for in at most this many files, spread evenly over all.
MOST_PARTS_SEARCHED = 200
SMALL_AREA = 64  # pixels; a smaller region makes a poor picture and comes last
PLACE = 192  # pixels: of what lies this near only one is a candidate
FIELDS = ("source_index", "x", "y", "width", "height", "area", "object")


@dataclass(frozen=True)
class RegionRow:
    """One region: its number in its source's raster, and its box in pixels of the source."""

    source_index: int
    number: int
    x: int
    y: int
    width: int
    height: int
    area: int
    object: int  # of its source, -1 none


@dataclass(frozen=True)
class Candidates:
    """Regions of one class, from different places, the first choice first."""

    clearest: list[RegionRow]  # with the largest margin to the next class
    drawn: list[RegionRow]  # by lot, a large region more often


@dataclass(frozen=True)
class RegionPart:
    """The regions of a group of sources, and their classes, row by row."""

    regions: Path
    classes: Path


def region_parts(folder: RunFolder) -> list[RegionPart]:
    """The groups that have classes, in order; none where regions were not kept."""
    parts = []
    for path in sorted((folder.root / "regions").glob("part-*.parquet")):
        number = path.stem.removeprefix("part-")
        if number.isdigit() and (classes := folder.region_classes(int(number))).exists():
            parts.append(RegionPart(path, classes))
    return parts


def find_candidates(
    parts: list[RegionPart], classes: Iterable[int], each: int
) -> dict[int, Candidates]:
    """Regions that may stand for their class, up to ``each`` of either kind and class.

    Memory is the classes of a group. Raises RunFolderError where a file is damaged.
    """
    wanted = np.array(sorted(set(classes)), np.int64)
    clearest, drawn = Shortlist(each, spread="place"), Shortlist(each, spread="place")
    for number, part in enumerate(_spread(parts, MOST_PARTS_SEARCHED)):
        for columns in _batches(part):
            mine = np.isin(columns["cluster"], wanted)
            columns = {name: values[mine] for name, values in columns.items()}
            clear, draw = _keys(columns)
            shared = {name: columns[name].astype(np.int64) for name in (*FIELDS, "number")}
            shared["group"] = columns["cluster"].astype(np.int64)
            shared["id"] = number << 40 | columns["row"]
            down, across = shared["y"] // PLACE, shared["x"] // PLACE
            shared["place"] = shared["source_index"] << 32 | down << 16 | across
            clearest.add(shared | {"key": clear})
            drawn.add(shared | {"key": draw})
    found = {int(class_id): Candidates([], []) for class_id in wanted}
    for row in clearest.rows():
        found[row["group"]].clearest.append(_region(row))
    for row in drawn.rows():
        found[row["group"]].drawn.append(_region(row))
    return found


def _region(row: dict[str, int]) -> RegionRow:
    return RegionRow(**{name: row[name] for name in (*FIELDS, "number")})


def _batches(part: RegionPart) -> Iterable[dict[str, np.ndarray]]:
    """Columns of regions with their classes, their row, and their number in their source."""
    table = read_table(part.classes, ["cluster", "margin"])
    cluster, margin = (table.column(name).to_numpy() for name in ("cluster", "margin"))
    with open_table(part.regions) as file:
        if file.metadata.num_rows != len(cluster):
            raise RunFolderError(
                f"{part.classes} is of other regions than {part.regions}; delete it and run: "
                "alps cluster OUT"
            )
        position, source, begins = 0, -1, 0
        for columns in _columns_of(file):
            count = len(columns["source_index"])
            rows = position + np.arange(count)
            index = columns["source_index"]
            new = np.diff(index, prepend=source) != 0
            start = np.maximum.accumulate(np.where(new, rows, begins))
            if count:
                source, begins = int(index[-1]), int(start[-1])
            here = slice(position, position + count)
            position += count
            yield columns | {
                "row": rows,
                "number": rows - start,
                "cluster": cluster[here],
                "margin": margin[here],
            }


def _columns_of(file: pq.ParquetFile) -> Iterable[dict[str, np.ndarray]]:
    for batch in file.iter_batches(BATCH_ROWS, columns=list(FIELDS)):
        table = pa.Table.from_batches([batch])
        yield {name: table[name].to_numpy() for name in FIELDS}


def _keys(columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sort keys, low first, for the clearest regions and for a draw of them."""
    area = columns["area"]
    margin = columns["margin"].astype(np.float64)
    margin = np.nan_to_num(margin, nan=-1e6, posinf=1e6, neginf=-1e6)
    # The lowest of -log(u) / area is a draw in which every pixel has the same chance.
    chance = 1 - scatter(columns["source_index"], columns["number"])
    return -margin + 1e9 * (area < SMALL_AREA), -np.log(chance) / np.maximum(area, 1)


def _spread(parts: list[RegionPart], most: int) -> list[RegionPart]:
    if len(parts) <= most:
        return parts
    return [parts[i * (len(parts) - 1) // (most - 1)] for i in range(most)]
