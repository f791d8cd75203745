"""Reads label images as class ids, by the rules of their data set, and says what fits no rule."""

from collections import Counter
from pathlib import Path
from typing import Self

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterWindow

from alps.engine.base.errors import SourceError
from alps.engine.images.raster import RasterReader
from alps.engine.images.windows import Window
from alps.engine.quality.label_file import Grid, LabelFile
from alps.engine.quality.truth import TruthRules, class_bands, read_classes
from alps.trainer.data.rules import LabelRules

SHOWN = 3  # strange values that a message names
SPARSE = 16  # class numbers up to here may have gaps; above, half of them must be in use


class LabelReader:
    """An open label image; a context manager, used by one thread at a time.

    Values that the rules do not know are read as "no class" and counted in ``strange``.
    Raises SourceError where the file cannot be read or is no label image of that kind, and
    SettingsError where it needs a threshold.
    """

    def __init__(self, path: Path, rules: LabelRules, image: RasterReader | None = None) -> None:
        """``image``: the one they belong to, on whose pixels they are laid by their place."""
        self._rules = rules
        self._labels = LabelFile(path, None if image is None else Grid.of(image))
        self._file = self._labels.file
        self.strange: Counter[int] = Counter()
        self.ignored = 0  # pixels that the file or the rules call no class
        self._codes, self._ids = _colour_table(rules)
        self._number_rules = TruthRules((), rules.threshold, rules.nodata)
        try:
            if rules.palette is None:
                self._bands = class_bands(self._labels, self._number_rules)
            elif self._file.colorinterp[0] is not ColorInterp.palette and self._file.count < 3:
                raise SourceError(
                    f"{path} has {self._file.count} band(s), but its data set's labels are "
                    "colours; give colour images, or remove the palette from dataset.json"
                )
        except BaseException:
            self._labels.close()
            raise

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels: the image's, where both say where they lie."""
        return self._labels.size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._labels.close()

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
        values, valid = read_classes(self._labels, self._bands, place, self._number_rules)
        ids = values.astype(np.int64)
        if self._rules.threshold is None:
            valid &= ~np.isin(ids, self._rules.ignore)
            self.ignored += int(valid.size - np.count_nonzero(valid))
            if self._rules.values is not None:
                ids = _places_in(self._rules.values, ids)
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
            indices, reached = self._labels.read([1], place)
            red, green, blue = np.moveaxis(table[indices[0]], -1, 0)
        else:
            bands, reached = self._labels.read([1, 2, 3], place)
            red, green, blue = bands.astype(np.int64)
        codes = red << 16 | green << 8 | blue
        at = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        known = self._codes[at] == codes
        if not known.all(where=reached):
            self._count(codes[~known & reached])
        return np.where(known & reached, self._ids[at], self._rules.unlabelled)

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


def _places_in(known: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """The place of each value in ``known``, -1 where it is not among them."""
    order = np.argsort(known)
    ordered = np.array(known, np.int64)[order]
    at = np.searchsorted(ordered, values).clip(max=len(known) - 1)
    return np.where(ordered[at] == values, order[at], -1)


def count_classes(paths: list[Path], rules: LabelRules) -> int:
    """One more than the highest class number in the label images, read in strips.

    Files that cannot be read are passed over here: the report names them. Raises SourceError where
    the values are no class numbers: a mask of 0 and 255, or greys.
    """
    seen: set[int] = set()
    ignored = 0
    number_rules = TruthRules(rules.ignore, None, rules.nodata)
    for path in paths:
        try:
            with LabelFile(path) as labels:
                file = labels.file
                bands = class_bands(labels, number_rules)
                for window in strips(file.width, file.height, file.block_shapes[0][0]):
                    place = RasterWindow(window.x, window.y, window.width, window.height)
                    values, valid = read_classes(labels, bands, place, number_rules)
                    seen.update(np.unique(values[valid]).tolist())
                    ignored += int(valid.size - np.count_nonzero(valid))
        except SourceError:
            continue
    _refuse_no_numbers(seen, ignored, rules)
    return max(seen, default=-1) + 1 - int(rules.reduce_zero)


def _refuse_no_numbers(seen: set[int], ignored: int, rules: LabelRules) -> None:
    """Raise SourceError for values that nobody numbers classes by."""
    shown = ", ".join(map(str, sorted(seen)[: 2 * SHOWN]))
    if len(seen) == 1 and ignored:
        raise SourceError(
            f"the labels hold the value {shown} alone, and {ignored} pixels that are no class "
            f"({', '.join(map(str, rules.ignore))}, or the files' nodata value); for a mask of 0 "
            "and 255 give --label-threshold 127, where all values are classes --label-values "
            "0,255 say"
        )
    if seen and max(seen) >= SPARSE and len(seen) * 2 <= max(seen) + 1:
        raise SourceError(
            f"the labels hold {len(seen)} values up to {max(seen)} ({shown}), so most class "
            "numbers would stand for nothing; name the values of the classes in their order with "
            "--label-values 0,128,255 say, or give --label-threshold for a mask"
        )


def strips(width: int, height: int, multiple: int) -> list[Window]:
    """Full-width windows from top to bottom, of some 4 million pixels and ``multiple``'s rows."""
    rows = max(multiple, (1 << 22) // max(width, 1) // multiple * multiple)
    return [Window(0, y, width, min(rows, height - y)) for y in range(0, height, rows)]
