"""Align: paint each segment's class into a label map of its source's size.

A pixel belongs to the window whose core it lies in, since a window sees least at its edges; where
that window has no segment, a neighbour that overlaps there is asked. So windows leave no seam, and
no more than three rows of them are in memory.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from alps.engine.errors import RunFolderError, SourceError
from alps.engine.label_writer import (
    Georeference,
    LabelMapWriter,
    label_dtype,
    unlabelled_value,
)
from alps.engine.palette import palette
from alps.engine.plan import SHARD_TILES, PlannedTile, check_size, sources_of
from alps.engine.progress import Progress
from alps.engine.raster import RasterReader
from alps.engine.run_folder import RunFolder, read_table, write_text
from alps.engine.windows import Window, cores
from alps.kernels import paint as painting


class SegmentStore:
    """Segments of single tiles, out of the newest shards' tables."""

    COLUMNS: ClassVar[tuple[str, ...]] = ("tile_id", "area", "predicted_iou", "counts", "cluster")

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._tables: dict[int, pa.Table] = {}

    def of_tile(self, tile_id: int) -> pa.Table:
        """The segments of one tile."""
        shard = tile_id // SHARD_TILES
        if shard not in self._tables:
            if len(self._tables) > 3:  # tiles come in order; a row of windows may cross shards
                self._tables.pop(min(self._tables))
            self._tables[shard] = read_table(self._folder.segments(shard), list(self.COLUMNS))
        table = self._tables[shard]
        ids = table.column("tile_id").to_numpy()  # sorted: the shard was written in order
        start, end = np.searchsorted(ids, [tile_id, tile_id + 1])
        return table.slice(start, end - start)


def paint_archive(folder: RunFolder, clusters: int, fingerprint: str) -> dict[str, str]:
    """Paint every source that is not painted with these clusters yet, and write classes.json.

    Args:
        folder: a run folder whose segments carry clusters.
        clusters: K
        fingerprint: of all that decides the labels; a label map made under another is redone.

    Returns:
        Sources that have no label map although they could be opened when planned, with reasons.
    """
    plan = read_table(folder.plan)
    unpainted: dict[str, str] = {}
    done = _painted(folder, fingerprint)
    pixels = np.zeros(clusters + 1, dtype=np.int64)
    store = SegmentStore(folder)
    total = len(np.unique(plan.column("source_index").to_numpy()))
    with (
        Progress(total, "sources", "painting") as progress,
        open(folder.painted, "a", encoding="utf-8") as journal,
    ):
        for tiles in sources_of(plan):
            first = tiles[0]
            counted = done.get(first.source_index)
            if counted is None or not folder.label(first.label).exists():
                try:
                    counted = _paint_source(folder, tiles, store, clusters)
                except SourceError as error:  # it was readable when planned
                    print(f"{first.source}: no label map: {error}", file=sys.stderr)
                    unpainted[first.source] = str(error)
                    counted = []
                line = {"source_index": first.source_index, "of": fingerprint, "pixels": counted}
                journal.write(json.dumps(line) + "\n")
                journal.flush()
            if counted:
                pixels += np.array(counted)
            progress.advance(1)
    _write_classes(folder, pixels, clusters)
    return unpainted


def _painted(folder: RunFolder, fingerprint: str) -> dict[int, list[int]]:
    """Sources whose label maps are finished, with their pixels a class."""
    done: dict[int, list[int]] = {}
    if folder.painted.exists():
        for text in folder.painted.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # the last line of a killed run
                continue
            if line["of"] == fingerprint and line["pixels"]:
                done[line["source_index"]] = line["pixels"]
            else:  # painted anew since, with other clusters
                done.pop(line["source_index"], None)
    return done


def _paint_source(
    folder: RunFolder, tiles: list[PlannedTile], store: SegmentStore, clusters: int
) -> list[int]:
    """Write one label map; returns pixels a class, the unlabelled last. Empty: no label map.

    Raises SourceError where the source has changed its size, or its place is not to be found.
    """
    first = tiles[0]
    if first.reason:
        return []
    counts = np.zeros(clusters + 1, dtype=np.int64)
    path = folder.label(first.label)
    size = (first.source_width, first.source_height)
    place = _place_of(first, path)
    with LabelMapWriter(path, *size, palette(clusters), georeference=place) as writer:
        for y, strip in paint_strips(tiles, store, clusters):
            writer.write_rows(y, strip)
            found = np.bincount(strip.ravel(), minlength=unlabelled_value(clusters) + 1)
            counts[:clusters] += found[:clusters]
            counts[clusters] += found[unlabelled_value(clusters)]
    return counts.tolist()


def _place_of(first: PlannedTile, label: Path) -> Georeference:
    """Where a source lies, from itself or, on a disk that is not there now, its last label map."""
    try:
        with RasterReader(first.path) as reader:
            check_size(reader, first)
            return Georeference.of(reader)
    except SourceError:
        if Path(first.path).exists():  # another image by now
            label.unlink(missing_ok=True)
            raise
        if label.suffix == ".png":
            return Georeference()
        if not label.exists():
            raise
    with RasterReader(label) as old:
        return Georeference.of(old)


def paint_strips(
    tiles: list[PlannedTile], store: SegmentStore, clusters: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The label map of one source from top to bottom, as (y, labels (h, source width))."""
    windows = [tile.window for tile in tiles]
    owned = cores(windows)
    painted: dict[int, np.ndarray] = {}
    for top in sorted({core.y for core in owned}):
        row = [index for index, core in enumerate(owned) if core.y == top]
        height = owned[row[0]].height
        near = [
            index
            for index, window in enumerate(windows)
            if window.y < top + height and window.y + window.height > top
        ]
        painted = {i: labels for i, labels in painted.items() if i in near}
        for index in near:
            if index not in painted:
                painted[index] = _paint_window(tiles[index], store, clusters)
        strip = np.full(
            (height, tiles[0].source_width), unlabelled_value(clusters), label_dtype(clusters)
        )
        for index in row:
            core = owned[index]
            cell = strip[:, core.x : core.x + core.width]
            for other in [index, *(i for i in near if i != index)]:
                _fill(cell, core, painted[other], windows[other], unlabelled_value(clusters))
        yield top, strip


def _fill(cell: np.ndarray, core: Window, labels: np.ndarray, window: Window, empty: int) -> None:
    """Put a window's labels where a cell of the map is still empty."""
    left, right = max(core.x, window.x), min(core.x + core.width, window.x + window.width)
    top, bottom = max(core.y, window.y), min(core.y + core.height, window.y + window.height)
    if left >= right or top >= bottom:
        return
    target = cell[top - core.y : bottom - core.y, left - core.x : right - core.x]
    source = labels[top - window.y : bottom - window.y, left - window.x : right - window.x]
    np.copyto(target, source, where=target == empty)


def _paint_window(tile: PlannedTile, store: SegmentStore, clusters: int) -> np.ndarray:
    segments = store.of_tile(tile.tile_id)
    classes = segments.column("cluster").to_numpy()
    if len(classes) and not 0 <= classes.min() <= classes.max() < clusters:
        raise RunFolderError(
            f"tile {tile.tile_id} has segments of classes {classes.min()}…{classes.max()}, not of "
            f"{clusters} clusters; run: alps cluster OUT"
        )
    area, iou = (segments.column(name).to_numpy() for name in ("area", "predicted_iou"))
    return painting.paint(
        segments.column("counts").to_pylist(),
        classes.astype(label_dtype(clusters)),
        painting.paint_order(area, iou),
        (tile.height, tile.width),
        unlabelled_value(clusters),
    )


def _write_classes(folder: RunFolder, pixels: np.ndarray, clusters: int) -> None:
    segments = np.zeros(clusters, dtype=np.int64)
    for path in sorted((folder.root / "segments").glob("part-*.parquet")):
        found = read_table(path, ["cluster"]).column("cluster").to_numpy()
        segments += np.bincount(found, minlength=clusters)
    classes = [
        {
            "id": index,
            "name": f"cluster {index}",
            "colour": colour.tolist(),
            "pixels": int(pixels[index]),
            "segments": int(segments[index]),
        }
        for index, colour in enumerate(palette(clusters))
    ]
    content = {
        "classes": classes,
        "unlabelled": unlabelled_value(clusters),
        "unlabelled_pixels": int(pixels[clusters]),
    }
    write_text(folder.classes, json.dumps(content, indent=1) + "\n")
