"""The regions of one scene: their tables, who touches whom, and the raster of their numbers.

Blocks are cut by whoever has the time, and put together in their order; what is known of a row of
them is written before the next begins. So memory is the blocks that are being cut, with what
surrounds them, and some numbers for each region of a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from alps.engine.base.errors import SourceError
from alps.engine.images.raster import Tile
from alps.engine.images.windows import Window
from alps.engine.regions.cut import Block, CutBlock, block_rows, cut_block
from alps.engine.regions.packing import PackedRaster, Piece
from alps.engine.regions.windows import SourceWindows
from alps.engine.run_folder.region_schemas import BORDER_SCHEMA, REGION_SCHEMA
from alps.kernels.base.heap import return_freed_memory
from alps.kernels.colour import lab_of
from alps.kernels.regions import borders, boxes, moments, overlaps, window_weights
from alps.kernels.regions.rules import CONTRAST_UNITS

# Blocks of a scene after which freed memory is handed back: what is kept of a row of blocks lies
# between what their threads have freed, which fits the next block the less the longer the row.
RETURNED_AFTER = 16


class Pixels(Protocol):
    """What blocks of a scene are read from: an open image, or a part of one."""

    @property
    def width(self) -> int:
        """Of the scene."""
        ...

    def read(self, box: Window, /) -> Tile:
        """A window of the scene. Raises SourceError."""
        ...


@dataclass(frozen=True)
class RegionRows:
    """What a row of blocks adds to a scene."""

    raster: Iterator[Piece]  # of tiles known by now; read before the next row is asked for
    regions: pa.Table
    borders: pa.Table


@dataclass(frozen=True)
class _Found:
    """Regions that begin in a block, by the place of their first pixel in the scene."""

    keys: np.ndarray  # (N,) int64, ascending
    columns: dict[str, np.ndarray]  # of REGION_SCHEMA, (N, …)
    segment: np.ndarray  # (E,) int64 of the scene's
    share: np.ndarray  # (E,) float32
    ends: np.ndarray  # (N,) int64, where each region's entries of the last two end


@dataclass(frozen=True)
class MeasuredBlock:
    """What the tables and the raster of a scene need of a block."""

    core: np.ndarray  # (h, w) int32, the regions of its core, -1 none
    first: np.ndarray  # (N,) int64 place in the scene of each region's first pixel
    found: _Found
    touching: np.ndarray  # as ``_measure`` gives it


def measured_block(
    block: Block,
    reader: Pixels,
    source: SourceWindows,
    per_megapixel: float,
    on_gpu: bool = False,
) -> MeasuredBlock:
    """Cut a block of a scene; several may be cut at once, where ``reader`` allows that.

    Args:
        block: where.
        reader: of the scene.
        source: its windows and their segments.
        per_megapixel: superpixels a million pixels.
        on_gpu: cut there as far as kernels can, into the same regions.
    """
    rgb, valid = _read(reader, block.padded, source)
    lab = lab_of(rgb)
    cut = cut_block(block, lab, valid, source, per_megapixel, on_gpu)
    width = reader.width
    first = cut.first[:, 0] * width + cut.first[:, 1]
    return MeasuredBlock(_core_of(block, cut), first, *_measure(block, cut, lab, source, width))


def build_regions(
    blocks: Iterator[MeasuredBlock],
    size: tuple[int, int],
    source: SourceWindows,
    objects: np.ndarray,
    per_megapixel: float,
) -> Iterator[RegionRows]:
    """Put a scene's regions together, from top to bottom.

    Args:
        blocks: in the order of ``block_rows``.
        size: width and height of the scene.
        source: its windows and their segments.
        objects: (S,) of ``join_masks``.
        per_megapixel: superpixels a million pixels.
    """
    width, height = size
    numbering = _Numbering(width)
    index = source.tiles[0].source_index
    raster = PackedRaster(size)
    since = 0  # blocks
    for row in block_rows(width, height, per_megapixel):
        found, touching = [], []
        for block in row:
            one = next(blocks)
            raster.add(block.core, one.core, one.first)
            found.append(one.found)
            touching.append(one.touching)
            del one
        numbers = numbering.number(np.concatenate([own.keys for own in found]))
        bottom = row[0].core.y + row[0].core.height
        regions = _region_table(found, numbers, index, source, objects)
        del found  # of a wide scene they are many
        borders_of_row = numbering.border_table(touching, index, last=bottom == height)
        del touching, numbers
        yield RegionRows(raster.tiles(numbering.of), regions, borders_of_row)
        del regions, borders_of_row
        since += len(row)
        if since >= RETURNED_AFTER:
            return_freed_memory()
            since = 0


def _read(reader: Pixels, box: Window, source: SourceWindows) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a block; where they cannot be read as one, those of its windows that can."""
    try:
        tile = reader.read(box)
        return tile.rgb, tile.valid
    except SourceError:
        rgb = np.zeros((box.height, box.width, 3), np.uint8)
        valid = np.zeros((box.height, box.width), bool)
    for index in source.near(box):
        window = source.windows[index]
        left, top = max(window.x, box.x), max(window.y, box.y)
        right = min(window.x + window.width, box.x + box.width)
        bottom = min(window.y + window.height, box.y + box.height)
        try:
            tile = reader.read(Window(left, top, right - left, bottom - top))
        except SourceError:  # its tile's row says so
            continue
        view = np.s_[top - box.y : bottom - box.y, left - box.x : right - box.x]
        rgb[view], valid[view] = tile.rgb, tile.valid
    return rgb, valid


def _core_of(block: Block, cut: CutBlock) -> np.ndarray:
    """The regions of a block's core, (h, w) int32, -1 none."""
    core, padded = block.core, block.padded
    return cut.regions[
        core.y - padded.y : core.y - padded.y + core.height,
        core.x - padded.x : core.x - padded.x + core.width,
    ].copy()  # what surrounds it is not kept


def _measure(
    block: Block, cut: CutBlock, lab: np.ndarray, source: SourceWindows, width: int
) -> tuple[_Found, np.ndarray]:
    """What the tables say of the regions that begin in a block's core, and those that touch, the
    first of which does: (4, B) int64 lower and higher key, length, contrast.
    """
    core, padded = block.core, block.padded
    y, x = cut.first.T
    mine = (y >= core.y) & (y < core.y + core.height) & (x >= core.x) & (x < core.x + core.width)
    keys = y * width + x
    order = np.flatnonzero(mine)[np.argsort(keys[mine], kind="stable")]
    count = len(order)
    place = np.full(len(keys) + 1, -1, np.int32)
    place[order] = np.arange(count)
    own = place[cut.regions]
    sums, box = moments(own, lab, count), boxes(own, count).astype(np.int32)
    entries = _entries(own, block, source, count)
    touching = borders(cut.regions, lab)
    low, high = np.sort(keys[touching.pairs], axis=1).T
    first_mine = mine[touching.pairs[np.arange(len(low)), keys[touching.pairs].argmin(axis=1)]]
    found = _Found(
        keys[order],
        {
            "x": box[:, 0] + padded.x,
            "y": box[:, 1] + padded.y,
            "width": box[:, 2] - box[:, 0] + 1,
            "height": box[:, 3] - box[:, 1] + 1,
            "area": sums.area.astype(np.int32),
            "colour": sums.colour().astype(np.float16),
            "segment": cut.segment[order],
        },
        *entries,
    )
    columns = low, high, touching.length, touching.contrast
    return found, np.stack([values[first_mine] for values in columns]).astype(np.int64)


def _entries(
    own: np.ndarray, block: Block, source: SourceWindows, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Segments that windows saw under each region, their shares, and where each region's end."""
    padded = block.padded
    parts = []
    for index in source.near(padded):
        window = source.windows[index]
        left, top = max(window.x, padded.x), max(window.y, padded.y)
        right = min(window.x + window.width, padded.x + padded.width)
        bottom = min(window.y + window.height, padded.y + padded.height)
        inside = np.s_[top - window.y : bottom - window.y, left - window.x : right - window.x]
        regions, segments, weights = overlaps(
            own[top - padded.y : bottom - padded.y, left - padded.x : right - padded.x],
            source.top(index)[inside],
            (window_weights(window.height)[inside[0]], window_weights(window.width)[inside[1]]),
            int(source.first[index + 1] - source.first[index]),
        )
        parts.append((regions, segments + source.first[index], weights))
    regions, segments, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((segments, regions))
    regions, segments, weights = regions[order], segments[order], weights[order]
    total = np.zeros(count, np.int64)
    np.add.at(total, regions, weights)
    shares = (weights / total[regions]).astype(np.float32)
    return segments, shares, np.searchsorted(regions, np.arange(count), side="right")


class _Numbering:
    """Numbers regions through a scene, row of blocks by row of blocks."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._count = 0
        self._keys = np.zeros(0, np.int64)  # of this row of blocks and the one above, ascending
        self._numbers = np.zeros(0, np.int64)
        self._own = np.zeros(0, np.int64)  # keys of this row
        self._waiting: list[np.ndarray] = []  # borders with regions of the next row, (4, B)

    def number(self, keys: np.ndarray) -> np.ndarray:
        """Numbers (N,) of regions that begin in a row of blocks, by their keys."""
        before = np.isin(self._keys, self._own, assume_unique=True)  # the row above, no further
        old_keys, old_numbers = self._keys[before], self._numbers[before]
        order = np.argsort(keys, kind="stable")
        numbers = np.empty(len(keys), np.int64)
        numbers[order] = self._count + np.arange(len(keys))
        self._count += len(keys)
        self._own = keys[order]
        self._keys = np.concatenate([old_keys, self._own])
        self._numbers = np.concatenate([old_numbers, numbers[order]])
        return numbers

    def of(self, keys: np.ndarray) -> np.ndarray:
        """Numbers (N,) uint32 of regions of this row of blocks or the one above, by their keys."""
        return self._numbers[np.searchsorted(self._keys, keys)].astype(np.uint32)

    def border_table(self, touching: list[np.ndarray], source_index: int, last: bool) -> pa.Table:
        """Borders whose two regions have their numbers by now; those of the last blocks are new."""
        every = np.concatenate([*self._waiting, *touching], axis=1)
        known = np.isin(every[1], self._keys)
        if last and not known.all():
            raise AssertionError("a region touches one that was never numbered")
        self._waiting = [every[:, ~known]]
        low, high, length, contrast = every[:, known]
        region = self._numbers[np.searchsorted(self._keys, low)]
        other = self._numbers[np.searchsorted(self._keys, high)]
        order = np.lexsort((other, region))
        mean = contrast[order] / (length[order] * CONTRAST_UNITS)
        return pa.table(
            {
                "source_index": np.full(len(order), source_index, np.int32),
                "region": region[order].astype(np.int32),
                "other": other[order].astype(np.int32),
                "length": length[order].astype(np.int32),
                "contrast": mean.astype(np.float16),
            },
            schema=BORDER_SCHEMA,
        )


def _region_table(
    found: list[_Found],
    numbers: np.ndarray,
    source_index: int,
    source: SourceWindows,
    objects: np.ndarray,
) -> pa.Table:
    """Rows of REGION_SCHEMA in the order of their numbers."""
    order = np.argsort(numbers, kind="stable")
    columns = {
        name: np.concatenate([one.columns[name] for one in found])[order]
        for name in found[0].columns
    }
    segment = columns.pop("segment")
    window, local = source.locate(segment)
    tile_ids = np.array([tile.tile_id for tile in source.tiles], np.int64)
    starts, entry_segments, shares = _in_order(found, order)
    entry_window, entry_local = source.locate(entry_segments)
    none = segment < 0
    colour = np.ascontiguousarray(columns.pop("colour"), np.float16)
    return pa.table(
        {
            "source_index": np.full(len(order), source_index, np.int32),
            **{name: values.astype(np.int32) for name, values in columns.items()},
            "colour": pa.FixedSizeListArray.from_arrays(pa.array(colour.ravel()), colour.shape[1]),
            "tile_id": np.where(none, -1, tile_ids[window]),
            "segment_id": np.where(none, -1, local).astype(np.int32),
            "object": np.where(none, -1, np.append(objects, -1)[segment]).astype(np.int32),
            "tiles": pa.ListArray.from_arrays(starts, tile_ids[entry_window]),
            "segments": pa.ListArray.from_arrays(starts, entry_local.astype(np.int32)),
            "shares": pa.ListArray.from_arrays(starts, shares),
        },
        schema=REGION_SCHEMA,
    )


def _in_order(found: list[_Found], order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries of all regions in another order: starts (N + 1,) int32, segments, shares."""
    lengths, begins, total = [], [], 0
    for one in found:
        own = np.diff(one.ends, prepend=0)
        lengths.append(own)
        begins.append(one.ends - own + total)
        total += len(one.segment)
    length, begin = np.concatenate(lengths)[order], np.concatenate(begins)[order]
    starts = np.concatenate([[0], np.cumsum(length)])
    take = np.repeat(begin - starts[:-1], length) + np.arange(starts[-1])
    segments = np.concatenate([one.segment for one in found])[take]
    shares = np.concatenate([one.share for one in found])[take]
    return starts.astype(np.int32), segments, shares
