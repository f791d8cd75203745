"""Sources looked at together: how many are read in which way, and the stretch that pieces share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alps.engine.base.errors import SourceError
from alps.engine.images.facts.description import HeaderFacts, in_words
from alps.engine.images.facts.validity import Fills
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading, shares_with
from alps.engine.images.stretching import Limits, Sample, fit_limits

MOST_SAMPLED = 64  # files that a shared stretch is fitted to, spread over all
SAMPLE_VALUES = 1 << 16  # of each of them, pixels at most


@dataclass
class _Kind:
    """Sources that are read alike."""

    about: dict[str, Any]
    first: str
    count: int = 0


@dataclass(frozen=True)
class SourceFacts:
    """What a source's header says, as far as an archive is concerned."""

    header: HeaderFacts
    alike: str | None  # of those that one stretch is fitted to; None: it has a stretch of its own


@dataclass
class Survey:
    """What the headers of an archive's sources say; files are added one by one, in their order."""

    reading: Reading  # how they are read before any stretch is known
    doubts: dict[str, str] = field(default_factory=dict)  # by kind, with the first such source
    _kinds: dict[str, _Kind] = field(default_factory=dict)
    _alike: dict[str, list[str | Path]] = field(default_factory=dict)
    _limits: dict[str, Limits] | None = None

    def add(self, name: str, reader: RasterReader) -> None:
        """Take note of a source that is open."""
        facts = self.look(reader)
        self.note(name, facts)
        if facts.alike is not None:
            self._alike.setdefault(facts.alike, []).append(reader.path)

    def look(self, reader: RasterReader) -> SourceFacts:
        """What an open source says; may be called by several threads."""
        header, settings = reader.header, self.reading.settings
        if settings.stretch in ("auto", "archive") and reader.is_stretched:
            return SourceFacts(
                header, shares_with(settings, reader.path, header, reader.resolution)
            )
        return SourceFacts(header, None)

    def note(self, name: str, facts: SourceFacts) -> None:
        """Take note of what a source said, in the order of sources; not of its stretch."""
        header = facts.header
        words = in_words(header.kind())
        kind = self._kinds.setdefault(words, _Kind(header.kind(), name))
        kind.count += 1
        for doubt in header.doubts:
            self.doubts.setdefault(doubt.kind, f"{name}: {doubt.text}")

    def kinds(self) -> list[dict[str, Any]]:
        """For run.json: how sources are read, how many, and the first of them."""
        return [
            kind.about | {"sources": kind.count, "first": kind.first}
            for kind in self._kinds.values()
        ]

    def words(self) -> list[str]:
        """For people: a line a kind of sources."""
        return [
            f"{words}: {kind.count} source{'s' if kind.count > 1 else ''} ({kind.first}"
            f"{', say' if kind.count > 1 else ''})"
            for words, kind in self._kinds.items()
        ]

    def fit(self, alike: Mapping[str, Sequence[str | Path]]) -> None:
        """Fit the stretches that sources share, given the paths of those that are alike."""
        fitted = {
            name: _fit(self.reading, paths) for name, paths in alike.items() if len(paths) > 1
        }
        self._limits = {name: limits for name, limits in fitted.items() if limits is not None}

    def shared_limits(self) -> dict[str, Limits]:
        """One stretch for each product of which there are several files."""
        if self._limits is None:
            self.fit(self._alike)
        return self._limits or {}


def survey(reading: Reading, paths: Sequence[str | Path]) -> Survey:
    """Look at the headers of files; those that cannot be opened are passed over here."""
    found = Survey(reading)
    for path in paths:
        try:
            with RasterReader(path, found.reading) as reader:
                found.add(str(path), reader)
        except SourceError:
            continue
    return found


def read_together(reading: Reading, paths: Sequence[str | Path]) -> Reading:
    """How files are read that belong together, without a run that remembers it."""
    return replace(reading, shared=survey(reading, paths).shared_limits())


def plain_limits(shared: Mapping[str, Limits]) -> dict[str, dict[str, list[float]]]:
    """Limits for JSON."""
    return {
        name: {"low": list(limits.low), "high": list(limits.high)}
        for name, limits in shared.items()
    }


def _fit(reading: Reading, paths: Sequence[str | Path]) -> Limits | None:
    """Limits of samples of some of the files; None where none can be read."""
    count = min(MOST_SAMPLED, len(paths))
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    samples: list[Sample] = []
    fills: list[list[Fills]] = []
    for path in chosen:
        try:
            with RasterReader(path, reading) as reader:
                samples.append(reader.sample.thinned(SAMPLE_VALUES))
                fills.append(reader.fills)
        except SourceError:  # its tiles will say so
            continue
    return fit_limits(samples, fills) if samples else None
