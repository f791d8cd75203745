"""Reads label images as class ids, by the rules of their data set, and says what fits no rule."""

from collections import Counter
from pathlib import Path
from typing import Self

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterWindow

from alps.engine.base.errors import SourceError
from alps.engine.images.windows import Window
from alps.engine.quality.truth import (
    TruthRules,
    class_bands,
    open_image,
    read_bands,
    read_classes,
)
from alps.trainer.data.rules import LabelRules

SHOWN = 3  # strange values that a message names


class LabelReader:
    """An open label image; a context manager, used by one thread at a time.

    Values that the rules do not know are read as "no class" and counted in ``strange``.
    Raises SourceError where the file cannot be read or is no label image of that kind, and
    SettingsError where it needs a threshold.
    """

    def __init__(self, path: Path, rules: LabelRules) -> None:
        self._rules = rules
        self._file = open_image(path)
        self.strange: Counter[int] = Counter()
        self._codes, self._ids = _colour_table(rules)
        self._number_rules = TruthRules((), rules.threshold)
        try:
            if rules.palette is None:
                self._bands = class_bands(self._file, self._number_rules)
            elif self._file.colorinterp[0] is not ColorInterp.palette and self._file.count < 3:
                raise SourceError(
                    f"{path} has {self._file.count} band(s), but its data set's labels are "
                    "colours; give colour images, or remove the palette from dataset.json"
                )
        except BaseException:
            self._file.close()
            raise

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self._file.width, self._file.height

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def read(self, window: Window) -> np.ndarray:
        """Class ids (H, W), uint8 or uint16; "no class" is the rules' ``unlabelled``."""
        place = RasterWindow(window.x, window.y, window.width, window.height)
        decoded = self._colours(place) if self._rules.palette else self._numbers(place)
        return decoded.astype(np.uint8 if self._rules.unlabelled == 255 else np.uint16)

    def complaint(self) -> tuple[str, str] | None:
        """Kind and text of what was strange; None where nothing was."""
        if not self.strange:
            return None
        pixels, commonest = self.strange.total(), self.strange.most_common(SHOWN)
        if self._rules.palette is not None:
            shown = ", ".join(
                str((code >> 16, code >> 8 & 255, code & 255)) for code, _ in commonest
            )
            return "unknown colours", f"{pixels} pixels of {len(self.strange)} colours: {shown}"
        shown = ", ".join(str(value) for value, _ in commonest)
        count = len(self._rules.classes)
        first = int(self._rules.reduce_zero)
        return (
            "class ids out of range",
            f"{pixels} pixels of values {shown}; {count} classes are {first} … {count - 1 + first}",
        )

    def _numbers(self, place: RasterWindow) -> np.ndarray:
        values, valid = read_classes(self._file, self._bands, place, self._number_rules)
        ids = values.astype(np.int64)
        if self._rules.threshold is None:
            valid &= ~np.isin(ids, self._rules.ignore)
            if self._rules.reduce_zero:
                valid &= ids != 0
                ids -= 1
        wrong = valid & ((ids < 0) | (ids >= len(self._rules.classes)))
        if wrong.any():
            self._count(values[wrong])
        return np.where(valid & ~wrong, ids, self._rules.unlabelled)

    def _colours(self, place: RasterWindow) -> np.ndarray:
        if self._file.colorinterp[0] is ColorInterp.palette:
            table = np.zeros((256, 3), np.int64)
            for index, colour in self._file.colormap(1).items():
                table[index] = colour[:3]
            red, green, blue = np.moveaxis(table[read_bands(self._file, [1], place)[0]], -1, 0)
        else:
            red, green, blue = read_bands(self._file, [1, 2, 3], place).astype(np.int64)
        codes = red << 16 | green << 8 | blue
        at = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        known = self._codes[at] == codes
        if not known.all():
            self._count(codes[~known])
        return np.where(known, self._ids[at], self._rules.unlabelled)

    def _count(self, values: np.ndarray) -> None:
        found, counts = np.unique(values, return_counts=True)
        self.strange.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))


def _colour_table(rules: LabelRules) -> tuple[np.ndarray, np.ndarray]:
    """Sorted 24-bit codes of the known colours and the class ids of them, both (n,) int64."""
    known = {colour: rules.unlabelled for colour in rules.ignore_colours}
    known |= {colour: index for index, colour in enumerate(rules.palette or ())}
    pairs = sorted((red << 16 | green << 8 | blue, i) for (red, green, blue), i in known.items())
    codes, ids = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(codes, np.int64), np.array(ids, np.int64)


def count_classes(paths: list[Path], rules: LabelRules) -> int:
    """One more than the highest class number in the label images, read in strips.

    Files that cannot be read are passed over here: the report names them.
    """
    highest = -1
    for path in paths:
        try:
            with open_image(path) as file:
                bands = class_bands(file, TruthRules((), None))
                for window in strips(file.width, file.height, file.block_shapes[0][0]):
                    place = RasterWindow(window.x, window.y, window.width, window.height)
                    values, valid = read_classes(file, bands, place, TruthRules(rules.ignore, None))
                    if valid.any():
                        highest = max(highest, int(values[valid].max()))
        except SourceError:
            continue
    return highest + 1 - int(rules.reduce_zero)


def strips(width: int, height: int, multiple: int) -> list[Window]:
    """Full-width windows from top to bottom, of some 4 million pixels and ``multiple``'s rows."""
    rows = max(multiple, (1 << 22) // max(width, 1) // multiple * multiple)
    return [Window(0, y, width, min(rows, height - y)) for y in range(0, height, rows)]
