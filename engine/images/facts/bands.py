"""Which bands of a file are read as red, green and blue, and why."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from alps.engine.base.errors import SourceError
from alps.engine.images.facts.description import Doubt

COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@dataclass(frozen=True)
class BandChoice:
    """Bands counted from 1: one (grey) or three, and what decided."""

    bands: tuple[int, ...]
    why: str
    doubts: tuple[Doubt, ...] = ()


def choose_bands(
    path: str | Path,
    dataset: DatasetReader,
    asked: tuple[int, ...] | None,
    said: tuple[str, ...] = (),
) -> BandChoice:
    """Bands that were asked for, else the file's own. Raises SourceError for those it lacks.

    said: the bands' names by a catalogue, where the file has none.
    """
    if asked is not None:
        _check_bands(path, asked, dataset.count)
        return BandChoice(tuple(asked), "--bands")
    meanings = dataset.colorinterp
    if meanings[0] is ColorInterp.palette:
        return BandChoice((1,), "palette")  # an animated GIF has a palette band a frame
    by_meaning = None
    if all(meanings.count(colour) == 1 for colour in COLOURS):
        by_meaning = tuple(meanings.index(colour) + 1 for colour in COLOURS)
    by_name, why = bands_by_name(dataset.descriptions), "descriptions"
    if by_name is None and len(said) <= dataset.count:
        by_name, why = bands_by_name(said), "its item"
    # Writers call the first three bands of bytes red, green and blue unasked; names are given.
    if by_name is not None and by_name != by_meaning:
        other = "" if by_meaning is None else f", not {listed(by_meaning)} as its colours say"
        text = f"bands {listed(by_name)} are described as red, green, blue{other}"
        return BandChoice(by_name, why, (Doubt("bands", text),) if other else ())
    if by_meaning is not None:
        return BandChoice(by_meaning, "colour interpretation")
    opaque = [i + 1 for i, meaning in enumerate(meanings) if meaning is not ColorInterp.alpha]
    if len(opaque) > 3:
        doubt = (
            f"nothing says which of its {dataset.count} bands are red, green, blue; "
            f"{listed(opaque[:3])} are taken: give --bands where they are others"
        )
        return BandChoice(tuple(opaque[:3]), "the first three", (Doubt("bands", doubt),))
    if len(opaque) == 3:
        return BandChoice(tuple(opaque), "its three bands")
    # A file of nothing but alpha is a picture of that alpha.
    return BandChoice(tuple(opaque[:1] or [1]), "the first, as grey")


def bands_by_name(descriptions: tuple[str | None, ...]) -> tuple[int, ...] | None:
    """Bands whose descriptions name red, green and blue, each once; None where they do not."""
    words = [re.sub(r"[^a-z]+", " ", (text or "").lower()).strip() for text in descriptions]
    found = []
    for colour in ("red", "green", "blue"):
        # "red edge" is another band, and so is what lies beyond: "near infra red".
        pattern = rf"(?<!infra )\b{colour}\b(?! edge)"
        bands = [i + 1 for i, text in enumerate(words) if re.search(pattern, text)]
        if len(bands) != 1:
            return None
        found += bands
    return tuple(found) if len(set(found)) == 3 else None


def _check_bands(path: str | Path, bands: tuple[int, ...], count: int) -> None:
    if len(bands) not in (1, 3):
        raise SourceError(
            f"{path}: --bands {listed(bands)} selects {len(bands)} bands. Select 1 (grey) or 3."
        )
    if not all(1 <= band <= count for band in bands):
        raise SourceError(
            f"{path}: --bands {listed(bands)} does not fit: the file has {count} "
            f"band{'s' if count > 1 else ''}, counted from 1."
        )


def listed(bands: tuple[int, ...] | list[int]) -> str:
    """``4,3,2``."""
    return ",".join(str(band) for band in bands)


def colour_table(colours: dict[int, tuple[int, ...]], dtype: np.dtype) -> np.ndarray:
    """Return (256 or 65536, 4) uint8 RGBA, indexed by pixel; colours that are missing: black."""
    table = np.zeros((np.iinfo(dtype).max + 1, 4), np.uint8)
    table[:, 3] = 255
    for index, rgba in colours.items():
        if index < len(table):
            table[index] = rgba
    return table
