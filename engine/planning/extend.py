"""A plan that grows: images that came after it was made, and those that can be opened by now.

They get numbers after all others, so that what was made before stays what it is. Only the last
shard, where it was not full, is taken up again: what is known of its tiles is set aside for that.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa

from alps.engine.base.atomic import move, remove, whole
from alps.engine.base.errors import SourceError, printable
from alps.engine.images.archive import Survey
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading, product_of
from alps.engine.images.sources import Source
from alps.engine.planning.index import SourceIndex, Texts
from alps.engine.planning.make import check_windows, look_at, plan_tables
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import MOVED, Plan, PlannedTile, plan_metadata
from alps.engine.run_folder.schemas import PLAN_SCHEMA
from alps.engine.run_folder.sums import forget_sums
from alps.engine.run_folder.tables import note_table, read_table, write_blocks, write_table
from alps.engine.settings import FilledSourceSettings

NAMES_SAID = 5


@dataclass(frozen=True)
class Wanted:
    """What of SRC a plan that is there takes up."""

    new: bool = False  # images that came after it
    unopened: bool = False  # those that could not be opened then, and can be now

    @property
    def anything(self) -> bool:
        """Whether it may grow."""
        return self.new or self.unopened


@dataclass
class _Compared:
    """What is at SRC, against a plan."""

    planned: Texts  # names of its sources
    new: int = 0
    first_new: str = ""
    back: dict[str, int] = field(default_factory=dict)  # name -> tile of what can be opened now
    moved: list[int] = field(default_factory=list)  # tiles of what was taken up so before
    gone: int = 0  # sources that are no more at SRC
    names_gone: list[str] = field(default_factory=list)

    def takes(self, source: Source, wanted: Wanted) -> bool:
        """Whether a source at SRC is taken up."""
        name = printable(source.name)
        return (wanted.unopened and name in self.back) or (wanted.new and name not in self.planned)


def say_what_is_new(
    folder: RunFolder,
    sources: Iterable[Source],
    settings: FilledSourceSettings,
    reading: Reading,
) -> None:
    """Say which of the sources at SRC are not in the plan, and which of those that could not be
    opened when it was made can be now.
    """
    with SourceIndex(folder.journal / ".sources") as found:
        found.add(sources)
        plan = Plan.of(folder)
        known = _compare(found, plan, settings, reading)
    settle_moved(folder, plan, known.moved)
    _say_left(known, Wanted())


def _say_left(known: "_Compared", wanted: Wanted) -> None:
    """What is not taken up, and how it would be."""
    if known.back and not wanted.unopened:
        print(
            f"{len(known.back)} images that could not be opened when this run was planned can be "
            f"now ({next(iter(known.back))}, say), and are not labelled; --retry-failed labels "
            "them",
            file=sys.stderr,
        )
    if known.new and not wanted.new:
        print(
            f"{known.new} images at SRC came after this run was planned and are not labelled "
            f"({known.first_new}, say); --update labels them",
            file=sys.stderr,
        )


def extend_plan(
    folder: RunFolder,
    sources: Iterable[Source],
    settings: FilledSourceSettings,
    survey: Survey,
    wanted: Wanted,
    before: Callable[[SourceIndex, frozenset[str]], None],
) -> None:
    """Take up what is wanted; whoever is killed in here has the plan of before, or the new one.

    Args:
        folder: of a run, held by this process as a whole.
        sources: at SRC.
        settings: how they are cut.
        survey: takes note of what is taken up; its reading knows the stretches of the run.
        wanted: what is taken up.
        before: called before the plan changes, with what is taken up, and the paths of those of
            it that the plan knows; not where there is nothing.
    """
    with SourceIndex(folder.journal / ".sources") as found:
        found.add(sources)
        plan = Plan.of(folder)
        known = _compare(found, plan, settings, survey.reading)
        settle_moved(folder, plan, known.moved)
        _say_left(known, wanted)
        if wanted.new and known.gone:
            _say_gone(known)
        with SourceIndex(folder.journal / ".sources-new") as new:
            new.add(one.source for one in found.all() if known.takes(one.source, wanted))
            if not len(new):
                return
            look_at(new, settings, survey)
            _fit(new, survey, plan)
            new.name_labels(_labels(plan, known))
            moved = _moved(new, plan, known)
            before(new, frozenset(plan.tile(tile).path for tile in moved))
            _say_taken(new, moved)
            _write(folder, plan, plan_tables(new, settings, plan.tiles, plan.sources_count), moved)
            settle_moved(folder, Plan.of(folder), sorted(moved))


def settle_moved(folder: RunFolder, plan: Plan, tiles: Iterable[int]) -> None:
    """Rows of tiles whose sources were taken up anew say so, and are failures no more."""
    for shard, some in groupby(tiles, plan.shard_of):
        reasons = {tile: plan.tile(tile).reason for tile in some}
        for path in (folder.kept_tiles(shard), folder.shard_tiles(shard)):
            if not path.exists():
                continue
            rows = read_table(path)
            ids = rows.column("tile_id").to_pylist()
            old = list(
                zip(*(rows.column(n).to_pylist() for n in ("status", "reason")), strict=True)
            )
            new = [
                ("skipped", reasons[tile]) if tile in reasons else row
                for tile, row in zip(ids, old, strict=True)
            ]
            if new == old:
                continue
            for name, values in zip(("status", "reason"), zip(*new, strict=True), strict=True):
                at = rows.schema.get_field_index(name)
                rows = rows.set_column(at, rows.schema.field(at), pa.array(values, pa.string()))
            write_table(rows, path)


def _compare(
    found: SourceIndex, plan: Plan, settings: FilledSourceSettings, reading: Reading
) -> _Compared:
    known, there = _Compared(Texts(found, "planned")), Texts(found, "there")
    for name in found.names():
        there.add(printable(name))
    for first in plan.firsts():
        if first.is_moved:
            known.moved.append(first.tile_id)
            continue
        known.planned.add(first.source)
        if first.source not in there:
            known.gone += 1
            known.names_gone += [first.source] if known.gone <= NAMES_SAID else []
        elif first.reason and _opens(first, settings, reading):
            known.back[first.source] = first.tile_id
    for name in map(printable, found.names()):
        if name not in known.planned:
            known.new += 1
            known.first_new = known.first_new or name
    return known


def _opens(first: PlannedTile, settings: FilledSourceSettings, reading: Reading) -> bool:
    try:
        with RasterReader(first.path, reading) as reader:
            size = reader.width, reader.height
            check_windows(Source(first.path, first.source), size, settings)
    except SourceError:
        return False
    return True


def _fit(new: SourceIndex, survey: Survey, plan: Plan) -> None:
    """Fit stretches of products of which the run has nothing yet; others stay as they are."""
    stretches, settings = survey.reading.shared, survey.reading.settings
    alike = {name: paths for name, paths in new.alike().items() if name not in stretches}
    if alike and settings.stretch == "archive":  # what the run has is of that product
        alike = {}
    elif alike:
        products = {product_of(paths[0]) for paths in alike.values()}
        known = {product for one in plan.firsts() if (product := product_of(one.path)) in products}
        alike = {n: paths for n, paths in alike.items() if product_of(paths[0]) not in known}
    survey.fit(alike)


def _labels(plan: Plan, known: _Compared) -> Iterator[str]:
    """Names of label maps that others have."""
    for first in plan.firsts():
        if not first.is_moved and first.source not in known.back:
            yield first.label


def _moved(new: SourceIndex, plan: Plan, known: _Compared) -> dict[int, str]:
    """Tiles whose sources are taken up anew, with what is said of them from then on."""
    names = ((at, printable(one.source.name)) for at, one in enumerate(new.all()))
    return {
        known.back[name]: f"{MOVED}{plan.sources_count + at}"
        for at, name in names
        if name in known.back
    }


def _write(
    folder: RunFolder, plan: Plan, tables: Iterable[pa.Table], moved: dict[int, str]
) -> None:
    def rows() -> Iterator[pa.Table]:
        yield PLAN_SCHEMA.empty_table()
        for block in plan.blocks():
            yield _with_reasons(block, moved)
        yield from tables

    with whole(folder.plan) as part:
        write_blocks(rows(), part, plan_metadata(plan.shard_tiles))
        _set_aside(folder, plan)
        # A plan without a checksum is taken as it is: whoever is killed now has one or the other.
        forget_sums(folder, None, folder.plan.relative_to(folder.root).as_posix())
    note_table(folder.plan)


def _with_reasons(block: pa.Table, reasons: dict[int, str]) -> pa.Table:
    block = block.replace_schema_metadata(None)
    ids = block.column("tile_id").to_numpy()
    if not any(ids[0] <= tile <= ids[-1] for tile in reasons):
        return block
    old = block.column("reason").to_pylist()
    new = [reasons.get(tile, text) for tile, text in zip(ids.tolist(), old, strict=True)]
    at = block.schema.get_field_index("reason")
    return block.set_column(at, block.schema.field(at), pa.array(new, pa.string()))


def _set_aside(folder: RunFolder, plan: Plan) -> None:
    """Take up the last shard again, unless it is full, and the group that begins in it."""
    if plan.tiles % plan.shard_tiles == 0:
        return
    last = plan.shards - 1
    if folder.shard_tiles(last).exists():
        move(folder.shard_tiles(last), folder.kept_tiles(last))
    forget_group(folder, last)


def take_back(folder: RunFolder, plan: Plan) -> None:
    """What was set aside for a plan that never came to be counts as it did."""
    if not plan.tiles:
        return
    last = plan.shards - 1
    kept = folder.kept_tiles(last)
    if not kept.exists() or folder.shard_tiles(last).exists():
        return
    if read_table(kept, ["tile_id"]).num_rows == len(plan.ids_of(last)):
        move(kept, folder.shard_tiles(last))


def forget_group(folder: RunFolder, group: int) -> None:
    """Remove regions of a group and what was made of them, label maps aside."""
    for path in (
        folder.regions(group),
        folder.borders(group),
        folder.objects(group),
        folder.region_classes(group),
        folder.region_vectors(group),
    ):
        remove(path)


def _say_gone(known: _Compared) -> None:
    more = f" and {known.gone - NAMES_SAID} more" if known.gone > NAMES_SAID else ""
    print(
        f"{known.gone} images of this run are no more at SRC ({', '.join(known.names_gone)}"
        f"{more}); what was made of them is kept",
        file=sys.stderr,
    )


def _say_taken(new: SourceIndex, moved: dict[int, str]) -> None:
    if count := len(new) - len(moved):
        print(f"{count} new images are taken up", file=sys.stderr)
    if moved:
        print(
            f"{len(moved)} images that could not be opened when this run was planned are taken up",
            file=sys.stderr,
        )
