"""The tiles that the page shows, as pictures with their captions."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from alps.engine.base.errors import RunFolderError
from alps.engine.report import pictures
from alps.engine.report.run_facts import Classes, LabelClass
from alps.engine.report.segment_rows import SegmentRow
from alps.engine.report.sources import SourcePixels
from alps.engine.report.tile_rows import TileRow
from alps.engine.run_folder.folder import RunFolder

# Twelve tiles and 64 classes of four exemplars of 5 kB come to at most 5.6 MB as base64.
PHOTO_BYTES = 90_000
LABELS_BYTES = 60_000
CLASSES_NAMED = 6  # below a tile


@dataclass(frozen=True)
class TileCard:
    """A tile as image, masks and label map, each a data URI or None where it cannot be had."""

    row: TileRow
    width: int  # of the pictures
    height: int
    image: str | None
    masks: str | None
    labels: str | None
    classes: list[tuple[LabelClass, float]]  # the largest, with their share of the window
    unlabelled: float | None  # share of the window
    mark: str  # "highest coverage" or "lowest coverage" of the tiles shown, or empty


def draw_tile(
    folder: RunFolder,
    row: TileRow,
    segments: list[SegmentRow],
    classes: Classes,
    sources: SourcePixels,
    mark: str,
) -> TileCard:
    """Draw the three pictures of a tile at one scale."""
    size = pictures.shown_size(row.window)
    tile = sources.read(row)
    image = None if tile is None else pictures.image_picture(tile.rgb, tile.valid, size)
    numbers = _segment_map(folder, row, segments)
    masks = pictures.masks_picture(image, pictures.nearest(numbers, size))
    labels = _read_labels(folder, row)
    drawn: str | None = None
    largest: list[tuple[LabelClass, float]] = []
    unlabelled: float | None = None
    if labels is not None and classes.classes:
        seen = pictures.nearest(labels, size)
        pixels = pictures.labels_picture(seen, classes.colours(), classes.unlabelled)
        drawn = pictures.colours_uri(pixels, LABELS_BYTES)
        largest, unlabelled = _shares(labels, classes)
    return TileCard(
        row=row,
        width=size[0],
        height=size[1],
        image=None if image is None else pictures.photo_uri(image, PHOTO_BYTES),
        masks=pictures.photo_uri(masks, PHOTO_BYTES),
        labels=drawn,
        classes=largest,
        unlabelled=unlabelled,
        mark=mark,
    )


def mark_extremes(rows: list[TileRow]) -> dict[int, str]:
    """What to say of the best and the worst covered of several tiles, by tile id."""
    known = [row for row in rows if not math.isnan(row.coverage)]
    if len({row.coverage for row in known}) < 2:
        return {}
    best = max(known, key=lambda row: row.coverage)
    worst = min(known, key=lambda row: row.coverage)
    return {best.tile_id: "highest coverage", worst.tile_id: "lowest coverage"}


def _segment_map(folder: RunFolder, row: TileRow, segments: list[SegmentRow]) -> np.ndarray:
    try:
        return pictures.segment_map(segments, row.window)
    except ValueError as error:
        raise RunFolderError(
            f"{folder.root / 'segments'}: a mask of tile {row.tile_id} cannot be decoded: {error}. "
            "Delete its part file and run `alps label` again."
        ) from error


def _read_labels(folder: RunFolder, row: TileRow) -> np.ndarray | None:
    """Class ids of a tile's window, (H, W) uint8 or uint16; None where there is no label map."""
    path = folder.label(row.label) if row.label else None
    if path is None or not path.is_file():
        return None
    window = row.window
    try:
        with rasterio.open(path) as file:
            place = RasterWindow(window.x, window.y, window.width, window.height)
            labels = file.read(1, window=place)
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise _unreadable(path, str(error.__cause__ or error)) from error
    if labels.shape != (window.height, window.width):
        raise _unreadable(path, f"it does not reach to the end of {window}")
    return labels


def _unreadable(path: Path, reason: str) -> RunFolderError:
    return RunFolderError(
        f"The label map {path} cannot be read: {reason}. Delete it and run `alps paint` again."
    )


def _shares(labels: np.ndarray, classes: Classes) -> tuple[list[tuple[LabelClass, float]], float]:
    """The largest classes of a label map with their shares, and the share without class."""
    ids, counts = np.unique(labels, return_counts=True)
    shares = dict(zip(ids.tolist(), (counts / labels.size).tolist(), strict=True))
    known = [(c, shares[c.id]) for c in classes.classes if c.id in shares]
    known.sort(key=lambda pair: (-pair[1], pair[0].id))
    return known[:CLASSES_NAMED], shares.get(classes.unlabelled, 0.0)
