"""Makes the plan of a run: each source is opened once for its size, then cut into windows."""

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pyarrow as pa

from alps.engine.base.errors import SourceAwayError, SourceError, StoreError, printable
from alps.engine.base.failures import of_source
from alps.engine.base.progress import Progress
from alps.engine.images.archive import SourceFacts, Survey
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.images.sources import Source
from alps.engine.images.windows import Window, count_windows, plan_windows
from alps.engine.planning.index import IndexedSource, SourceIndex
from alps.engine.run_folder.plan import shard_tiles_for, write_plan
from alps.engine.run_folder.schemas import PLAN_SCHEMA
from alps.engine.run_folder.tables import BLOCK_ROWS
from alps.engine.settings import FilledSourceSettings

MOST_WINDOWS = 1_000_000  # of one source: their places are made in memory
# Over a network opening is waiting, and many wait at a time.
THREADS = 8
AHEAD = 4 * THREADS  # sources that are open, or wait for their turn to be noted
MOST_AWAY = 10  # sources one after the other whose store fails: a plan would lack them for good


@contextmanager
def opened_sources(
    sources: Iterable[Source], settings: FilledSourceSettings, survey: Survey, work: Path
) -> Iterator[SourceIndex]:
    """Open every source once, for its size; one that cannot be opened is kept with a reason.

    Args:
        sources: in any order; one that comes twice counts once.
        settings: how they are cut.
        survey: takes note of what they say, and knows how they are read.
        work: where the index of them is kept meanwhile; deleted afterwards.
    """
    with SourceIndex(work) as index:
        index.add(sources)
        look_at(index, settings, survey)
        survey.fit(index.alike())
        # Only now is it known which of them are GeoTIFF.
        index.name_labels()
        yield index


def look_at(index: SourceIndex, settings: FilledSourceSettings, survey: Survey) -> None:
    """Open every source of an index, and keep what that shows."""
    with Progress(len(index), "sources", "looking at sources") as progress:
        index.note(_opened(index, settings, survey, progress))


def make_plan(
    sources: Iterable[Source], settings: FilledSourceSettings, survey: Survey | None = None
) -> pa.Table:
    """The plan of a few sources, in memory; arguments as of ``opened_sources``."""
    survey = survey or Survey(Reading(settings))
    with (
        tempfile.TemporaryDirectory() as folder,
        opened_sources(sources, settings, survey, Path(folder, "sources")) as index,
    ):
        return pa.concat_tables([PLAN_SCHEMA.empty_table(), *plan_tables(index, settings)])


def write_plan_of(index: SourceIndex, settings: FilledSourceSettings, path: Path) -> None:
    """Write the plan of sources that were opened; memory does not grow with their number."""
    write_plan(path, plan_tables(index, settings), shard_tiles_for(index.tiles))


def plan_tables(
    index: SourceIndex, settings: FilledSourceSettings, tile_id: int = 0, source: int = 0
) -> Iterator[pa.Table]:
    """The rows of a plan with PLAN_SCHEMA, some thousands at a time.

    tile_id, source: the numbers of the first tile and source.
    """
    columns: dict[str, list] = {name: [] for name in PLAN_SCHEMA.names}
    for number, one in enumerate(index.all(), source):
        windows = [Window(0, 0, 0, 0)]
        if not one.reason:
            windows = plan_windows(one.width, one.height, settings.tile, settings.overlap)
        for window in windows:
            row = (
                tile_id, number, printable(one.source.name), _text_of(one.source.path),
                one.source.label_name, one.width, one.height, window.x, window.y, window.width,
                window.height, one.reason,
            )  # fmt: skip
            for name, value in zip(PLAN_SCHEMA.names, row, strict=True):
                columns[name].append(value)
            tile_id += 1
            if len(columns["tile_id"]) == BLOCK_ROWS:
                yield pa.table(columns, schema=PLAN_SCHEMA)
                columns = {name: [] for name in PLAN_SCHEMA.names}
    yield pa.table(columns, schema=PLAN_SCHEMA)


def check_windows(source: Source, size: tuple[int, int], settings: FilledSourceSettings) -> int:
    """How many windows a source of ``size`` (width, height) has.

    Raises SourceError for too many.
    """
    if (count := count_windows(*size, settings.tile, settings.overlap)) > MOST_WINDOWS:
        raise SourceError(
            f"{printable(source.path)} is {size[0]} x {size[1]} pixels, {count} windows; at most "
            f"{MOST_WINDOWS} are planned for one source: cut it in pieces, or give a larger --tile"
        )
    return count


def _opened(
    index: SourceIndex, settings: FilledSourceSettings, survey: Survey, progress: Progress
) -> Iterator[IndexedSource]:
    """Sources in the order of their names, opened by several threads ahead of that.

    Raises SourceAwayError where their store fails, for one after the other.
    """
    away: dict[str, SourceError] = {}  # by name, until their turn

    def look(source: Source) -> tuple[IndexedSource, SourceFacts | None]:
        path = _text_of(source.path)
        try:
            if path != str(_absolute(source)):
                raise SourceError(f"{path}: the file name is not UTF-8; rename it")
            with (
                of_source(printable(source.name), "opening"),
                RasterReader(source.path, survey.reading) as reader,
            ):
                tiles = check_windows(source, (reader.width, reader.height), settings)
                facts = survey.look(reader)
                placed = reader.is_georeferenced
                found = IndexedSource(
                    source, reader.width, reader.height, tiles, placed, "", facts.alike
                )
                return found, facts
        except SourceError as error:
            if isinstance(error.__cause__, StoreError):
                away[source.name] = error
            return IndexedSource(source, reason=str(error)), None

    sources = (one.source for one in index.all())
    with ThreadPoolExecutor(THREADS, thread_name_prefix="alps-open") as pool:
        try:
            waiting = deque(pool.submit(look, one) for one in islice(sources, AHEAD))
            in_a_row = 0
            while waiting:
                found, facts = waiting.popleft().result()
                error = away.pop(found.source.name, None)
                in_a_row = 0 if error is None else in_a_row + 1
                if in_a_row == MOST_AWAY:
                    raise SourceAwayError(
                        f"{in_a_row} images one after the other cannot be opened, and nothing is "
                        f"planned yet; the last: {error} Then give the same command again"
                    )
                if facts is not None:
                    survey.note(printable(found.source.name), facts)
                waiting.extend(pool.submit(look, one) for one in islice(sources, 1))
                progress.advance(1)
                yield found
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _absolute(source: Source) -> str | Path:
    # Absolute: the report reads tiles again, from another working directory perhaps.
    return source.path if isinstance(source.path, str) else source.path.absolute()


def _text_of(path: str | Path) -> str:
    opened = path if isinstance(path, str) else path.absolute()
    return str(opened).encode("utf-8", "backslashreplace").decode()
