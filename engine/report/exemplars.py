"""Chooses and draws the regions that stand for each class."""

from dataclasses import dataclass

import cv2
import numpy as np

from alps.engine.images.windows import Window
from alps.engine.regions.raster import open_regions
from alps.engine.report import pictures
from alps.engine.report.cards import read_labels
from alps.engine.report.rows.regions import Candidates, RegionRow
from alps.engine.report.rows.sources import SourceRow
from alps.engine.report.sources import SourcePixels
from alps.engine.run_folder.folder import RunFolder

CLEAREST = 2  # of a class's exemplars; the others are drawn by lot
THUMBNAIL_BYTES = 5_000


@dataclass(frozen=True)
class Exemplar:
    """A region cut out of its source with its surroundings."""

    uri: str
    width: int
    height: int
    source: str
    x: int  # the middle of the region, in pixels of the source
    y: int
    area: int  # of the region
    gone: bool  # the source cannot be read, so only the outline is shown


def pick_exemplars(candidates: Candidates, each: int) -> list[RegionRow]:
    """Up to ``each`` regions: the CLEAREST first, then drawn ones, nothing of them twice."""
    chosen: list[RegionRow] = []
    for found, most in (
        (candidates.clearest, CLEAREST),
        (candidates.drawn, each),
        (candidates.clearest, each),
    ):
        for region in found:
            if len(chosen) >= most:
                break
            if not any(_same(region, other) for other in chosen):
                chosen.append(region)
    return chosen


def draw_exemplars(
    folder: RunFolder,
    regions: dict[int, list[RegionRow]],
    rows: dict[int, SourceRow],
    sources: SourcePixels,
) -> dict[int, list[Exemplar]]:
    """Draw the exemplars of each class; every source is opened once, whatever class it is for."""
    places = [
        (rows[region.source_index], class_id, number)
        for class_id, found in regions.items()
        for number, region in enumerate(found)
        if region.source_index in rows
    ]
    # From top to bottom: what is compressed row by row is decoded once.
    places.sort(key=lambda p: (p[0].source_index, regions[p[1]][p[2]].y, p[1:]))
    pixels, gone = [], []
    for row, class_id, number in places:
        region = regions[class_id][number]
        crop = pictures.exemplar_window(region, row.width, row.height)
        tile = sources.read(row, crop)
        inside = _patch(folder, row, region, crop, class_id)
        pixels.append(pictures.exemplar_picture(None if tile is None else tile.rgb, inside))
        gone.append(tile is None)
    uris = pictures.photo_uris(pixels, THUMBNAIL_BYTES)
    drawn: dict[tuple[int, int], Exemplar] = {}
    for (row, class_id, number), picture, uri, is_gone in zip(
        places, pixels, uris, gone, strict=True
    ):
        region = regions[class_id][number]
        drawn[class_id, number] = Exemplar(
            uri=uri,
            width=picture.shape[1],
            height=picture.shape[0],
            source=row.source,
            x=region.x + region.width // 2,
            y=region.y + region.height // 2,
            area=region.area,
            gone=is_gone,
        )
    return {
        class_id: [drawn[key] for n in range(len(found)) if (key := (class_id, n)) in drawn]
        for class_id, found in regions.items()
    }


def _patch(
    folder: RunFolder, row: SourceRow, region: RegionRow, crop: Window, class_id: int
) -> np.ndarray:
    """What of ``crop`` hangs together with a region in its class, (H, W) bool: of the label map.

    The region alone where there is no label map, or where that shows it in another class because
    it was in doubt or too small.
    """
    with open_regions(folder.region_raster(row.label or "")) as raster:
        own = raster.read(crop.x, crop.y, crop.width, crop.height) == region.number
    labels = read_labels(folder, row.label, crop)
    if labels is None or not (labels[own] == class_id).any():
        return own
    return patch_around(own, labels == class_id)


def patch_around(own: np.ndarray, same: np.ndarray) -> np.ndarray:
    """What of ``same`` hangs together with ``own``, both (H, W) bool."""
    _, patches = cv2.connectedComponents(same.astype(np.uint8), connectivity=4)
    return np.isin(patches, np.unique(patches[own & same]))


def _same(one: RegionRow, other: RegionRow) -> bool:
    """Whether two regions are of one thing, or so near that each is in the other's picture."""
    if one.source_index != other.source_index:
        return False
    if one.object == other.object >= 0:
        return True
    far = pictures.LEAST_CROP // 2
    return abs(one.x - other.x) < far and abs(one.y - other.y) < far
