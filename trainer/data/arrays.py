"""Decoded pairs: arrays of pixels, class ids and weights that are mapped into memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from alps.engine.base.atomic import whole
from alps.engine.base.errors import SourceError

OPEN_ARRAYS = 512


@dataclass(frozen=True)
class CachedPair:
    """A decoded pair: arrays of its size, and where its labels lie."""

    name: str
    scene: str
    split: str
    source: str  # path of the image
    width: int
    height: int
    class_pixels: tuple[int, ...]
    labelled: tuple[tuple[int, ...], ...]  # pixels with a class in each cell, row by row
    stem: str  # of its files

    def pixels(self, root: Path) -> np.ndarray:
        """(H, W, 3) uint8, mapped."""
        return mapped(root / f"{self.stem}.pixels.npy")

    def labels(self, root: Path) -> np.ndarray:
        """(H, W) uint8 or uint16, mapped."""
        return mapped(root / f"{self.stem}.labels.npy")

    def weights(self, root: Path) -> np.ndarray | None:
        """(H, W) uint8, 255 for full weight, mapped; None where all pixels weigh alike."""
        path = root / f"{self.stem}.weights.npy"
        return mapped(path) if path.exists() else None


def edges(length: int, cell: int) -> np.ndarray:
    """Where the cells of an axis begin, and its end: evenly spread, about ``cell`` apart."""
    count = max(1, round(length / cell))
    return np.arange(count + 1) * length // count


@contextmanager
def new_array(path: Path, shape: tuple[int, ...], dtype: type) -> Iterator[np.ndarray]:
    """An array to be filled, which gets its name when all went well."""
    with whole(path) as part:
        array = open_memmap(part, "w+", dtype, shape)
        yield array
        array.flush()


@lru_cache(maxsize=OPEN_ARRAYS)
def mapped(path: Path) -> np.ndarray:
    """An array of a file, read only. Raises SourceError for a damaged one."""
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise SourceError(
            f"cannot map {path} ({error}); remove the folder {path.parent}, it is made anew"
        ) from error
