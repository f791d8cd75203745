"""Finds SAM's masks of the tiles that the page shows, reading segments/*.parquet by row group."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alps.engine.run_folder.tables import open_table

BATCH_ROWS = 16_384
COLUMNS = ("tile_id", "mask", "area", "predicted_iou", "counts")


@dataclass(frozen=True)
class MaskRow:
    """One mask: its COCO run-length code, and what decides which mask lies on top."""

    tile_id: int
    area: int
    predicted_iou: float
    counts: bytes


def segment_parts(run_folder: Path) -> list[Path]:
    """The files of finished shards, in order; none where segments were not kept."""
    return sorted((run_folder / "segments").glob("part-*.parquet"))


def masks_of_tiles(parts: list[Path], tile_ids: Iterable[int]) -> dict[int, list[MaskRow]]:
    """The masks of these tiles, by tile id. Files whose range of ids misses them stay shut.

    What lies under no mask is a segment too, but not here.
    """
    wanted = np.array(sorted(set(tile_ids)), np.int64)
    found: dict[int, list[MaskRow]] = {int(tile_id): [] for tile_id in wanted}
    for part in parts:
        with open_table(part, COLUMNS) as file:
            for group in range(file.num_row_groups):
                if _may_hold(file, group, wanted):
                    for row in _rows(file, group, wanted):
                        found[row.tile_id].append(row)
    return found


def _rows(file: pq.ParquetFile, group: int, tile_ids: np.ndarray) -> Iterator[MaskRow]:
    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(COLUMNS)):
        own = pc.and_(
            pc.is_in(batch["tile_id"], pa.array(tile_ids)), pc.greater_equal(batch["mask"], 0)
        )
        for row in batch.filter(own).to_pylist():
            row.pop("mask")
            yield MaskRow(**row)


def _may_hold(file: pq.ParquetFile, group: int, wanted: np.ndarray) -> bool:
    column = file.schema_arrow.names.index("tile_id")
    statistics = file.metadata.row_group(group).column(column).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(((wanted >= statistics.min) & (wanted <= statistics.max)).any())
