"""Whole scenes beside SAM's masks and their label maps: how a scene was cut would show here."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from alps.engine.images.windows import Window
from alps.engine.labels.classes import Classes, LabelClass
from alps.engine.regions.windows import COLUMNS, SourceWindows
from alps.engine.report import pictures
from alps.engine.report.cards import labels_seen, read_labels
from alps.engine.report.rows.sources import MOST_SIDE, SourceRow
from alps.engine.report.sources import SourcePixels
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan, PlannedTile
from alps.engine.run_folder.segment_store import SegmentStore
from alps.engine.run_folder.tables import read_table

SCENE_SIDE = 900  # pixels embedded for a scene's longer side
STRIP_ROWS = 1024  # of a scene that are read at once
PHOTO_BYTES = 140_000
LABELS_BYTES = 100_000


@dataclass(frozen=True)
class SceneCard:
    """A scene as image, masks and label map, each a data URI or None where it cannot be had."""

    row: SourceRow
    shown: Window  # of the source
    windows: int  # it was segmented in
    objects: int | None  # masks of windows joined, in all of the scene
    width: int  # of the pictures
    height: int
    image: str | None
    masks: str | None
    labels: str | None
    classes: list[tuple[LabelClass, float]]  # the largest, with their share of what is shown
    unlabelled: float | None

    @property
    def is_part(self) -> bool:
        """Whether the scene is too large to be shown whole."""
        return (self.shown.width, self.shown.height) != (self.row.width, self.row.height)


def planned_tiles(folder: RunFolder, indices: list[int]) -> dict[int, list[PlannedTile]]:
    """The tiles of these sources, by source index, in their order."""
    found: dict[int, list[PlannedTile]] = {index: [] for index in indices}
    if indices and folder.plan.exists():
        plan = Plan.of(folder)
        found |= {index: plan.tiles_of_source(index) for index in indices}
    return found


def draw_scene(
    folder: RunFolder,
    row: SourceRow,
    tiles: list[PlannedTile],
    classes: Classes,
    sources: SourcePixels,
) -> SceneCard:
    """Draw the three pictures of a scene at one scale; memory is a strip and a row of windows."""
    shown = _middle(row)
    size = pictures.shown_size(shown, SCENE_SIDE)
    image = scene_image(row, shown, size, sources)
    numbers, objects = _masks(folder, tiles, shown, size)
    masks = None
    if numbers is not None:
        masks = pictures.photo_uri(pictures.masks_picture(image, numbers), PHOTO_BYTES)
    labels = read_labels(folder, row.label, shown, size)
    drawn, largest, unlabelled = labels_seen(labels, size, classes, LABELS_BYTES)
    return SceneCard(
        row=row,
        shown=shown,
        windows=len(tiles),
        objects=objects,
        width=size[0],
        height=size[1],
        image=None if image is None else pictures.photo_uri(image, PHOTO_BYTES),
        masks=masks,
        labels=drawn,
        classes=largest,
        unlabelled=unlabelled,
    )


def _middle(row: SourceRow) -> Window:
    """The whole of a scene, or the middle of a large one."""
    width, height = min(row.width, MOST_SIDE), min(row.height, MOST_SIDE)
    return Window((row.width - width) // 2, (row.height - height) // 2, width, height)


def scene_image(
    row: SourceRow, shown: Window, size: tuple[int, int], sources: SourcePixels
) -> np.ndarray | None:
    """A scene scaled strip by strip: RGB, or RGBA with pixels without data left out."""
    width, height = size
    step = max(1, STRIP_ROWS * height // shown.height)
    parts = []
    for top in range(0, height, step):
        bottom = min(top + step, height)
        first, last = (edge * shown.height // height for edge in (top, bottom))
        strip = replace(shown, y=shown.y + first, height=last - first)
        tile = sources.read(row, strip)
        if tile is None:
            return None
        small = cv2.resize(tile.rgb, (width, bottom - top), interpolation=cv2.INTER_AREA)
        valid = pictures.nearest(tile.valid, (width, bottom - top))
        parts.append(np.dstack([small, valid.astype(np.uint8) * 255]))
    whole = np.concatenate(parts)
    return whole[..., :3] if whole[..., 3].all() else whole


def _masks(
    folder: RunFolder, tiles: list[PlannedTile], shown: Window, size: tuple[int, int]
) -> tuple[np.ndarray | None, int | None]:
    """The object on top of each pixel of the picture, (h, w) int32, -1 none; and how many objects
    the scene has. None where segments were not kept.
    """
    plan = Plan.of(folder)
    shards = {plan.shard_of(tile.tile_id) for tile in tiles}
    if not tiles or not all(folder.segments(shard).exists() for shard in shards):
        return None, None
    source = SourceWindows(tiles, SegmentStore(folder, COLUMNS))
    last = source.windows[-1]  # of a grid in order: the lower right one
    if last.x + last.width < tiles[0].source_width or last.y + last.height < tiles[0].source_height:
        return None, None  # the plan is damaged; alps label and alps verify say so
    objects = _objects(folder, source)
    width, height = size
    x = shown.x + ((np.arange(width) + 0.5) * shown.width / width).astype(int)
    y = shown.y + ((np.arange(height) + 0.5) * shown.height / height).astype(int)
    owner = source.owner_of(x[None], y[:, None])
    numbers = np.full((height, width), -1, np.int32)
    for index in np.unique(owner).tolist():
        window = source.windows[index]
        v, u = np.nonzero(owner == index)
        top = source.top(index)[y[v] - window.y, x[u] - window.x]
        own = objects[source.first[index] : source.first[index + 1]]
        numbers[v, u] = np.append(own, np.int32(-1))[top]  # -1, none, is the last
    return numbers, int(objects.max(initial=-1)) + 1


def _objects(folder: RunFolder, source: SourceWindows) -> np.ndarray:
    """The object of each segment of a source, (S,) int32, -1 for what is no mask.

    Before a source is cut, each mask is one.
    """
    count = int(source.first[-1])
    path = folder.objects(Plan.of(folder).group_of(source.tiles))
    if path.exists():
        table = read_table(path)
        ids = table.column("tile_id").to_numpy()
        own = (ids >= source.tiles[0].tile_id) & (ids <= source.tiles[-1].tile_id)
        objects = table.column("object").to_numpy()[own]
        if len(objects) == count:
            return objects.astype(np.int32)
    is_mask = np.concatenate([source.is_mask(index) for index in range(len(source))])
    return np.where(is_mask, np.arange(count), -1).astype(np.int32)
