"""Classes by source and by date, from the journal of painted sources."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alps.engine.images.dates import UNKNOWN, date_words
from alps.engine.labels.classes import Classes, LabelClass
from alps.engine.run_folder.painted import last_lines

MOST_DATES = 12
MOST_PARTS = 24  # classes of a bar that are told apart
MOST_CHANGES = 12  # classes that are listed by date


@dataclass(frozen=True)
class SharesBar:
    """How much of some ground each class is."""

    name: str
    pixels: int  # that have a class
    parts: list[tuple[LabelClass, float]]  # the largest, in the order of their ids
    others: float  # share of all other classes


@dataclass(frozen=True)
class ClassByDate:
    """The share of a class in each date's labelled pixels."""

    label_class: LabelClass
    shares: list[float]


@dataclass(frozen=True)
class Shares:
    """Classes by source and by date, as far as there is room."""

    sources: list[SharesBar] = field(default_factory=list)
    source_count: int = 0  # that have a label map
    dates: list[SharesBar] = field(default_factory=list)
    dated: int = 0  # sources that have a date
    date_count: int = 0  # of which ``dates`` are the largest
    changes: list[ClassByDate] = field(default_factory=list)  # those that differ most


def classes_by_source(
    journal: Path, classes: Classes, dates: np.ndarray, names: dict[int, str]
) -> Shares:
    """Sum up what label maps show.

    Args:
        journal: journal/painted.jsonl; nothing to show where it is not there.
        classes: of classes.json.
        dates: (S,) int32 of each source, by its index.
        names: of the sources that get a bar of their own, by index.
    """
    if not journal.exists() or not classes.classes:
        return Shares()
    count = len(classes.classes)
    bars: dict[int, np.ndarray] = {}
    by_day: dict[int, np.ndarray] = {}
    painted = dated = 0
    for index, pixels in _painted(journal, count):
        painted += 1
        if index in names:
            bars[index] = pixels
        day = int(dates[index]) if index < len(dates) else UNKNOWN
        if day != UNKNOWN:
            dated += 1
            by_day[day] = by_day.get(day, 0) + pixels
    # A few numbers in names may look like years: dates of a minority say nothing of the archive.
    groups = _coarse_enough(by_day) if 2 * dated >= painted else {}
    largest = sorted(groups, key=lambda day: (-groups[day].sum(), day))[:MOST_DATES]
    shown = {day: groups[day] for day in sorted(largest) if groups[day].any()}
    return Shares(
        sources=[
            _bar(names[i], bars[i], classes) for i in sorted(bars, key=lambda i: (names[i], i))
        ],
        source_count=painted,
        dates=[_bar(date_words(day), pixels, classes) for day, pixels in shown.items()],
        dated=dated,
        date_count=len(groups),
        changes=_changes(list(shown.values()), classes),
    )


def _painted(journal: Path, classes: int) -> Iterator[tuple[int, np.ndarray]]:
    """Source index and pixels of each class (K,) int64, from each source's last line."""
    for line in last_lines(journal):
        if not line.reason and len(line.pixels) == classes + 1:
            yield line.source_index, np.array(line.pixels[:classes], np.int64)


def _coarse_enough(by_day: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Days, or months, or years: the finest of which there are few enough."""
    for unit in (1, 100, 10_000):
        groups: dict[int, np.ndarray] = {}
        for day, pixels in by_day.items():
            key = day // unit * unit
            groups[key] = groups.get(key, 0) + pixels
        if len(groups) <= MOST_DATES:
            break
    return groups


def _bar(name: str, pixels: np.ndarray, classes: Classes) -> SharesBar:
    total = int(pixels.sum())
    shares = pixels / max(total, 1)
    largest = np.sort(np.argsort(-pixels, kind="stable")[:MOST_PARTS])
    parts = [(classes.classes[i], float(shares[i])) for i in largest if pixels[i]]
    return SharesBar(name, total, parts, max(0.0, 1 - sum(s for _, s in parts)) if total else 0.0)


def _changes(groups: list[np.ndarray], classes: Classes) -> list[ClassByDate]:
    if len(groups) < 2:
        return []
    shares = np.stack([pixels / pixels.sum() for pixels in groups])
    span = shares.max(axis=0) - shares.min(axis=0)
    order = np.argsort(-span, kind="stable")[:MOST_CHANGES]
    return [ClassByDate(classes.classes[i], shares[:, i].tolist()) for i in order if span[i]]
