"""Images that are away for a while: not a fact about them, and no reason to write empty maps."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field

from alps.engine.base.atomic import remove
from alps.engine.base.errors import SourceAwayError, SourceError
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan, PlannedTile, check_size
from alps.engine.run_folder.tables import read_table

MOST_AWAY = 10  # sources one after the other, which were there when the run was planned
MOST_TRIED = 3  # failed windows of one source, to see whether it can be read again


@dataclass
class Absences:
    """Stops a run whose images are all going away: a disk that is not mounted any more, say."""

    root: str | None = None  # the archive's folder, where it has one
    _sources: set[str] = field(default_factory=set)

    def note(self, source: str, error: SourceError | None) -> None:
        """Take note of how reading a source went, in the order of the plan.

        Raises SourceAwayError where too many are away, or the archive's folder is.
        """
        if not isinstance(error, SourceAwayError):
            self._sources.clear()
            return
        self._sources.add(source)
        is_gone = self.root is not None and not os.path.isdir(self.root)
        if is_gone or len(self._sources) >= MOST_AWAY:
            what = f"{self.root} is away" if is_gone else f"{len(self._sources)} images are away"
            raise SourceAwayError(
                f"{what} that were there when this run was planned; the last: {error} Bring them "
                "back (is a disk mounted?) and run the same command again: it goes on"
            ) from error


def readable_again(
    folder: RunFolder, reading: Reading | None, shards: Collection[int], retry: bool = False
) -> set[int]:
    """Tiles of segmented shards that could not be read, of sources that can be read now.

    retry: all that failed, whether or not they can be.
    """
    failed: dict[str, list[PlannedTile]] = {}
    plan = Plan.of(folder)
    for shard in shards:
        rows = read_table(folder.shard_tiles(shard), ["tile_id", "status"])
        statuses = rows.column("status").to_pylist()
        if "failed" not in statuses:
            continue
        for planned, status in zip(plan.tiles_of(shard), statuses, strict=True):
            if status == "failed" and not planned.reason:
                failed.setdefault(planned.path, []).append(planned)
    return {
        tile.tile_id
        for tiles in failed.values()
        if retry or any(can_be_read(tile, reading) for tile in _some(tiles))
        for tile in tiles
    }


def forget_label_maps(folder: RunFolder, tiles: Collection[int]) -> None:
    """Remove the label maps of sources that have a hole where one of ``tiles`` is."""
    if not tiles:
        return
    plan = Plan.of(folder)
    for shard in {plan.shard_of(tile) for tile in tiles}:
        for planned in plan.tiles_of(shard):
            if planned.tile_id in tiles:
                remove(folder.label(planned.label))


def can_be_read(planned: PlannedTile, reading: Reading | None) -> bool:
    """Whether a window can be read now."""
    try:
        with RasterReader(planned.path, reading) as reader:
            check_size(reader, planned)
            reader.read(planned.window)
    except SourceError:
        return False
    return True


def shards_of(folder: RunFolder, share: tuple[int, int]) -> range:
    """All shards of a plan that are one machine's."""
    return range(share[0], Plan.of(folder).shards, share[1])


def _some(tiles: list[PlannedTile]) -> list[PlannedTile]:
    count = min(MOST_TRIED, len(tiles))
    return [tiles[i * (len(tiles) - 1) // max(count - 1, 1)] for i in range(count)]
