"""Blocks of a scene, in whatever rows they come, give the tiles of its raster."""

from itertools import pairwise, product

import numpy as np
import pytest

from alps.engine.images.windows import Window
from alps.engine.regions import packing
from alps.engine.regions.packing import NOWHERE, PackedRaster

FAR = 1 << 40  # keys leave 32 bits


@pytest.mark.parametrize("width", [1, 24, 61])
@pytest.mark.parametrize("rows", [[0, 40], [0, 3, 5, 21, 40], [0, 16, 32, 40]])
@pytest.mark.parametrize("columns", [1, 4])
def test_tiles_are_what_blocks_are_together(monkeypatch, width, rows, columns):
    monkeypatch.setattr(packing, "TILE", 8)
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 999, (rows[-1], width)).astype(np.uint32)
    numbers[rng.random(numbers.shape) < 0.2] = NOWHERE
    raster, found, corners = PackedRaster((width, rows[-1])), np.zeros_like(numbers), []
    edges = np.unique(np.linspace(0, width, columns + 1).astype(int)).tolist()
    for top, bottom in pairwise(rows):
        for left, right in pairwise(edges):
            here = numbers[top:bottom, left:right]
            # Some regions of a block have no pixel in its core, and nobody has numbered them.
            known = np.append(np.unique(here[here != NOWHERE]), 5000)
            regions = np.searchsorted(known, here).astype(np.int32)
            core = Window(left, top, right - left, bottom - top)
            raster.add(core, np.where(here == NOWHERE, -1, regions), known + FAR)
        for piece in raster.tiles(numbered):
            h, w = piece.numbers.shape
            found[piece.y : piece.y + h, piece.x : piece.x + w] = piece.numbers
            corners.append((piece.y, piece.x))
    np.testing.assert_array_equal(found, numbers)
    assert corners == list(product(range(0, rows[-1], 8), range(0, width, 8)))


def numbered(keys):
    assert (keys < FAR + 5000).all()
    return (keys - FAR).astype(np.uint32)


@pytest.mark.parametrize("count", [65_535, 65_536])
def test_a_block_may_have_more_regions_than_16_bits_can_say(count):
    regions = np.full((1, count + 1), -1, np.int32)
    regions[0, :count] = np.arange(count)
    raster = PackedRaster((count + 1, 1))
    raster.add(Window(0, 0, count + 1, 1), regions, np.arange(count))
    found = np.concatenate([p.numbers for p in raster.tiles(lambda k: k.astype(np.uint32))], axis=1)
    assert (found[0, :count] == np.arange(count)).all() and found[0, count] == NOWHERE
