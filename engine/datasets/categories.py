"""The classes of a run as data sets list them: those that occur, numbered without gaps."""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from alps.engine.base.errors import RunFolderError
from alps.engine.labels.classes import read_classes
from alps.engine.run_folder.folder import RunFolder

VALUES = 1 << 16  # that a pixel of a label map can have
MOST_LETTERS = 64  # of a label in CVAT; what is longer it cuts
ELSEWHERE = -1
# What XML cannot hold, and what would break a label over lines or turn the text around it.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffe\uffff]")


@dataclass(frozen=True)
class Category:
    """A class that has pixels."""

    number: int  # 0, 1, 2, … of those that occur
    value: int  # of its pixels in label maps
    name: str  # as classes.json has it
    colour: tuple[int, int, int]
    label: str  # the name as tools show it that know a class by its name: a line, and no other's

    @property
    def hex(self) -> str:
        """The colour as #rrggbb."""
        return "#{:02x}{:02x}{:02x}".format(*self.colour)


@dataclass(frozen=True)
class Categories:
    """All classes of a run that have pixels, in the order of their values."""

    items: tuple[Category, ...]
    unlabelled: int  # the value of pixels without a class

    @classmethod
    def of(cls, folder: RunFolder) -> "Categories":
        """Those of classes.json. Raises RunFolderError where there are none."""
        classes = read_classes(folder.classes)
        found = [one for one in classes.classes if one.pixels]
        if not found:
            raise RunFolderError(
                f"no label map of {folder.root} has a class; finish the run with: alps label SRC "
                f"{folder.root}"
            )
        names = [_encodable(one.name) for one in found]
        labels = _labels(names, [one.id for one in found])
        return cls(
            tuple(
                Category(number, one.id, names[number], one.colour, labels[number])
                for number, one in enumerate(found)
            ),
            classes.unlabelled,
        )

    @cached_property
    def numbers(self) -> np.ndarray:
        """(65536,) int32: the number of each value of a label map, -1 for what is none."""
        table = np.full(VALUES, ELSEWHERE, np.int32)
        for item in self.items:
            table[item.value] = item.number
        return table

    def colours(self) -> np.ndarray:
        """(N, 3) uint8, by number."""
        return np.array([item.colour for item in self.items], np.uint8)


def _encodable(name: str) -> str:
    """A name that UTF-8 can hold: JSON can say halves of characters."""
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _labels(names: list[str], values: list[int]) -> list[str]:
    """One-line names that differ from each other; those that would not say their class's value."""
    found: list[str] = []
    taken: set[str] = set()
    for name, value in zip(names, values, strict=True):
        label = _shortened(" ".join(_UNFIT.sub(" ", name).split())) or f"class {value}"
        if label in taken:
            ending = f" ({value})"
            label = _shortened(label, MOST_LETTERS - len(ending)) + ending
        while label in taken:  # somebody named a class so
            label = label[: MOST_LETTERS - 1] + "_"
        taken.add(label)
        found.append(label)
    return found


def _shortened(text: str, most: int = MOST_LETTERS) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
