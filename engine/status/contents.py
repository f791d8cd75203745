"""What lies in a run folder, counted by names of files: no table of it is read.

So it takes a second or two, and little memory, however large the archive is; and files may get
their names, or lose them, meanwhile.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alps.engine.run_folder import plan as plans
from alps.engine.run_folder.folder import RunFolder

MOST_READ = 64 << 20  # bytes of a journal that are looked at; of a longer one the end is
END_READ = 1 << 20
_NUMBERED = re.compile(r"([a-z]+)-(\d+)\.(?:parquet|npy)")
_PAINTED = re.compile(rb'\{"source_index": (\d+), "of": "([^"]*)", "reason": "(.?)')


@dataclass(frozen=True)
class PlanFacts:
    """What the plan says without being read."""

    tiles: int
    sources: int
    shard_tiles: int

    @property
    def shards(self) -> int:
        """Into how many it falls."""
        return -(-self.tiles // self.shard_tiles)

    def tiles_of(self, shards: np.ndarray) -> int:
        """Tiles of some shards, (N,) bool by their numbers."""
        count = int(shards.sum()) * self.shard_tiles
        if len(shards) == self.shards and self.shards and shards[-1]:
            count -= self.shards * self.shard_tiles - self.tiles
        return count


@dataclass(frozen=True)
class PaintedCount:
    """How many sources have their label map, or can have none."""

    sources: int
    refused: int  # of them, that have none
    is_exact: bool  # else told by the length of the journal


def plan_facts(folder: RunFolder) -> PlanFacts | None:
    """None where there is no plan yet. Raises OSError, pa.ArrowException for a damaged one."""
    try:
        with pq.ParquetFile(folder.plan, pre_buffer=False) as file:
            about = file.metadata
            last = 0
            if about.num_rows:
                ends = file.read_row_group(about.num_row_groups - 1, ["source_index"])
                last = int(ends.column(0)[-1].as_py()) + 1
            text = (about.metadata or {}).get(plans.SHARD_KEY, b"")
            size = int(text) if text.isdigit() and int(text) else plans.SHARD_TILES
            return PlanFacts(about.num_rows, last, size)
    except FileNotFoundError:
        return None


def count_groups(folder: RunFolder, plan: PlanFacts) -> int:
    """In how many shards sources begin; errors as of ``plan_facts``."""
    found, row, source, before = 0, 0, -1, -1
    with pq.ParquetFile(folder.plan, pre_buffer=False) as file:
        for number in range(file.metadata.num_row_groups):
            index = file.read_row_group(number, ["source_index"]).column(0).to_numpy()
            starts = row + np.flatnonzero(np.diff(index, prepend=source))
            shards = np.unique(starts // plan.shard_tiles)
            if len(shards):
                found += len(shards) - int(shards[0] == before)
                before = int(shards[-1])
            row, source = row + len(index), int(index[-1]) if len(index) else source
    return found


def numbered(folder: Path, kind: str, most: int) -> np.ndarray:
    """Which files ``kind``-NNNNN of a folder are there, (most,) bool by their numbers."""
    found = np.zeros(most, bool)
    for name in _names(folder):
        if (match := _NUMBERED.fullmatch(name)) and match[1] == kind and int(match[2]) < most:
            found[int(match[2])] = True
    return found


def count_painted(journal: Path) -> PaintedCount:
    """Told by the journal of label maps; of sources that were painted twice the last time counts.

    journal: ``RunFolder.painted``.
    """
    try:
        size = journal.stat().st_size
        with open(journal, "rb") as file:
            if size > MOST_READ:
                file.seek(-END_READ, os.SEEK_END)
                lines = file.read().split(b"\n")
                return PaintedCount(size * (len(lines) - 1) // END_READ, 0, False)
            last: dict[int, tuple[bytes, bool]] = {}
            of = b""
            for line in file:
                if line.endswith(b"\n") and (match := _PAINTED.match(line)):
                    of = match[2]
                    last[int(match[1])] = of, match[3] != b'"'
    except (OSError, ValueError):  # none yet; or cut short meanwhile
        return PaintedCount(0, 0, True)
    now = [refused for label, refused in last.values() if label == of]
    return PaintedCount(len(now), sum(now), True)


def failed_tiles(folder: RunFolder) -> dict[str, int] | None:
    """How many tiles failed for which reason, by tiles.parquet; None where there is none.

    Errors as of ``plan_facts``.
    """
    found: dict[str, int] = {}
    columns = ["status", "reason", "path"]
    try:
        with pq.ParquetFile(
            folder.tiles, pre_buffer=False, read_dictionary=["status", "reason"]
        ) as file:
            for number in range(file.metadata.num_row_groups):
                statuses = file.read_row_group(number, columns[:1]).column(0)
                if not pc.any(pc.equal(statuses.cast(pa.string()), "failed")).as_py():
                    continue
                rows = file.read_row_group(number, columns)
                rows = rows.filter(pc.equal(rows["status"].cast(pa.string()), "failed"))
                for row in rows.to_pylist():
                    reason = row["reason"].replace(row["path"], "a file")
                    found[reason] = found.get(reason, 0) + 1
    except FileNotFoundError:
        return None
    return found


def _names(folder: Path) -> Iterator[str]:
    """Of what lies in a folder; none where it is not there, or goes away meanwhile."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name
