"""The tiles that the page shows, as pictures with their captions."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from alps.engine.base.errors import RunFolderError, SourceError
from alps.engine.images.gdal import open_dataset
from alps.engine.images.windows import Window
from alps.engine.labels.classes import Classes, LabelClass
from alps.engine.report import pictures
from alps.engine.report.rows.masks import MaskRow
from alps.engine.report.rows.tiles import TileRow
from alps.engine.report.sources import SourcePixels
from alps.engine.run_folder.folder import RunFolder

# Twelve tiles, or six and four scenes, and 64 classes of four exemplars of 5 kB come to at most
# 5.7 MB as base64.
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
    mark: str  # "most under masks" or "least under masks" of the tiles shown, or empty


def draw_tile(
    folder: RunFolder,
    row: TileRow,
    masks: list[MaskRow] | None,
    classes: Classes,
    sources: SourcePixels,
    mark: str,
) -> TileCard:
    """Draw the three pictures of a tile at one scale; ``masks``: None where they were not kept."""
    size = pictures.shown_size(row.window)
    tile = sources.read(row, row.window)
    image = None if tile is None else pictures.image_picture(tile.rgb, tile.valid, size)
    over = None
    if masks is not None:
        numbers = pictures.nearest(_mask_map(folder, row, masks), size)
        over = pictures.photo_uri(pictures.masks_picture(image, numbers), PHOTO_BYTES)
    labels = read_labels(folder, row.label, row.window)
    drawn, largest, unlabelled = labels_seen(labels, size, classes, LABELS_BYTES)
    return TileCard(
        row=row,
        width=size[0],
        height=size[1],
        image=None if image is None else pictures.photo_uri(image, PHOTO_BYTES),
        masks=over,
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
    return {best.tile_id: "most under masks", worst.tile_id: "least under masks"}


def read_labels(
    folder: RunFolder, label: str | None, window: Window, size: tuple[int, int] | None = None
) -> np.ndarray | None:
    """Class ids of a window of a source, (H, W) uint8 or uint16; None where it has no label map.

    size: (width, height) to pick so many pixels only, evenly.
    """
    path = folder.label(label) if label else None
    if path is None or not path.is_file():
        return None
    shape = (window.height, window.width) if size is None else (size[1], size[0])
    place = RasterWindow(window.x, window.y, window.width, window.height)
    try:
        with open_dataset(path) as file:
            if (
                place.col_off + place.width > file.width
                or place.row_off + place.height > file.height
            ):
                raise _unreadable(path, f"it does not reach to the end of {window}")
            return file.read(1, window=place, out_shape=shape, resampling=Resampling.nearest)
    except (SourceError, RasterioError, CPLE_BaseError, OSError) as error:
        raise _unreadable(path, str(error.__cause__ or error)) from error


def labels_seen(
    labels: np.ndarray | None, size: tuple[int, int], classes: Classes, most_bytes: int
) -> tuple[str | None, list[tuple[LabelClass, float]], float | None]:
    """A label map's picture of ``size`` (width, height), and ``class_shares``, for a card.

    Nothing where there is no label map, or no class that it could show.
    """
    if labels is None or not classes.classes:
        return None, [], None
    pixels = pictures.labels_picture(
        pictures.nearest(labels, size), classes.colours(), classes.unlabelled
    )
    return pictures.colours_uri(pixels, most_bytes), *class_shares(labels, classes)


def class_shares(
    labels: np.ndarray, classes: Classes
) -> tuple[list[tuple[LabelClass, float]], float]:
    """The largest classes of a label map with their shares, and the share without class."""
    ids, counts = np.unique(labels, return_counts=True)
    shares = dict(zip(ids.tolist(), (counts / labels.size).tolist(), strict=True))
    known = [(c, shares[c.id]) for c in classes.classes if c.id in shares]
    known.sort(key=lambda pair: (-pair[1], pair[0].id))
    return known[:CLASSES_NAMED], shares.get(classes.unlabelled, 0.0)


def _mask_map(folder: RunFolder, row: TileRow, masks: list[MaskRow]) -> np.ndarray:
    try:
        return pictures.mask_map(masks, row.window)
    except ValueError as error:
        raise RunFolderError(
            f"{folder.root / 'segments'}: a mask of tile {row.tile_id} cannot be decoded: {error}. "
            "Delete its part file and run `alps label` again."
        ) from error


def _unreadable(path: Path, reason: str) -> RunFolderError:
    return RunFolderError(
        f"The label map {path} cannot be read: {reason}. Delete it and run `alps paint` again."
    )
