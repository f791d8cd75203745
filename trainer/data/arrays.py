"""Decoded pairs: arrays of pixels, class ids, weights and regions that are mapped into memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.lib.format import open_memmap

from alps.engine.base.atomic import whole
from alps.engine.base.digests import FileDigest
from alps.engine.base.errors import SourceError
from alps.engine.base.records import Count, Side

OPEN_ARRAYS = 512
KINDS = ("pixels", "labels", "weights", "regions", "objects", "vectors")  # of a pair's files
Stem = Annotated[str, Meta(pattern="^[0-9]{6,}$")]


@dataclass(frozen=True)
class CachedPair:
    """A decoded pair: arrays of its size, and where its labels lie."""

    name: str
    scene: str
    split: str
    source: str  # path of the image
    width: Side
    height: Side
    class_pixels: tuple[Count, ...]
    labelled: tuple[tuple[Count, ...], ...]  # pixels with a class in each cell, row by row
    stem: Stem  # of its files
    sums: dict[str, FileDigest] = field(default_factory=dict)  # of its files, by their kind

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

    def regions(self, root: Path) -> np.ndarray | None:
        """(H, W) int32, the number of each pixel's region, -1 in none, mapped; None: not kept."""
        return self._known("regions", root)

    def objects(self, root: Path) -> np.ndarray | None:
        """(R,) int32, the object of each region, -1 for none, mapped; None: not kept."""
        return self._known("objects", root)

    def vectors(self, root: Path) -> np.ndarray | None:
        """(R, D) float16, what stands for each region, mapped; None: not kept."""
        return self._known("vectors", root)

    def _known(self, kind: str, root: Path) -> np.ndarray | None:
        return mapped(root / f"{self.stem}.{kind}.npy") if kind in self.sums else None

    def refuse_damaged(self, root: Path) -> None:
        """Read all of its files once. Raises SourceError where one is not what was written."""
        for kind, known in self.sums.items():
            path = root / f"{self.stem}.{kind}.npy"
            try:
                if not known.is_of(path):
                    raise damaged(path, "it is not what was written")
            except OSError as error:
                raise damaged(path, error.strerror or str(error)) from error


def sums_of(root: Path, stem: str) -> dict[str, FileDigest]:
    """Of the files of a pair that are written."""
    paths = ((kind, root / f"{stem}.{kind}.npy") for kind in KINDS)
    return {kind: FileDigest.of(path) for kind, path in paths if path.exists()}


def damaged(path: Path, why: object) -> SourceError:
    """The error of a file of a cache."""
    return SourceError(
        f"{path} is damaged: {why}; remove the folder {path.parent}, it is made anew"
    )


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
        raise damaged(path, error) from error
