"""Run folders put together by hand, for the stages after segmenting, and after cutting."""

from unittest import mock

import numpy as np
import pyarrow as pa
from PIL import Image

from alps.engine.clusters.fit import ClusterModel
from alps.engine.labels.paint import paint_archive
from alps.engine.regions.cut import CutBlock
from alps.engine.regions.packing import NOWHERE
from alps.engine.regions.raster import open_regions
from alps.engine.regions.windows import COLUMNS, SourceWindows
from alps.engine.run_folder import plan as planning
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.schemas import CLASS_SCHEMA, COLOUR_VALUES, PLAN_SCHEMA, segment_schema
from alps.engine.run_folder.segment_store import SegmentStore
from alps.engine.run_folder.tables import read_table, write_table
from alps.engine.settings import PaintSettings
from alps.engine.stages.regions import CutSettings, cut_archive, forget_regions
from alps.kernels.masks import coco
from alps.kernels.regions import pieces

NO_MASK = -1
GREY = 128  # of sources that a test does not save
ONE_BLOCK = 100  # superpixels a megapixel: sources of up to 6,400 pixels are cut in one block


def make_run(root, windows, segments, channels=4):
    """A folder with one source, ``a.png``; arguments as of ``make_archive``."""
    return make_archive(root, {"a.png": (windows, segments)}, channels)


def make_archive(root, sources, channels=4):
    """A folder whose segments and regions are made from masks, as if segmented and cut.

    sources: by name the windows of a whole grid, in order, and for each window a list of
    dictionaries with columns of the segment table; the rest is 0. ``mask`` (H, W) bool gives
    counts and, where none is given, area. Segments without a mask share their window's pixels
    in order, so that each is a region. ``cell``: True for what lies under no mask.

    A region is what can be seen of a segment in the core of its window, and hangs together where
    masks are given; where the window that owns the ground has no segment there is no region. Where
    segments have a ``cluster``, and perhaps a ``margin``, regions get it.

    A source that is not there is written in plain grey.
    """
    folder = RunFolder(root)
    (root / "journal").mkdir(parents=True)
    (root / "segments").mkdir()
    rows = [
        row
        for index, (name, (windows, _)) in enumerate(sources.items())
        for row in _planned(root, index, name, windows)
    ]
    rows = [{"tile_id": tile_id} | row for tile_id, row in enumerate(rows)]
    write_table(pa.Table.from_pylist(rows, schema=PLAN_SCHEMA), folder.plan)
    given = [own for _, segments in sources.values() for own in segments]
    for start in range(0, len(rows), planning.SHARD_TILES):
        tiles = rows[start : start + planning.SHARD_TILES]
        table = [
            row for tile in tiles for row in _segment_rows(tile, given[tile["tile_id"]], channels)
        ]
        table = pa.Table.from_pylist(table, schema=segment_schema(channels))
        write_table(table, folder.segments(start // planning.SHARD_TILES))
    cut_by_segments(folder, split=all("mask" in segment for own in given for segment in own))
    if any("cluster" in segment for own in given for segment in own):
        _class_by_segments(folder, given)
    return folder


def cut_by_segments(folder, split=True):
    """Cut a run's sources anew, along what can be seen of their segments; ``split``: what does not
    hang together is several regions.
    """
    store = SegmentStore(folder, COLUMNS)
    seen = [_seen(tiles, store) for tiles in Plan.of(folder).sources()]
    cut_as(folder, [pieces(top)[0] if split else top for top in seen])


def cut_as(folder, numbers, clusters=None, margins=None):
    """Cut a run's sources anew, into given regions.

    numbers: of each source (H, W) int, the region of each pixel, -1 in none. Regions are numbered
    anew in the order of their first pixels. clusters, margins: of each source (R,), by the numbers
    that were given.
    """
    forget_regions(folder)
    for tiles in Plan.of(folder).sources():
        first = tiles[0]
        if not first.reason and not (folder.root / first.source).exists():
            grey = np.full((first.source_height, first.source_width, 3), GREY, np.uint8)
            Image.fromarray(grey).save(first.path)

    def cut(block, lab, valid, source, per_megapixel, on_gpu):
        own = np.asarray(numbers[source.tiles[0].source_index])
        return _cut_block(own, source)

    with mock.patch("alps.engine.regions.build.cut_block", cut):
        cut_archive(folder, CutSettings(None, ONE_BLOCK))
    if clusters is not None:

        def given(tiles, table):
            index = tiles[0].source_index
            own = _given_numbers(folder, tiles, numbers[index])
            margin = np.zeros(len(own)) if margins is None else np.asarray(margins[index])[own]
            return np.asarray(clusters[index])[own], margin

        class_regions(folder, given)


def class_regions(folder, of_source):
    """Give regions their classes; ``of_source(tiles, table of regions)`` says clusters, margins."""
    for group in Plan.of(folder).groups():
        table = read_table(folder.regions(group.number))
        index = table.column("source_index").to_numpy()
        parts = [
            of_source(tiles, table.filter(pa.array(index == tiles[0].source_index)))
            for tiles in group.sources
            if (index == tiles[0].source_index).any()
        ]
        clusters = np.concatenate([np.zeros(0, int), *(part[0] for part in parts)])
        margins = np.concatenate([np.zeros(0), *(part[1] for part in parts)])
        path = folder.region_classes(group.number)
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {"cluster": clusters.astype(np.int32), "margin": margins.astype(np.float32)}
        write_table(pa.table(columns, schema=CLASS_SCHEMA), path)


def paint_run(folder, clusters, fingerprint="now", **settings):
    """Paint a run's regions as they are classed, every one of them where nothing else is said."""
    model = ClusterModel(np.zeros((clusters, 1), np.float32), np.zeros(clusters, int), 0.0, 0)
    plain = {"min_patch": "0", "agreement": 0.0}
    return paint_archive(folder, model, fingerprint, PaintSettings(**(plain | settings)))


def _planned(root, index, name, windows):
    size = {
        "source_width": max(window.x + window.width for window in windows),
        "source_height": max(window.y + window.height for window in windows),
    }
    return [
        {"source_index": index, "source": name, "path": str(root / name), "label": name,
         "reason": "", **size, **vars(window)}
        for window in windows
    ]  # fmt: skip


def _segment_rows(tile, segments, channels):
    """Rows of the segment table of one tile."""
    nothing = {name: 0 for name in segment_schema(channels).names}
    nothing |= {"embedding": [0] * channels, "colour": [0] * COLOUR_VALUES}
    shape = (tile["height"], tile["width"])
    rows = []
    for index, segment in enumerate(segments):
        mask = segment["mask"] if "mask" in segment else _chunk(shape, index, len(segments))
        row = nothing | {"tile_id": tile["tile_id"], "segment_id": index}
        row |= {"counts": coco.encode_mask(mask), "area": int(mask.sum())}
        row["mask"] = NO_MASK if segment.get("cell") else index
        own = ("mask", "cell", "cluster", "margin")
        rows.append(row | {k: v for k, v in segment.items() if k not in own})
    return rows


def _chunk(shape, index, count):
    """The ``index``-th of ``count`` parts of a window's pixels, in order."""
    pixels = np.arange(shape[0] * shape[1]).reshape(shape)
    return pixels * count // pixels.size == index


def _seen(tiles, store):
    """The segment of a source that one sees: (H, W) int, -1 where the owner has none."""
    source = SourceWindows(tiles, store)
    top = np.full((tiles[0].source_height, tiles[0].source_width), -1)
    y, x = np.indices(top.shape)
    owner = source.owner_of(x.ravel(), y.ravel()).reshape(top.shape)
    for index, window in enumerate(source.windows):
        own = source.top(index)
        mine = owner == index
        seen = own[y[mine] - window.y, x[mine] - window.x]
        top[mine] = np.where(seen < 0, -1, seen + source.first[index])
    return top


def _cut_block(numbers, source):
    """Given regions as the cut of a source of one block."""
    known, first, regions = np.unique(numbers, return_index=True, return_inverse=True)
    lowest = int(known[0] < 0)
    regions = regions.reshape(numbers.shape).astype(np.int32) - lowest
    y, x = np.divmod(first[lowest:], numbers.shape[1])
    owner = source.owner_of(x, y)
    segment = np.full(len(owner), -1, np.int64)
    for place, index in enumerate(owner):
        window = source.windows[index]
        own = source.top(int(index))[y[place] - window.y, x[place] - window.x]
        segment[place] = own + source.first[index] if own >= 0 else -1
    return CutBlock(regions, np.stack([y, x], axis=1).astype(np.int64), segment)


def _given_numbers(folder, tiles, numbers):
    """Of each region of a source, by its row, the number that it was given."""
    with open_regions(folder.region_raster(tiles[0].label)) as raster:
        found = raster.read(0, 0, *raster.size)
    known, first = np.unique(found, return_index=True)
    return np.asarray(numbers).ravel()[first[known != NOWHERE]]


def _class_by_segments(folder, segments):
    """Regions get what the segments on top of them say."""

    def of_source(tiles, table):
        tile_ids = table.column("tile_id").to_pylist()
        own = [
            segments[tile][segment]
            for tile, segment in zip(tile_ids, table.column("segment_id").to_pylist(), strict=True)
        ]
        return (
            np.array([segment["cluster"] for segment in own], int),
            np.array([segment.get("margin", 0) for segment in own], float),
        )

    class_regions(folder, of_source)
