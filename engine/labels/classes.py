"""classes.json: id, name, colour and size of each class of the label maps."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from alps.engine.base.errors import RunFolderError
from alps.engine.base.records import Count, read_record
from alps.engine.labels.palette import palette
from alps.engine.run_folder.sums import refuse_damaged


@dataclass(frozen=True)
class ClassEntry:
    """A class in classes.json."""

    id: Annotated[int, Meta(ge=0, lt=65_535)]
    colour: Annotated[tuple[int, ...], Meta(min_length=3)]
    name: str | None = None
    pixels: Count | None = None
    regions: Count | None = None
    segments: Count | None = None
    ignored: bool = False
    part_of: Annotated[int, Meta(ge=0, lt=65_535)] | None = None


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
    ignored: bool = False  # label maps leave it unlabelled
    part_of: int | None = None  # the class that it was made part of, whose number its pixels have

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
            ignored=entry.ignored,
            part_of=entry.part_of,
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
