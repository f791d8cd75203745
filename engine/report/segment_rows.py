"""Finds the few segments that the page shows, reading segments/*.parquet one file at a time."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alps.engine.base.errors import RunFolderError
from alps.engine.report.shortlist import Shortlist, scatter

BATCH_ROWS = 65_536
# An archive's exemplars are looked for in at most this many files, spread evenly over all.
MOST_PARTS_SEARCHED = 200
SMALL_AREA = 256  # pixels; a smaller segment makes a poor picture and comes last
BOX = ("x", "y", "width", "height")
Select = Callable[[dict[str, np.ndarray]], np.ndarray]  # columns (n,) -> (n,) bool


@dataclass(frozen=True)
class SegmentRow:
    """One segment: its box in pixels of its tile's window, and its COCO run-length code."""

    tile_id: int
    segment_id: int
    x: int
    y: int
    width: int
    height: int
    area: int
    predicted_iou: float
    counts: bytes


@dataclass(frozen=True)
class Candidates:
    """Segments of one class, from different tiles, the first choice first."""

    clearest: list[SegmentRow]  # with the largest margin to the next class
    drawn: list[SegmentRow]  # by lot, a large segment more often


def segment_parts(run_folder: Path) -> list[Path]:
    """The files of finished shards, in order."""
    return sorted((run_folder / "segments").glob("part-*.parquet"))


def segments_of_tiles(parts: list[Path], tile_ids: Iterable[int]) -> dict[int, list[SegmentRow]]:
    """All segments of these tiles, by tile id. Files whose range of ids misses them stay shut."""
    wanted = np.array(sorted(set(tile_ids)), np.int64)
    found: dict[int, list[SegmentRow]] = {int(tile_id): [] for tile_id in wanted}
    for part in parts:
        with _errors_of(part), pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                if not _may_hold(file, group, wanted):
                    continue
                for row in _rows(file, group, lambda t: np.isin(t["tile_id"], wanted)):
                    found[row.tile_id].append(row)
    return found


def find_candidates(parts: list[Path], classes: Iterable[int], each: int) -> dict[int, Candidates]:
    """Segments that may stand for their class, up to ``each`` of either kind and class."""
    wanted = np.array(sorted(set(classes)), np.int64)
    clearest, drawn = Shortlist(each, spread="tile_id"), Shortlist(each, spread="tile_id")
    searched = _spread(parts, MOST_PARTS_SEARCHED)
    for number, part in enumerate(searched):
        with _errors_of(part), pq.ParquetFile(part) as file:
            names = ["tile_id", "segment_id", "area", "cluster", "margin"]
            names = [name for name in names if name in file.schema_arrow.names]
            position = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=names):
                columns = _columns(batch)
                columns["row"] = position + np.arange(batch.num_rows)
                columns["part"] = np.full(batch.num_rows, number)
                position += batch.num_rows
                mine = np.isin(columns["cluster"], wanted)
                columns = {name: values[mine] for name, values in columns.items()}
                clear, draw = _keys(columns)
                shared = {n: columns[n].astype(np.int64) for n in ("tile_id", "row", "part")}
                shared["group"] = columns["cluster"].astype(np.int64)
                shared["id"] = shared["part"] << 40 | shared["row"]
                clearest.add(shared | {"key": clear})
                drawn.add(shared | {"key": draw})
    places = {(row["part"], row["row"]) for row in (*clearest.rows(), *drawn.rows())}
    loaded = _load(searched, places)
    found = {int(class_id): Candidates([], []) for class_id in wanted}
    for row in clearest.rows():
        found[row["group"]].clearest.append(loaded[row["part"], row["row"]])
    for row in drawn.rows():
        found[row["group"]].drawn.append(loaded[row["part"], row["row"]])
    return found


def _keys(columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Sort keys, low first, for the clearest segments and for a draw of them."""
    area = columns["area"]
    margin = columns.get("margin", np.zeros(len(area)))
    margin = np.nan_to_num(margin.astype(np.float64), nan=-1e6, posinf=1e6, neginf=-1e6)
    # The lowest of -log(u) / area is a draw in which every pixel has the same chance.
    chance = 1 - scatter(columns["tile_id"], columns["segment_id"])
    return -margin + 1e9 * (area < SMALL_AREA), -np.log(chance) / np.maximum(area, 1)


def _load(parts: list[Path], places: set[tuple[int, int]]) -> dict[tuple[int, int], SegmentRow]:
    """Read the rows at these (number of the file, row in the file)."""
    loaded = {}
    for number in sorted({part for part, _ in places}):
        rows = np.array(sorted(row for part, row in places if part == number))
        with _errors_of(parts[number]), pq.ParquetFile(parts[number]) as file:
            start = 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                mine = rows[(rows >= start) & (rows < start + size)]
                if mine.size:
                    found = _rows(file, group, _numbered(mine - start))
                    for row, segment in zip(mine.tolist(), found, strict=True):
                        loaded[number, row] = segment
                start += size
    return loaded


def _rows(file: pq.ParquetFile, group: int, select: Select) -> Iterator[SegmentRow]:
    """The rows of a row group that ``select`` marks, given its columns and the row's number."""
    names = ["tile_id", "segment_id", *BOX, "area", "predicted_iou", "counts"]
    position = 0
    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=names):
        keys = {"tile_id": batch["tile_id"].to_numpy(zero_copy_only=False)}
        keys["row"] = position + np.arange(batch.num_rows)
        position += batch.num_rows
        for row in batch.take(pa.array(np.flatnonzero(select(keys)))).to_pylist():
            yield SegmentRow(**row)


def _numbered(rows: np.ndarray) -> Select:
    return lambda columns: np.isin(columns["row"], rows)


def _columns(batch: pa.RecordBatch) -> dict[str, np.ndarray]:
    columns = {name: batch[name].to_numpy(zero_copy_only=False) for name in batch.schema.names}
    columns.setdefault("cluster", np.full(batch.num_rows, -1))
    return columns


def _may_hold(file: pq.ParquetFile, group: int, wanted: np.ndarray) -> bool:
    column = file.schema_arrow.names.index("tile_id")
    statistics = file.metadata.row_group(group).column(column).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(((wanted >= statistics.min) & (wanted <= statistics.max)).any())


def _spread(parts: list[Path], most: int) -> list[Path]:
    if len(parts) <= most:
        return parts
    return [parts[i * (len(parts) - 1) // (most - 1)] for i in range(most)]


@contextmanager
def _errors_of(part: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, KeyError) as error:
        raise RunFolderError(
            f"{part} cannot be read: {error}. Delete it and run `alps label` again."
        ) from error
