"""Is a run folder still what was written? Every file against its checksum, and what is missing.

Repair removes what is damaged, and what cannot be told apart from it; the command that made the
run makes it again, and nothing else. Tables of tiles and the plan are put together anew here.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from alps.engine.base.atomic import remove, whole
from alps.engine.base.digests import file_sha256
from alps.engine.base.errors import RunFolderError
from alps.engine.base.lines import MOST_LINE, read_lines
from alps.engine.base.progress import Progress
from alps.engine.labels.categories import BESIDE
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.inside import path_inside
from alps.engine.run_folder.locks import locked
from alps.engine.run_folder.painted import PaintedLine, last_lines, painted_lines
from alps.engine.run_folder.plan import Plan, write_plan
from alps.engine.run_folder.schemas import PLAN_SCHEMA
from alps.engine.run_folder.sums import FileSum, known_sums
from alps.engine.run_folder.tables import read_table
from alps.engine.stages.segment import collect_tiles

PLAN, ITEMS = "journal/plan.parquet", "journal/items.parquet"
THREADS = 8  # that hash; each waits for the disk or has a core
# What one pass drops when its label maps are there, and what is made when it is needed.
DROPPED = ("segments", "regions", "vectors", "clusters")
REMADE = ("vectors", "predicted")
SET_ASIDE = "journal/kept-"  # while a run grows
PAINTED = ("labels", "objects", "confidence", "probabilities")
ROOMS = (*DROPPED, "predicted", *PAINTED)


@dataclass(frozen=True)
class Finding:
    """A file that is not what was written, or not there."""

    name: str  # below OUT
    why: str
    number: int | None = None  # of its shard or group


@dataclass(frozen=True)
class Verification:
    """What became of the files of a run."""

    files: int  # that have a checksum
    bytes: int
    unknown: int  # files without one, of an older version or added by somebody
    findings: tuple[Finding, ...]
    open_shards: int  # not segmented yet
    lines: int  # of journals, damaged: what they stood for is done again

    @property
    def is_right(self) -> bool:
        """Whether all that was written is there and as it was."""
        return not self.findings and not self.lines


def verify_archive(folder: RunFolder) -> Verification:
    """Hold every file of a run against its checksum; nothing is written.

    Raises RunFolderError where the folder is none, or its run.json cannot be relied on.
    """
    run = folder.read_planned(None)
    known = list(_known(folder))
    keeps = run.get("also", {}).get("keep_segments", True)
    with (
        Progress(len(known), "files", "verifying") as progress,
        ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool,
    ):
        findings = []
        for found in pool.map(lambda one: _check(folder, one[0], one[1], keeps), known):
            if found is not None:
                findings.append(found)
            progress.advance(1)
    names = {one.file for one, _ in known}
    findings += _missing(folder, run, names)
    return Verification(
        len(known),
        sum(one.bytes for one, _ in known),
        sum(name not in names for name in _there(folder)),
        tuple(findings),
        _open_shards(folder),
        sum(_damaged_lines(path, kind) for path, kind in _journals(folder)),
    )


def repair(folder: RunFolder) -> tuple[Verification, list[str]]:
    """Remove what is damaged, and put together anew what other files tell.

    Returns what was found, and what can be made again by nobody.

    Raises RunFolderError as ``verify_archive``, and where another run is writing.
    """
    folder.read_planned(None)  # before a lock makes a folder of a mistyped path
    with locked(folder, room="journal"):
        found = verify_archive(folder)
        names = {finding.name for finding in found.findings}
        # First: what it is put together of may be removed below.
        lost = [PLAN] if PLAN in names and not _plan_again(folder) else []
        lost += [ITEMS] if ITEMS in names else []  # the catalogue may say other things by now
        for finding in found.findings:
            if finding.name not in (PLAN, ITEMS):
                _remove(folder, finding)
        for path, kind in _journals(folder):
            if _damaged_lines(path, kind):
                _drop_damaged_lines(path, kind)
        if "tiles.parquet" in names and not lost and not _open_shards(folder):
            collect_tiles(folder)
        _unmark(folder, names)
        return found, lost


def _known(folder: RunFolder) -> Iterator[tuple[FileSum, int | None]]:
    """All files that have a checksum, each once, with the number of their journal."""
    numbers = (path.stem.removeprefix("sums-") for path in folder.journal.glob("sums-*.jsonl"))
    for number in (None, *sorted(int(text) for text in numbers if text.isdigit())):
        for one in known_sums(folder, number).values():
            yield one, number
    for line in last_lines(folder.painted):
        for one in line.files:
            yield one, None


def _check(folder: RunFolder, one: FileSum, number: int | None, keeps: bool) -> Finding | None:
    room, _, name = one.file.partition("/")
    path = path_inside(folder.root, room, name) if name else folder.root / PurePosixPath(room).name
    try:
        size = path.stat().st_size
        if size != one.bytes:
            return Finding(one.file, f"is damaged: it has {size} bytes, not {one.bytes}", number)
        if file_sha256(path) != one.sha256:
            return Finding(
                one.file, "is damaged: its SHA-256 is not that of what was written", number
            )
    except FileNotFoundError:
        if room in REMADE or (room in DROPPED and not keeps) or one.file.startswith(SET_ASIDE):
            return None
        return Finding(one.file, "is missing", number)
    except OSError as error:
        return Finding(one.file, f"cannot be read: {error.strerror or error}", number)
    return None


def _missing(folder: RunFolder, run: dict[str, Any], spoken_of: set[str]) -> list[Finding]:
    """Files that must be there by the marks of finished stages, and that no journal speaks of."""
    try:
        plan = Plan.of(folder)
    except RunFolderError:
        return [] if PLAN in spoken_of else [Finding(PLAN, "is missing or cannot be read")]
    wanted: list[tuple[Path, int | None]] = []
    if folder.tiles.exists():
        wanted += [(folder.shard_tiles(shard), shard) for shard in range(plan.shards)]
    if "cluster" in run["done"]:
        wanted.append((folder.clusters, None))
    if "paint" in run["done"]:
        wanted.append((folder.classes, None))
    found = [
        Finding(path.relative_to(folder.root).as_posix(), "is missing", number)
        for path, number in wanted
        if not path.exists()
    ]
    if "paint" in run["done"]:
        lines = painted_lines(folder.painted)
        painted = {line.source_index for line in lines if line is not None}
        found += [
            Finding(f"labels/{first.label}", "is in no journal")
            for first in plan.firsts()
            if first.source_index not in painted and not first.reason
        ]
    return [one for one in found if one.name not in spoken_of]


def _open_shards(folder: RunFolder) -> int:
    try:
        count = Plan.of(folder).shards
    except RunFolderError:
        return 0
    return sum(not folder.shard_tiles(shard).exists() for shard in range(count))


def _there(folder: RunFolder) -> Iterator[str]:
    """Names of all files of results; parts that a killed run left have dots.

    Not of what other programs write into too.
    """
    for room in ROOMS:
        for top, _, files in os.walk(folder.root / room):
            inside = Path(top).relative_to(folder.root)
            ours = (name for name in files if name[0] != "." and not name.endswith(BESIDE))
            yield from ((inside / name).as_posix() for name in ours)
    for path in (folder.tiles, folder.clusters, folder.classes, folder.plan):
        if path.exists():
            yield path.relative_to(folder.root).as_posix()
    yield from (f"journal/{path.name}" for path in folder.journal.glob("tiles-*.parquet"))


def _journals(folder: RunFolder) -> list[tuple[Path, type]]:
    sums = sorted(folder.journal.glob("sums*.jsonl"))
    return [(folder.painted, PaintedLine), *((path, FileSum) for path in sums)]


def _damaged_lines(path: Path, kind: type) -> int:
    return sum(line is None for line in read_lines(path, kind))


def _drop_damaged_lines(path: Path, kind: type) -> None:
    with open(path, "rb") as file, whole(path) as part, open(part, "wb") as kept:
        for line in read_lines(path, kind):
            text = file.readline(MOST_LINE)
            if line is not None:
                kept.write(text)


def _remove(folder: RunFolder, finding: Finding) -> None:
    """Delete a file, and those that are committed together with it."""
    room, _, name = finding.name.partition("/")
    gone = [path_inside(folder.root, room, name) if name else folder.root / room]
    number = finding.number
    if number is not None and (room in ("segments", "predicted") or name.startswith("tiles-")):
        gone += [folder.segments(number), folder.predicted(number), folder.shard_tiles(number)]
    if number is not None and room == "regions":
        gone += [folder.regions(number), folder.borders(number), folder.objects(number)]
    for path in gone:
        remove(path)


def _plan_again(folder: RunFolder) -> bool:
    """Put the plan together from what became of its tiles; whether it is the one there was."""
    known = known_sums(folder, None).get(PLAN)
    first = folder.shard_tiles(0)
    if known is None or not first.exists():
        return False
    try:
        full = folder.shard_tiles(1).exists()
        write_plan(folder.plan, _planned_rows(folder), len(read_table(first)) if full else None)
    except RunFolderError:
        return False
    if file_sha256(folder.plan) == known.sha256:
        return True
    remove(folder.plan)
    return False


def _planned_rows(folder: RunFolder) -> Iterator[pa.Table]:
    """What became of the tiles of each shard, as it was planned."""
    shard = 0
    while (path := folder.shard_tiles(shard)).exists():
        tiles = read_table(path)
        unread = pc.equal(tiles.column("source_width"), 0)
        reason = pc.if_else(unread, tiles.column("reason"), "")
        at = tiles.schema.get_field_index("reason")
        yield tiles.set_column(at, "reason", reason).select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA)
        shard += 1


def _unmark(folder: RunFolder, names: Iterable[str]) -> None:
    """Take back the marks of stages whose results were removed."""
    done = dict(folder.read_planned(None)["done"])
    rooms = {name.partition("/")[0] for name in names}
    if rooms & {"clusters", "clusters.npz"}:
        done.pop("cluster", None)
    if rooms & {"clusters", "clusters.npz", *PAINTED, "classes.json"}:
        done.pop("paint", None)
    folder.update_run(done=done)
