"""Which crops a training sees, in which order and how changed: all from the seed and the number.

The images are divided into cells of about a crop's side. A sample is a cell: its crop lies
somewhere around it. An annotator who labels 5 % of an archive labels 5 % of its cells, so a
fraction is a number of cells, and labels outside of them are not seen. Nothing here keeps a state:
what sample n is, and how it is turned, scaled and coloured, follows from the seed and n alone. So
a run that goes on at step n, and one shared among processes, sees what an undisturbed one would.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from alps.engine.base.errors import SourceError
from alps.trainer.data.arrays import CachedPair, edges
from alps.trainer.data.cache import Cache

# What a generator's seed is made of besides the user's: no two purposes may share one.
ORDER, CHANGE, SUBSET = 0, 1, 2
STRIDE = 4  # of the grid on which vectors are learnt: that of the networks' own logits
ORIENTATIONS = 8  # upright or flipped, turned by 0 to 3 quarters


@dataclass(frozen=True)
class Augmentation:
    """How samples are changed; the defaults suit images from above."""

    orientations: bool = True  # all eight flips and turns: from above there is no upright
    scale: float = 1.5  # from 1 / scale to scale, evenly on a logarithmic axis
    colour: float = 0.25  # most that brightness, contrast and saturation change by


@dataclass(frozen=True)
class Sample:
    """A crop as the network gets it."""

    pixels: np.ndarray  # (S, S, 3) uint8
    labels: np.ndarray  # (S, S) int64, -1 where there is no class
    weights: np.ndarray  # (S, S) float32, 0 … 1
    # Where more is learnt of a run folder than classes:
    objects: np.ndarray | None = None  # (S, S) int64 numbers, -1 in none or where not to be learnt
    vectors: np.ndarray | None = None  # (S / STRIDE, S / STRIDE, D) float32, 0 where not known


class Cells:
    """The labelled cells of some pairs, or a fraction of them."""

    def __init__(self, cache: Cache, split: str) -> None:
        self.root, self.pairs, self.cell = cache.root, cache.split(split), cache.cell
        self.unlabelled, self.classes = cache.rules.unlabelled, len(cache.rules.classes)
        found = [
            (number, row, column)
            for number, pair in enumerate(self.pairs)
            for row, cells in enumerate(pair.labelled)
            for column, pixels in enumerate(cells)
            if pixels
        ]
        self.chosen = np.array(found, np.int64).reshape(-1, 3)  # (n, 3): pair, row, column
        self.is_whole = True

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, fraction: float, unit: str, seed: int) -> None:
        """Keep a fraction of the cells; of one seed a smaller one is part of every larger one.

        unit: what is chosen whole at random: ``crop`` (a cell), ``image`` or ``scene``. At least
        one is kept; whole images and scenes are added while that comes nearer to the fraction.
        Raises SourceError where there is no cell.
        """
        if not len(self):
            raise SourceError("none of the images to learn from has a labelled pixel")
        if fraction >= 1:
            return
        of = self._groups(unit)
        names, cells = np.unique(of, return_counts=True)
        order = np.random.default_rng([seed, SUBSET]).permutation(len(names))
        sums = np.cumsum(cells[order])
        # Nested, because the order is one and the number of groups grows with the fraction.
        count = max(1, int(np.searchsorted(sums - cells[order] / 2, fraction * len(self))))
        self.chosen = self.chosen[np.isin(of, names[order[:count]])]
        self.is_whole = False

    def _groups(self, unit: str) -> np.ndarray:
        if unit == "crop":
            return np.arange(len(self))
        if unit == "image":
            return self.chosen[:, 0]
        scenes = np.unique([pair.scene for pair in self.pairs], return_inverse=True)[1]
        return scenes[self.chosen[:, 0]]

    @cached_property
    def visible(self) -> dict[int, np.ndarray]:
        """Of each pair with chosen cells: which of its cells are chosen, (rows, columns) bool."""
        grids: dict[int, np.ndarray] = {}
        for number, row, column in self.chosen.tolist():
            if number not in grids:
                shape = (len(self.pairs[number].labelled), len(self.pairs[number].labelled[0]))
                grids[number] = np.zeros(shape, bool)
            grids[number][row, column] = True
        return grids

    def class_pixels(self) -> np.ndarray:
        """Visible pixels of each class, (C,) int64."""
        counts = np.zeros(self.unlabelled + 1, np.int64)
        if self.is_whole:
            for pair in self.pairs:
                counts[: self.classes] += pair.class_pixels
            return counts[: self.classes]
        for number, row, column in self.chosen.tolist():
            top, bottom, left, right = _cell_box(self.pairs[number], row, column, self.cell)
            ids = self.pairs[number].labels(self.root)[top:bottom, left:right]
            counts += np.bincount(ids.ravel(), minlength=len(counts))
        return counts[: self.classes]


class Samples:
    """The endless sequence of samples, epoch after epoch, each in its own order."""

    def __init__(self, cells: Cells, crop: int, augmentation: Augmentation, seed: int) -> None:
        """``crop``: side of a sample in pixels."""
        self._cells, self._crop, self._seed = cells, crop, seed
        self._augmentation = augmentation
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def place(self, number: int) -> int:
        """Which cell sample ``number`` is of. Called in one thread."""
        epoch, position = divmod(number, len(self._cells))
        if epoch != self._epoch:
            generator = np.random.default_rng([self._seed, ORDER, epoch])
            self._epoch, self._order = epoch, generator.permutation(len(self._cells))
        return int(self._order[position])

    def make(self, number: int, place: int) -> Sample:
        """Sample ``number``, of cell ``place``. May be called in any thread."""
        random = np.random.default_rng([self._seed, CHANGE, number])
        how = self._augmentation
        index, row, column = self._cells.chosen[place].tolist()
        pair = self._cells.pairs[index]
        top, bottom, left, right = _cell_box(pair, row, column, self._cells.cell)
        side = round(self._crop * float(np.exp(random.uniform(-1, 1) * np.log(how.scale))))
        y = _start(int(random.integers(top, bottom)), side, pair.height)
        x = _start(int(random.integers(left, right)), side, pair.width)
        read = self._read(index, y, x, side).made(self._crop)
        orientation = int(random.integers(ORIENTATIONS)) if how.orientations else 0
        pixels = recoloured(turned(read.pixels, orientation), how.colour, random)
        ids = turned(read.labels, orientation).astype(np.int64)
        ids[ids == self._cells.unlabelled] = -1
        shares: np.ndarray
        if read.weights is None:
            shares = np.ones(ids.shape, np.float32)
        else:
            shares = turned(read.weights, orientation).astype(np.float32) / 255
        if read.regions is None:
            return Sample(pixels, ids, shares)
        # What the labels leave out is not learnt.
        regions = np.where(ids >= 0, turned(read.regions, orientation), -1).astype(np.int64)
        objects, vectors = pair.objects(self._cells.root), pair.vectors(self._cells.root)
        assert objects is not None  # written with the raster of regions
        shown = None if vectors is None else vectors_at(regions, vectors)
        return Sample(pixels, ids, shares, objects_at(regions, objects), shown)

    def _read(self, index: int, y: int, x: int, side: int) -> "_Square":
        """A square of a pair; what lies beyond the image or out of sight has no class."""
        pair, root, unlabelled = self._cells.pairs[index], self._cells.root, self._cells.unlabelled
        inside = np.s_[max(y, 0) : y + side, max(x, 0) : x + side]
        pixels, labels = pair.pixels(root)[inside], np.array(pair.labels(root)[inside])
        weights, regions = (
            None if array is None else array[inside]
            for array in (pair.weights(root), pair.regions(root))
        )
        if not self._cells.is_whole:
            rows = _cells_of(pair.height, self._cells.cell, y, labels.shape[0])
            columns = _cells_of(pair.width, self._cells.cell, x, labels.shape[1])
            labels[~self._cells.visible[index][rows[:, None], columns]] = unlabelled
        if labels.shape == (side, side):
            return _Square(pixels, labels, weights, regions)
        before = (max(-y, 0), max(-x, 0))
        around = [(b, side - n - b) for b, n in zip(before, labels.shape, strict=True)]
        # Mirrored, so that no dark frame is learnt; small images may need more than one mirror.
        pixels = np.pad(pixels, [*around, (0, 0)], mode="symmetric")
        labels = np.pad(labels, around, constant_values=unlabelled)
        weights = None if weights is None else np.pad(weights, around)
        regions = None if regions is None else np.pad(regions, around, constant_values=-1)
        return _Square(pixels, labels, weights, regions)


@dataclass(frozen=True)
class _Square:
    """Part of a pair."""

    pixels: np.ndarray  # (S, S, 3) uint8
    labels: np.ndarray  # (S, S) uint8 or uint16
    weights: np.ndarray | None  # (S, S) uint8
    regions: np.ndarray | None  # (S, S) int32

    def made(self, side: int) -> "_Square":
        """The same, ``side`` pixels wide and high."""
        if len(self.labels) == side:
            return self
        smaller = cv2.INTER_AREA if len(self.labels) > side else cv2.INTER_LINEAR
        pixels = cv2.resize(self.pixels, (side, side), interpolation=smaller)
        rest = (
            None if one is None else cv2.resize(one, (side, side), interpolation=cv2.INTER_NEAREST)
            for one in (self.labels, self.weights, self.regions)
        )
        labels, weights, regions = rest
        assert labels is not None
        return _Square(pixels, labels, weights, regions)


def objects_at(regions: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Objects (R,) of the regions with these numbers (S, S): (S, S) int64, -1 in none.

    Only those of the crop are looked up: a large scene has millions, mapped from a file.
    """
    found = np.full(regions.shape, -1, np.int64)
    found[regions >= 0] = objects[regions[regions >= 0]]
    return found


def vectors_at(regions: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors (R, D) of the regions on a grid of every STRIDE-th of their numbers (S, S).

    (S / STRIDE, S / STRIDE, D) float32, 0 in no region.
    """
    some = regions[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    found = np.zeros((*some.shape, vectors.shape[1]), np.float32)
    found[some >= 0] = vectors[some[some >= 0]]
    return found


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (S, S, …) flipped where ``orientation`` is odd, then turned by its half quarters."""
    if orientation & 1:
        image = image[:, ::-1]
    return np.rot90(image, orientation >> 1)


def recoloured(pixels: np.ndarray, most: float, random: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation changed by up to ``most``; (S, S, 3) uint8."""
    bright, contrast, saturation = random.uniform(-most, most, 3)
    pixels = np.ascontiguousarray(pixels)
    if most <= 0:
        return pixels
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    pixels = cv2.addWeighted(pixels, 1 + saturation, cv2.merge([grey] * 3), -saturation, 0)
    mean = float(grey.mean())
    levels = (np.arange(256) - mean) * (1 + contrast) + mean * (1 + bright)
    return cv2.LUT(pixels, levels.clip(0, 255).astype(np.uint8))


def _cell_box(pair: CachedPair, row: int, column: int, cell: int) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a cell in pixels."""
    rows, columns = edges(pair.height, cell), edges(pair.width, cell)
    return int(rows[row]), int(rows[row + 1]), int(columns[column]), int(columns[column + 1])


def _cells_of(length: int, cell: int, start: int, count: int) -> np.ndarray:
    """In which cell of an axis each of ``count`` pixels lies, (count,) int64."""
    pixels = np.arange(count) + max(start, 0)
    return np.searchsorted(edges(length, cell)[1:-1], pixels, "right")


def _start(centre: int, side: int, length: int) -> int:
    """Where a square around ``centre`` begins: inside the image, or centred on a smaller one."""
    if side >= length:
        return -((side - length) // 2)
    return int(min(max(centre - side // 2, 0), length - side))
