"""Images that were replaced since a run was planned: said by name, and redone where that is asked.

journal/stamps.parquet has the size and the time of change of each, as they were then.
"""

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.images.sources import Source
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import read_table

NAMES_SAID = 5
STAMPS = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("changed_ns", pa.int64())])


def write_stamps(folder: RunFolder, stamps: pa.Table) -> None:
    """Keep what ``stamps_of`` returned."""
    with whole(_path(folder)) as part:
        pq.write_table(stamps, part, compression="zstd")


def stamps_of(sources: Sequence[Source]) -> pa.Table:
    """Sizes and times of images as they are now; those over the network and away have none."""
    rows = [(_absolute(source.path), *_stamp(source.path)) for source in sources]
    return _table(rows)


def changed_sources(folder: RunFolder) -> dict[str, str]:
    """Names of the run's sources that are not what they were when it was planned, by their paths.

    One that is away has not changed.
    """
    try:
        known = read_table(_path(folder)) if _path(folder).exists() else STAMPS.empty_table()
        if known.schema != STAMPS:
            raise folder.damaged(_path(folder), "its columns are others")
    except RunFolderError:
        print(
            f"{_path(folder)} is damaged: whether images changed since is not known; delete it",
            file=sys.stderr,
        )
        return {}
    before = dict(zip(known["path"].to_pylist(), _pairs(known), strict=True))
    plan = read_table(folder.plan, ["path", "source", "reason"])
    # In one thread: "first" is the first in the order of the plan.
    grouped = plan.group_by("path", use_threads=False)
    sources = grouped.aggregate([("source", "first"), ("reason", "first")])
    changed = {}
    for row in sources.to_pylist():
        now = _stamp(row["path"])
        was = before.get(row["path"], (0, 0))
        if not row["reason_first"] and any(was) and any(now) and now != was:
            changed[row["path"]] = row["source_first"]
    return changed


def say_changed(changed: dict[str, str]) -> None:
    """Warn of images that were replaced."""
    names = sorted(changed.values())
    more = f" and {len(names) - NAMES_SAID} more" if len(names) > NAMES_SAID else ""
    print(
        f"warning: {len(names)} images were changed since this run was planned "
        f"({', '.join(names[:NAMES_SAID])}{more}); what was made of them before is kept: "
        "--update makes it anew",
        file=sys.stderr,
    )


def tiles_of(folder: RunFolder, changed: Collection[str]) -> set[int]:
    """The tiles of sources, by their paths."""
    plan = read_table(folder.plan, ["tile_id", "path"])
    chosen = pc.is_in(plan["path"], pa.array(list(changed), pa.string()))
    return set(plan.filter(chosen)["tile_id"].to_pylist())


@dataclass(frozen=True)
class Update:
    """Sources that are made anew, with the stamps that they had before that began."""

    tiles: frozenset[int]
    stamps: dict[str, tuple[int, int]]

    def note(self, folder: RunFolder) -> None:
        """Note that it is done: last, so that no kill hides what was not."""
        if not self.stamps:
            return
        known = read_table(_path(folder))
        rows = [
            (path, *self.stamps.get(path, stamp))
            for path, stamp in zip(known["path"].to_pylist(), _pairs(known), strict=True)
        ]
        write_stamps(folder, _table(rows))


def to_update(folder: RunFolder, update: bool, share: tuple[int, int]) -> Update:
    """What of a run is made anew because its sources changed; where it is not, they are named.

    Raises SettingsError where only a share of it could be.
    """
    if update and share[1] > 1:
        raise SettingsError("--update goes without --shard: all of a run is updated at once")
    changed = changed_sources(folder)
    if changed and not update:
        say_changed(changed)
    if not update:
        changed = {}
    stamps = {path: _stamp(path) for path in changed}
    return Update(frozenset(tiles_of(folder, changed)), stamps)


def _path(folder: RunFolder) -> Path:
    return folder.journal / "stamps.parquet"


def _table(rows: Sequence[tuple[str, int, int]]) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(zip(STAMPS.names, row, strict=True)) for row in rows], schema=STAMPS
    )


def _pairs(stamps: pa.Table) -> list[tuple[int, int]]:
    return list(zip(stamps["bytes"].to_pylist(), stamps["changed_ns"].to_pylist(), strict=True))


def _absolute(path: str | Path) -> str:
    """As the plan has it; what is no UTF-8 is no source of it."""
    text = path if isinstance(path, str) else str(path.absolute())
    return text.encode("utf-8", "replace").decode()


def _stamp(path: str | Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # away, or over the network
        return 0, 0
    return status.st_size, status.st_mtime_ns
