"""What run.json and classes.json say, in the words of the page. Optional keys may be missing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from alps.engine.base.errors import RunFolderError
from alps.engine.base.records import Count, read_record
from alps.engine.labels.palette import palette
from alps.engine.run_folder.sums import refuse_damaged

NOT_SET = "–"
# Numbers of `alps quality`, in this order; others follow under their own names.
QUALITY_NAMES = {
    "miou": ("Mean IoU", "over the real classes; unlabelled pixels count as misses"),
    "accuracy": ("Accuracy", "share of truth pixels with the right class"),
    "nmi": ("NMI", "normalised mutual information, over labelled pixels"),
    "purity": ("Purity", "share of labelled pixels in their class's main real class"),
    "coverage": ("Coverage", "share of truth pixels that are labelled"),
}


@dataclass(frozen=True)
class ClassEntry:
    """A class in classes.json."""

    id: Annotated[int, Meta(ge=0, lt=65_535)]
    colour: Annotated[tuple[int, ...], Meta(min_length=3)]
    name: str | None = None
    pixels: Count | None = None
    regions: Count | None = None
    segments: Count | None = None


@dataclass(frozen=True)
class ClassesRecord:
    """The keys of classes.json."""

    classes: Annotated[tuple[ClassEntry, ...], Meta(max_length=65_535)] = ()
    unlabelled: Annotated[int, Meta(ge=0, le=65_535)] | None = None
    unlabelled_pixels: Count | None = None
    nodata_pixels: Count | None = None


@dataclass(frozen=True)
class LabelClass:
    """A pseudo-class as classes.json has it."""

    id: int
    name: str
    colour: tuple[int, int, int]
    pixels: int
    regions: int

    @property
    def css(self) -> str:
        """The colour for a style sheet; numbers only, so nothing can hide in it."""
        return "rgb({}, {}, {})".format(*self.colour)


@dataclass(frozen=True)
class Classes:
    """All classes, in the order of their ids, and the value of pixels that have none."""

    classes: list[LabelClass] = field(default_factory=list)
    unlabelled: int = 255
    unlabelled_pixels: int | None = None
    nodata_pixels: int | None = None  # of those, the ones without data

    @property
    def labelled_pixels(self) -> int:
        """Pixels of all label maps that have a class."""
        return sum(c.pixels for c in self.classes)

    @property
    def unlabelled_valid_pixels(self) -> int | None:
        """Pixels of all label maps that have data and no class; None where nobody counted."""
        if self.unlabelled_pixels is None or self.nodata_pixels is None:
            return None
        return max(self.unlabelled_pixels - self.nodata_pixels, 0)

    @property
    def labelled_share(self) -> float | None:
        """Share of the valid pixels of all label maps that have a class; None where unknown."""
        unlabelled = self.unlabelled_valid_pixels
        if unlabelled is None or not self.labelled_pixels + unlabelled:
            return None
        return self.labelled_pixels / (self.labelled_pixels + unlabelled)

    @property
    def regions(self) -> int:
        """Regions of all label maps that have a class."""
        return sum(c.regions for c in self.classes)

    def colours(self) -> np.ndarray:
        """(K, 3) uint8, indexed by class id."""
        table = palette(max((c.id for c in self.classes), default=-1) + 1)
        for label_class in self.classes:
            table[label_class.id] = label_class.colour
        return table


@dataclass(frozen=True)
class QualityNumbers:
    """Label quality, sorted for showing."""

    headline: list[tuple[str, float, str]]  # name, share of 1, what it means
    classes: list[dict[str, Any]]
    others: list[tuple[str, str]]


def read_classes(path: Path) -> Classes:
    """Read classes.json; no classes where the file is not there, as before `alps paint`.

    Raises RunFolderError where it is not as `alps paint` writes it.
    """
    refuse_damaged(path)
    try:
        record = read_record(path, ClassesRecord, RunFolderError, "run `alps paint` again")
    except FileNotFoundError:
        return Classes()
    classes = [
        LabelClass(
            id=entry.id,
            name=entry.name or f"class {entry.id}",
            colour=_colour(entry.colour),
            pixels=entry.pixels or 0,
            # Older versions called them segments.
            regions=entry.regions or entry.segments or 0,
        )
        for entry in record.classes
    ]
    return Classes(
        sorted(classes, key=lambda c: c.id),
        (255 if len(classes) <= 255 else 65535) if record.unlabelled is None else record.unlabelled,
        record.unlabelled_pixels,
        record.nodata_pixels,
    )


def _colour(values: Any) -> tuple[int, int, int]:
    """Red, green and blue, of which each is brought into 0…255."""
    red, green, blue = (min(255, max(0, int(value))) for value in values[:3])
    return red, green, blue


def flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name nested settings with dots: {"gate": {"max_area": 0.3}} gives gate.max_area."""
    if isinstance(settings, dict) and settings:
        for name, value in settings.items():
            yield from flat(value, f"{prefix}{name}.")
    elif prefix:
        yield prefix.rstrip("."), settings


def changed_settings(run: dict[str, Any]) -> list[tuple[str, str, str]] | None:
    """(name, value, default) of settings that differ; None where defaults are not recorded."""
    if not isinstance(run.get("defaults"), dict):
        return None
    defaults = dict(flat(run["defaults"]))
    return [
        (name, plain(value), plain(defaults.get(name)))
        for name, value in flat(run.get("settings"))
        if name in defaults and value != defaults[name]
    ]


def plain(value: Any) -> str:
    """A setting as a reader would write it."""
    if value is None:
        return NOT_SET
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or NOT_SET
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def read_time(text: Any) -> datetime | None:
    """An ISO date and time; None where it is none."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def run_seconds(run: dict[str, Any]) -> float | None:
    """What the stages took, or else from start to finish, which counts the pauses of a run."""
    stages = sum(stage_seconds(run).values())
    if stages:
        return stages
    started, finished = read_time(run.get("started")), read_time(run.get("finished"))
    # One with and one without time zone cannot be subtracted.
    if started and finished and (started.tzinfo is None) == (finished.tzinfo is None):
        return max(0.0, (finished - started).total_seconds())
    return None


def stage_seconds(run: dict[str, Any]) -> dict[str, float]:
    """Seconds of each stage that has a number."""
    stages = run.get("stages")
    stages = stages if isinstance(stages, dict) else {}
    return {str(name): float(s) for name, s in stages.items() if _is_number(s)}


def quality_numbers(quality: Any) -> QualityNumbers | None:
    """Sort what `alps quality` measured; None where there is nothing."""
    if not isinstance(quality, dict) or not quality:
        return None
    headline = [
        (name, float(quality[key]), meaning)
        for key, (name, meaning) in QUALITY_NAMES.items()
        if _is_number(quality.get(key))
    ]
    classes = quality.get("classes")
    classes = [c for c in classes if isinstance(c, dict)] if isinstance(classes, list) else []
    others = [
        (str(key).replace("_", " "), f"{value:,}" if isinstance(value, int) else plain(value))
        for key, value in quality.items()
        if key not in QUALITY_NAMES and (_is_number(value) or isinstance(value, str))
    ]
    return QualityNumbers(headline, classes, others)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
