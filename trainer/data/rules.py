"""What the values of label images mean, and the file dataset.json that says so beside the data."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import SourceError

Colour = tuple[int, int, int]
DESCRIPTION = "dataset.json"
# Ids must leave room for the value that means "no class".
MOST_CLASSES = 65535


@dataclass(frozen=True)
class LabelRules:
    """How pixels of a label image become class ids 0, 1, 2, …

    With a ``palette`` labels are colours; with a ``threshold`` they are grey values, class 1 above
    it; else they are class numbers. The fields are the keys of dataset.json.
    """

    classes: tuple[str, ...] = ()  # names; empty: as many as the labels have values
    palette: tuple[Colour, ...] | None = None  # of the classes, in their order
    ignore_colours: tuple[Colour, ...] = ()  # no class, in labels that are colours
    ignore: tuple[int, ...] = (255,)  # no class, in labels that are numbers
    threshold: float | None = None
    reduce_zero: bool = False  # 0 is no class, 1 is the first
    values: tuple[int, ...] | None = None  # of the classes, in their order: 0, 128, 255, say
    nodata: bool = True  # whether what a GeoTIFF calls nodata is no class
    left_out: tuple[str, ...] = ()  # classes that a second set of means is told without

    @property
    def unlabelled(self) -> int:
        """The value of pixels with no class once labels are decoded."""
        return 255 if len(self.classes) <= 255 else 65535

    def save(self, folder: Path) -> None:
        """Write dataset.json."""
        text = json.dumps(dataclasses.asdict(self), indent=1)
        write_text(folder / DESCRIPTION, text + "\n")

    @classmethod
    def load(cls, folder: Path) -> "LabelRules | None":
        """Read dataset.json; None where there is none. Raises SourceError for a wrong one."""
        path = folder / DESCRIPTION
        if not path.exists():
            return None
        known = {item.name for item in dataclasses.fields(cls)}
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            unknown = sorted(set(values) - known)
            if unknown:
                raise ValueError(f"unknown key {unknown[0]}; known are {', '.join(sorted(known))}")
            for name in ("palette", "ignore_colours"):
                if values.get(name) is not None:
                    values[name] = tuple(_colour(colour) for colour in values[name])
            for name in ("classes", "ignore", "left_out", "values"):
                if values.get(name) is not None:
                    values[name] = tuple(values[name])
            if "ignore" in values:  # whoever says what is no class outranks the labels' headers
                values.setdefault("nodata", False)
            rules = cls(**values)
            if rules.values is not None and len(rules.values) != len(rules.classes):
                raise ValueError(
                    f"{len(rules.classes)} classes but {len(rules.values)} values of classes"
                )
            if rules.palette is not None and len(rules.palette) != len(rules.classes):
                raise ValueError(
                    f"{len(rules.classes)} classes but {len(rules.palette)} colours in the palette"
                )
            if not set(rules.left_out) <= set(rules.classes):
                raise ValueError("left_out names a class that classes does not")
            return rules
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SourceError(f"cannot use {path}: {error}; mend or remove it") from error


def _colour(values: list[int]) -> Colour:
    red, green, blue = values
    if not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise ValueError(f"{values} is no colour: three whole numbers from 0 to 255")
    return red, green, blue
