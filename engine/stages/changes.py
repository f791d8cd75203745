"""Images that were replaced since a run was planned: said by name, and redone where that is asked.

journal/stamps.parquet has the size and the time of change of each, as they were then.
"""

import os
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import AT_ONCE, Plan
from alps.engine.run_folder.tables import BLOCK_ROWS, open_table

NAMES_SAID = 5
STAMPS = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("changed_ns", pa.int64())])


def write_stamps(folder: RunFolder, paths: Iterable[str | Path]) -> None:
    """Keep sizes and times of images as they are now, in the order of the plan.

    Those over the network and away have none.
    """
    _write(folder, ((_absolute(path), *_stamp(path)) for path in paths))


def add_stamps(folder: RunFolder, paths: Iterable[str | Path], anew: Collection[str]) -> None:
    """Keep those of images that came later too, after the others. anew: paths that had some."""
    before = (row for row in _stamps(folder) if row[0] not in anew)
    _write(folder, chain(before, ((_absolute(path), *_stamp(path)) for path in paths)))


def changed_sources(folder: RunFolder) -> dict[str, str]:
    """Names of the run's sources that are not what they were when it was planned, by their paths.

    One that is away has not changed.
    """
    changed = {}
    known = _stamps(folder)
    before: dict[str, tuple[int, int]] = {}  # of those that lie in another order
    last = ""
    for first in Plan.of(folder).firsts():
        # Of a sample each window is a source; what could not be opened has no stamp that counts.
        if first.reason or first.path == last:
            continue
        last = first.path
        while first.path not in before and (row := next(known, None)) is not None:
            before[row[0]] = row[1:]
        was, now = before.pop(first.path, (0, 0)), _stamp(first.path)
        if any(was) and any(now) and now != was:
            changed[first.path] = first.source
    return changed


def _stamps(folder: RunFolder) -> Iterator[tuple[str, int, int]]:
    """Paths, sizes and times that were kept; none where the file is damaged, which is said."""
    path = _path(folder)
    if not path.exists():
        return
    try:
        with open_table(path, STAMPS.names) as file:
            if file.schema_arrow != STAMPS:
                raise folder.damaged(path, "its columns are others")
            for number in range(file.num_row_groups):
                for batch in file.read_row_group(number).to_batches(max_chunksize=AT_ONCE):
                    yield from zip(*(batch[name].to_pylist() for name in STAMPS.names), strict=True)
    except RunFolderError:
        print(
            f"{path} is damaged: whether images changed since is not known; delete it",
            file=sys.stderr,
        )


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
    found: set[int] = set()
    wanted = pa.array(list(changed), pa.string())
    for block in Plan.of(folder).blocks(["tile_id", "path"]) if changed else ():
        found.update(block.filter(pc.is_in(block["path"], wanted))["tile_id"].to_pylist())
    return found


@dataclass(frozen=True)
class Update:
    """Sources that are made anew, with the stamps that they had before that began."""

    tiles: frozenset[int]
    stamps: dict[str, tuple[int, int]]

    def note(self, folder: RunFolder) -> None:
        """Note that it is done: last, so that no kill hides what was not."""
        if not self.stamps:
            return
        _write(folder, ((row[0], *self.stamps.get(row[0], row[1:])) for row in _stamps(folder)))


def to_update(folder: RunFolder, update: bool) -> Update:
    """What of a run is made anew because its sources changed; where it is not, they are named."""
    changed = changed_sources(folder)
    if changed and not update:
        say_changed(changed)
    if not update:
        changed = {}
    stamps = {path: _stamp(path) for path in changed}
    return Update(frozenset(tiles_of(folder, changed)), stamps)


def _path(folder: RunFolder) -> Path:
    return folder.journal / "stamps.parquet"


def _write(folder: RunFolder, rows: Iterable[tuple[str, int, int]]) -> None:
    rows = iter(rows)
    with whole(_path(folder)) as part, pq.ParquetWriter(part, STAMPS, compression="zstd") as writer:
        is_first = True
        while (some := list(islice(rows, BLOCK_ROWS))) or is_first:
            columns = zip(*some, strict=True) if some else ((), (), ())
            named = dict(zip(STAMPS.names, map(list, columns), strict=True))
            writer.write_table(pa.table(named, schema=STAMPS))
            is_first = False


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
