"""Align: paint each segment's class into a label map of its source's size.

A pixel belongs to the window whose core it lies in, since a window sees least at its edges; where
that window has no segment, a neighbour that overlaps there is asked. So windows leave no seam, and
no more than three rows of them are in memory.

A segment whose class is in doubt leaves its pixels unlabelled: it lies on top as any other, and
what is beneath does not show. The smaller segment is what a pixel most specifically is; to show
the larger one's class instead would call a doubtful boat water, a wrong label where none is asked
for, and training ignores unlabelled pixels. Neither is a neighbour asked: it sees less there.
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import RunFolderError, SourceError
from alps.engine.base.progress import Progress
from alps.engine.images.raster import RasterReader
from alps.engine.images.windows import Window, cores
from alps.engine.labels.journal import Counted, PaintedJournal
from alps.engine.labels.palette import palette
from alps.engine.labels.writer import (
    Georeference,
    LabelMapWriter,
    label_dtype,
    unlabelled_value,
)
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import (
    PlannedTile,
    check_size,
    shard_of,
    sources_of,
)
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import PaintSettings
from alps.kernels import paint as painting


class SegmentStore:
    """Segments of single tiles, out of the newest shards' tables."""

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "tile_id",
        "area",
        "predicted_iou",
        "counts",
        "cluster",
        "margin",
    )

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._tables: dict[int, pa.Table] = {}

    def of_tile(self, tile_id: int) -> pa.Table:
        """The segments of one tile."""
        shard = shard_of(tile_id)
        if shard not in self._tables:
            if len(self._tables) > 3:  # tiles come in order; a row of windows may cross shards
                self._tables.pop(min(self._tables))
            self._tables[shard] = read_table(self._folder.segments(shard), list(self.COLUMNS))
        table = self._tables[shard]
        ids = table.column("tile_id").to_numpy()  # sorted: the shard was written in order
        start, end = np.searchsorted(ids, [tile_id, tile_id + 1])
        return table.slice(start, end - start)


def paint_archive(
    folder: RunFolder, clusters: int, fingerprint: str, min_margin: float = 0.0
) -> dict[str, str]:
    """Paint every source that is not painted with these clusters yet, and write classes.json.

    Args:
        folder: a run folder whose segments carry clusters.
        clusters: K
        fingerprint: of all that decides the labels; a label map made under another is redone.
        min_margin: segments that are less sure of their class leave their pixels unlabelled.

    Returns:
        Sources that have no label map although they could be opened when planned, with reasons.
    """
    plan = read_table(folder.plan)
    total = len(np.unique(plan.column("source_index").to_numpy()))
    with (
        Progress(total, "sources", "painting") as progress,
        Painter(folder, clusters, fingerprint, min_margin) as painter,
    ):
        for tiles in sources_of(plan):
            if not painter.has(tiles[0]):
                painter.paint(tiles)
            progress.advance(1)
        painter.write_classes()
    return painter.unpainted


def paint_fingerprint(clusters: str, settings: PaintSettings) -> str:
    """Of all that decides label maps: the clusters' own, and how they are shown."""
    if settings == PaintSettings():
        return clusters
    return fingerprint(clusters, asdict(settings))


class Painter:
    """Paints sources, one whole label map at a time, and keeps a journal of them.

    Arguments as of ``paint_archive``. A context manager.
    """

    def __init__(
        self, folder: RunFolder, clusters: int, fingerprint: str, min_margin: float = 0.0
    ) -> None:
        self._folder, self._clusters, self._min_margin = folder, clusters, min_margin
        self._store = SegmentStore(folder)
        self._journal = PaintedJournal(folder, clusters, fingerprint)
        self.unpainted: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._journal.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._journal.__exit__(*exc_info)

    def has(self, tile: PlannedTile) -> bool:
        """Whether the source of a tile has its label map."""
        return tile.source_index in self._journal.done and self._folder.label(tile.label).exists()

    def refused(self, tile: PlannedTile) -> str:
        """Why the source of a tile could be opened but not painted; empty where that is not so."""
        return self._journal.refused.get(tile.source_index, "")

    def paint(self, tiles: list[PlannedTile]) -> None:
        """Paint a source, given all of its tiles; note in ``unpainted`` why that cannot be."""
        first, reason = tiles[0], ""
        counted = Counted.of(self._clusters)
        if not first.reason:
            try:
                counted = _paint_source(
                    self._folder, tiles, self._store, self._clusters, self._min_margin
                )
            except SourceError as error:  # it was readable when planned
                print(f"{first.source}: no label map: {error}", file=sys.stderr)
                self.unpainted[first.source] = reason = str(error)
        self._journal.add(first.source_index, counted, reason)

    def write_classes(self) -> None:
        """Write classes.json, of all label maps there are."""
        self._journal.write_classes()


def _paint_source(
    folder: RunFolder,
    tiles: list[PlannedTile],
    store: SegmentStore,
    clusters: int,
    min_margin: float,
) -> Counted:
    """Write one label map; returns what it shows.

    Raises SourceError where the source has changed its size, or its place is not to be found.
    """
    first = tiles[0]
    counted = Counted.of(clusters)
    path = folder.label(first.label)
    size = (first.source_width, first.source_height)
    place = _place_of(first, path)
    empty = unlabelled_value(clusters)
    with LabelMapWriter(path, *size, palette(clusters), georeference=place) as writer:
        for y, strip in paint_strips(tiles, store, clusters, min_margin, counted.segments):
            writer.write_rows(y, strip)
            found = np.bincount(strip.ravel(), minlength=empty + 1)
            counted.pixels[:clusters] += found[:clusters]
            counted.pixels[clusters] += found[empty]
    return counted


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
    tiles: list[PlannedTile],
    store: SegmentStore,
    clusters: int,
    min_margin: float = 0.0,
    counted: np.ndarray | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """The label map of one source from top to bottom, as (y, labels (h, source width)).

    counted: (K,) to which the number of segments of each class is added.
    """
    windows = [tile.window for tile in tiles]
    owned = cores(windows)
    painted: dict[int, np.ndarray] = {}
    empty = unlabelled_value(clusters)
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
                segments = store.of_tile(tiles[index].tile_id)
                if counted is not None:
                    counted += _classes(segments, tiles[index], clusters)
                painted[index] = _paint_window(tiles[index], segments, clusters, min_margin)
        shape = height, tiles[0].source_width
        strip = np.full(shape, _nothing(clusters), _inner_dtype(clusters))
        for index in row:
            core = owned[index]
            cell = strip[:, core.x : core.x + core.width]
            for other in [index, *(i for i in near if i != index)]:
                _fill(cell, core, painted[other], windows[other], _nothing(clusters))
        strip[strip >= clusters] = empty
        yield top, strip.astype(label_dtype(clusters), copy=False)


def _inner_dtype(clusters: int) -> np.dtype:
    """While windows are put together two values more than classes are told apart."""
    return np.min_scalar_type(max(_nothing(clusters), unlabelled_value(clusters)))


def _doubtful(clusters: int) -> int:
    return clusters


def _nothing(clusters: int) -> int:
    return clusters + 1


def _fill(cell: np.ndarray, core: Window, labels: np.ndarray, window: Window, empty: int) -> None:
    """Put a window's labels where a cell of the map is still empty."""
    left, right = max(core.x, window.x), min(core.x + core.width, window.x + window.width)
    top, bottom = max(core.y, window.y), min(core.y + core.height, window.y + window.height)
    if left >= right or top >= bottom:
        return
    target = cell[top - core.y : bottom - core.y, left - core.x : right - core.x]
    source = labels[top - window.y : bottom - window.y, left - window.x : right - window.x]
    np.copyto(target, source, where=target == empty)


def _classes(segments: pa.Table, tile: PlannedTile, clusters: int) -> np.ndarray:
    """Segments a class, (K,). Raises RunFolderError for classes that are none of these."""
    classes = segments.column("cluster").to_numpy()
    if len(classes) and not 0 <= classes.min() <= classes.max() < clusters:
        raise RunFolderError(
            f"tile {tile.tile_id} has segments of classes {classes.min()}…{classes.max()}, not of "
            f"{clusters} clusters; run: alps cluster OUT"
        )
    return np.bincount(classes, minlength=clusters)


def _paint_window(
    tile: PlannedTile, segments: pa.Table, clusters: int, min_margin: float
) -> np.ndarray:
    _classes(segments, tile, clusters)
    classes = segments.column("cluster").to_numpy().astype(_inner_dtype(clusters))
    if min_margin > 0:
        classes[segments.column("margin").to_numpy() < min_margin] = _doubtful(clusters)
    area, iou = (segments.column(name).to_numpy() for name in ("area", "predicted_iou"))
    return painting.paint(
        segments.column("counts").to_pylist(),
        classes,
        painting.paint_order(area, iou),
        (tile.height, tile.width),
        _nothing(clusters),
    )
