"""What a run would read, before it is begun: bands, valid pixels, stretch, place, windows."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from alps.engine.base.errors import SourceError, printable
from alps.engine.base.progress import Progress
from alps.engine.images.archive import Survey
from alps.engine.images.facts.description import HeaderFacts, PixelFacts
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.images.sources import Source
from alps.engine.images.windows import plan_windows
from alps.engine.planning.make import check_windows
from alps.engine.settings import FilledSettings, RunSettings
from alps.engine.stac.archive import Archive, open_archive
from alps.engine.stages.opening import LoadedModel, RunOptions, prepare_model

QUICK_SECONDS = 5.0  # a window that took longer is not timed again


@dataclass(frozen=True)
class SourceFacts:
    """One source: what its header says and a sample of its pixels shows, or why it is not read.

    pixels: None where it was not among those that are sampled.
    """

    name: str
    reason: str = ""
    header: HeaderFacts | None = None
    windows: int = 0
    pixels: PixelFacts | None = None

    @property
    def doubts(self) -> list[str]:
        """All that a person should know of it."""
        header = self.header.doubts if self.header else ()
        pixels = self.pixels.doubts if self.pixels else ()
        return [doubt.text for doubt in (*header, *pixels)]


@dataclass(frozen=True)
class Inspection:
    """What a run over an archive would read."""

    sources: tuple[SourceFacts, ...]
    kinds: tuple[str, ...]  # in words, how many sources are read in which way
    settings: FilledSettings
    seconds_per_window: float | None  # segmenting on this machine; None: not measured

    @property
    def windows(self) -> int:
        """Of all sources."""
        return sum(source.windows for source in self.sources)

    @property
    def seconds(self) -> float | None:
        """What segmenting all windows takes, one process on this machine."""
        return None if self.seconds_per_window is None else self.windows * self.seconds_per_window

    def plain(self) -> dict[str, Any]:
        """Values for JSON."""
        return {
            "sources": [asdict(source) for source in self.sources],
            "kinds": list(self.kinds),
            "windows": self.windows,
            "seconds_per_window": self.seconds_per_window,
            "seconds": self.seconds,
            "settings": self.settings.to_dict(),
        }


def inspect_archive(
    src: str | Path,
    settings: RunSettings | None = None,
    options: RunOptions | None = None,
    sample: int = 16,
    with_time: bool = True,
) -> Inspection:
    """Look at the images of ``src`` as `alps label` with these settings would.

    Args:
        src: the archive.
        settings: of the run that is thought of.
        options: its model and device.
        sample: pixels are read of so many sources, spread over all; headers are read of each.
        with_time: segment one window, to say how long all of them take.

    Raises SourceError where nothing is found, SettingsError for settings that cannot work.
    """
    loaded = prepare_model(settings or RunSettings(), options or RunOptions())
    source_settings = loaded.settings.source
    with open_archive(src, source_settings) as archive:
        return _inspected(archive, loaded, sample, with_time)


def _inspected(archive: Archive, loaded: LoadedModel, sample: int, with_time: bool) -> Inspection:
    survey = Survey(archive.reading)
    sources = sorted(set(archive.sources), key=attrgetter("name"))
    facts = []
    with Progress(len(sources), "sources", "looking at sources") as progress:
        for source in sources:
            facts.append(_header_facts(source, loaded.settings, survey))
            progress.advance(1)
    reading = replace(survey.reading, shared=survey.shared_limits())
    readable = [index for index, one in enumerate(facts) if one.header is not None]
    chosen = _spread(readable, sample)
    for index in chosen:
        facts[index] = _with_pixels(facts[index], sources[index], reading)
    seconds = None
    if with_time and chosen:
        seconds = _seconds_a_window((sources[i] for i in chosen), reading, loaded)
    return Inspection(tuple(facts), tuple(survey.words()), loaded.settings, seconds)


def _header_facts(source: Source, settings: FilledSettings, survey: Survey) -> SourceFacts:
    name = printable(source.name)
    try:
        with RasterReader(source.path, survey.reading) as reader:
            survey.add(name, reader)
            windows = check_windows(source, (reader.width, reader.height), settings.source)
            return SourceFacts(name, "", reader.header, windows)
    except SourceError as error:
        return SourceFacts(name, str(error))


def _with_pixels(facts: SourceFacts, source: Source, reading: Reading) -> SourceFacts:
    try:
        with RasterReader(source.path, reading) as reader:
            return replace(facts, pixels=reader.describe())
    except SourceError as error:
        return replace(facts, reason=str(error))


def _spread(indices: list[int], count: int) -> list[int]:
    count = min(count, len(indices))
    return [indices[i * len(indices) // count] for i in range(count)]


def _seconds_a_window(
    sources: Iterable[Source], reading: Reading, loaded: LoadedModel
) -> float | None:
    """Segment a window with valid pixels; twice, because the first one loads compiled kernels."""
    settings = loaded.settings
    for source in sources:
        try:
            with RasterReader(source.path, reading) as reader:
                size = reader.width, reader.height, settings.source.tile, settings.source.overlap
                windows = plan_windows(*size)
                tile = reader.read(windows[len(windows) // 2])
        except SourceError:
            continue
        if not tile.valid.any():
            continue
        # Which runtime a run takes, its folder remembers; this one is always there.
        generator = replace(
            loaded,
            settings=replace(settings, segment=replace(settings.segment, runtime="torch")),
        ).generator()
        seconds = 0.0
        for _ in range(2):
            began = time.perf_counter()
            generator.segment(
                tile.rgb,
                tile.valid,
                max_area=settings.segment.max_area,
                min_area=settings.segment.min_area,
            )
            seconds = time.perf_counter() - began
            if seconds > QUICK_SECONDS:
                break
        return seconds
    return None
