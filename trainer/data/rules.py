"""What the values of label images mean, and the file dataset.json that says so beside the data."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import SourceError
from alps.engine.base.records import as_record, parse_record, read_small

Channel = Annotated[int, Meta(ge=0, le=255)]
Colour = tuple[Channel, Channel, Channel]
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
            values = parse_record(read_small(path), dict[str, Any])
            unknown = sorted(set(values) - known)
            if unknown:
                raise ValueError(f"unknown key {unknown[0]}; known are {', '.join(sorted(known))}")
            if "ignore" in values:  # whoever says what is no class outranks the labels' headers
                values.setdefault("nodata", False)
            rules = as_record(values, cls)
            if len(rules.classes) > MOST_CLASSES:
                raise ValueError(f"{len(rules.classes)} classes, {MOST_CLASSES} at most")
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
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot use {path}: {error}; mend or remove it") from error
