"""Cuts a scene into regions, block by block, as if it were cut whole.

Superpixels on the scene's own grid are cut by the masks of one window each, the one whose core has
the middle of the superpixel's cell, so that nothing is cut where windows meet. Pieces that do not
hang together are regions of their own; slivers join the neighbour most like them.
"""

import threading
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from alps.engine.images.windows import Window
from alps.engine.regions.windows import SourceWindows
from alps.kernels.base.gpu import on_gpu as put_on_gpu
from alps.kernels.regions import join_small, pieces
from alps.kernels.superpixels import Seeds, cells_of, reach, side_of, superpixels

SLIVER = 0.1  # of a cell's area; smaller pieces join a neighbour
BLOCK_CELLS = 64  # a block's side
# Cells around a block, besides what superpixels hang on, on which joining may hang: a region
# reaches over three cells, and joins by its neighbours and theirs.
JOIN_CELLS = 8
_gpu = threading.Lock()  # one block at a time is there


@dataclass(frozen=True)
class Block:
    """A part of a scene that is cut at once."""

    core: Window  # what it is for; cores partition the scene
    padded: Window  # what has to be known for that


@dataclass(frozen=True)
class CutBlock:
    """Regions of a block's padded window; only those that begin in its core are whole for sure."""

    regions: np.ndarray  # (h, w) int32 from 0, -1 where not valid
    first: np.ndarray  # (N, 2) int64 row and column in the scene of each region's first pixel
    segment: np.ndarray  # (N,) int64 of the scene's, on top where a region was cut; -1 none


def block_rows(width: int, height: int, per_megapixel: float) -> list[list[Block]]:
    """Blocks of a scene, row by row. A scene little larger than a block is one."""
    side = side_of(per_megapixel)
    step, far = BLOCK_CELLS * side, reach(side) + JOIN_CELLS * side
    rows = []
    for top, bottom in _spans(height, step, far):
        row = []
        for left, right in _spans(width, step, far):
            x0, y0 = max(left - far, 0), max(top - far, 0)
            x1, y1 = min(right + far, width), min(bottom + far, height)
            row.append(
                Block(
                    Window(left, top, right - left, bottom - top),
                    Window(x0, y0, x1 - x0, y1 - y0),
                )
            )
        rows.append(row)
    return rows


def _spans(size: int, step: int, far: int) -> list[tuple[int, int]]:
    """Cores along an axis; the last takes a rest that is not worth a block of its own."""
    edges = list(range(0, size, step))
    if len(edges) > 1 and size - edges[-1] <= far:
        edges.pop()
    return list(zip(edges, [*edges[1:], size], strict=True))


def cut_block(
    block: Block,
    lab: np.ndarray,
    valid: np.ndarray,
    source: SourceWindows,
    per_megapixel: float,
    on_gpu: bool = False,
) -> CutBlock:
    """Cut what a block's padded window shows.

    Args:
        block: where.
        lab: (h, w, 3) int16 of ``kernels.colour.lab_of``, of the padded window.
        valid: (h, w) bool, pixels that belong to a region.
        source: windows and masks of the scene.
        per_megapixel: superpixels a million pixels.
        on_gpu: superpixels are cut there, into the same.
    """
    y0, x0 = block.padded.y, block.padded.x
    with _gpu if on_gpu else nullcontext():
        cells = superpixels(put_on_gpu(lab) if on_gpu else lab, valid, per_megapixel, (y0, x0))
    top = _tops(cells, Seeds.of(valid.shape, per_megapixel, (y0, x0)), block.padded, source)
    number = source.first[-1] + 1
    keys = np.where(cells >= 0, cells * number + top + 1, -1)
    found, first = pieces(keys)
    family = cells.ravel()[first] if len(first) else np.zeros(0, np.int64)
    least = round(SLIVER * side_of(per_megapixel) ** 2)
    owner = join_small(found, lab, least, family)
    kept = np.flatnonzero(np.bincount(owner))
    place = np.searchsorted(kept, owner)
    regions = np.append(place, -1).astype(np.int32)[found]
    # A joined region may begin above or left of the piece that it is named by.
    begins = np.full(len(kept), valid.size)
    np.minimum.at(begins, place, first)
    row, column = np.divmod(begins, valid.shape[1])
    return CutBlock(
        regions,
        np.stack([row + y0, column + x0], axis=1).astype(np.int64),
        keys.ravel()[first[kept]] % number - 1,
    )


def _tops(cells: np.ndarray, seeds: Seeds, padded: Window, source: SourceWindows) -> np.ndarray:
    """Of each pixel the segment on top, (h, w) int64 through the source, by the window that owns
    its cell; -1 none. Pixels outside that window take its nearest.
    """
    row, column = np.divmod(np.arange(seeds.rows * seeds.columns), seeds.columns)
    middle = seeds.side // 2
    height, width = cells.shape
    y = (row + padded.y // seeds.side) * seeds.side + middle
    x = (column + padded.x // seeds.side) * seeds.side + middle
    owner = source.owner_of(
        np.clip(x, padded.x, padded.x + width - 1), np.clip(y, padded.y, padded.y + height - 1)
    )
    pixel_owner = np.append(owner, -1)[cells]
    row_cell, column_cell = cells_of(seeds)
    top = np.full(cells.shape, -1, np.int64)
    for index in np.unique(owner):
        mine = owner == index
        rows, columns = _around(row_cell, row[mine]), _around(column_cell, column[mine])
        window, own = source.windows[index], source.top(int(index))
        v = np.clip(np.arange(rows.start, rows.stop) + padded.y - window.y, 0, window.height - 1)
        u = np.clip(
            np.arange(columns.start, columns.stop) + padded.x - window.x, 0, window.width - 1
        )
        segment = own[np.ix_(v, u)].astype(np.int64)
        segment[segment >= 0] += source.first[index]
        np.copyto(top[rows, columns], segment, where=pixel_owner[rows, columns] == index)
    return top


def _around(cell: np.ndarray, cells: np.ndarray) -> slice:
    """The pixels along an axis that superpixels of ``cells`` may have, which reach over their
    neighbours; ``cell``: of each pixel.
    """
    first, end = np.searchsorted(cell, [cells.min() - 1, cells.max() + 2])
    return slice(int(first), int(end))
