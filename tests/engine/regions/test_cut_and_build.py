"""A scene cut block by block is the scene cut whole, and its tables say what is there."""

from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from made_run import make_run
from PIL import Image
from scipy import ndimage

from alps.engine.base.errors import SourceError
from alps.engine.images.raster import RasterReader
from alps.engine.images.windows import Window, plan_windows
from alps.engine.regions import build, cut, packing
from alps.engine.regions.build import build_regions, measured_block
from alps.engine.regions.objects import join_masks
from alps.engine.regions.packing import NOWHERE
from alps.engine.regions.raster import open_regions
from alps.engine.regions.windows import COLUMNS, SourceWindows
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.segment_store import SegmentStore
from alps.engine.stages.regions import CutSettings, cut_archive, forget_regions
from alps.kernels.colour import lab_of
from alps.kernels.regions import borders
from alps.kernels.superpixels import reach

PER_MEGAPIXEL = 30_000.0  # a cell is 6 pixels wide
SIDE = 6


def scene(height, width, seed, noise=25):
    """Colours in blotches, with noise, so that regions are many and crooked."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 11 + 2, width // 11 + 2, 3))
    blotches = ndimage.zoom(coarse, (11, 11, 1), order=1)
    image = blotches[:height, :width] * 200 + rng.normal(size=(height, width, 3)) * noise
    return image.clip(0, 255).astype(np.uint8)


def some_masks(windows, seed):
    """Rectangles of each window, some upon others; a window in seven has none."""
    rng = np.random.default_rng(seed)
    found = []
    for window in windows:
        own = []
        for _ in range(0 if rng.integers(7) == 0 else rng.integers(1, 7)):
            mask = np.zeros((window.height, window.width), bool)
            y, x = rng.integers(0, window.height), rng.integers(0, window.width)
            mask[y : y + rng.integers(3, 30), x : x + rng.integers(3, 30)] = True
            own.append({"mask": mask, "predicted_iou": float(rng.random())})
        found.append(own)
    return found


def made(root, size, seed=0, tile=48, overlap=12, nodata=False):
    """A run folder with the segments of a scene of ``size`` (H, W), and which pixels are valid."""
    height, width = size
    windows = plan_windows(width, height, tile, overlap)
    folder = make_run(root, windows, some_masks(windows, seed))
    image, valid = scene(height, width, seed), np.ones(size, bool)
    if nodata:
        y, x = np.indices(size)
        valid = (np.abs(y - x) > 2) & ((y - height / 3) ** 2 + (x - width / 2) ** 2 > 90)
    alpha = np.where(valid, 255, 0).astype(np.uint8)
    Image.fromarray(np.dstack([image, alpha])).save(folder.root / "a.png")
    return folder, image, valid


class Damaged:
    """A scene of which no window can be read that has one pixel."""

    def __init__(self, reader, x, y):
        self._reader, self._x, self._y = reader, x, y
        self.width, self.height = reader.width, reader.height

    def read(self, box):
        if 0 <= self._x - box.x < box.width and 0 <= self._y - box.y < box.height:
            raise SourceError("damaged")
        return self._reader.read(box)


def built(folder, damaged=None):
    """Raster, regions and sorted borders of the only source; ``damaged``: x and y of a pixel with
    which nothing can be read.
    """
    (tiles,) = Plan.of(folder).sources()
    source = SourceWindows(tiles, SegmentStore(folder, COLUMNS))
    with RasterReader(tiles[0].path) as whole:
        reader = Damaged(whole, *damaged) if damaged else whole
        raster = np.full((reader.height, reader.width), 7, np.uint32)
        rows, corners = [], []
        size = (reader.width, reader.height)
        blocks = (
            measured_block(block, reader, source, PER_MEGAPIXEL)
            for row in cut.block_rows(*size, PER_MEGAPIXEL)
            for block in row
        )
        for one in build_regions(blocks, size, source, join_masks(source), PER_MEGAPIXEL):
            rows.append(one)
            for piece in one.raster:
                h, w = piece.numbers.shape
                raster[piece.y : piece.y + h, piece.x : piece.x + w] = piece.numbers
                corners.append((piece.y, piece.x))
    assert corners == list(product(*(range(0, side, packing.TILE) for side in raster.shape)))
    touching = pa.concat_tables([one.borders for one in rows])
    touching = touching.sort_by([("region", "ascending"), ("other", "ascending")])
    return raster, pa.concat_tables([one.regions for one in rows]), touching, len(rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "tile", "overlap", "nodata"),
    [
        ((211, 301), 48, 12, False),
        ((211, 301), 48, 12, True),
        ((97, 423), 500, 0, False),
        ((331, 83), 40, 19, True),
    ],
)
def test_block_by_block_is_whole(tmp_path, monkeypatch, size, tile, overlap, nodata):
    folder, _, _ = made(tmp_path / "run", size, 3, tile, overlap, nodata)
    raster, regions, touching, rows = built(folder)
    assert rows == 1
    for cells, tile in ((5, 48), (13, 96)):
        monkeypatch.setattr(cut, "BLOCK_CELLS", cells)
        monkeypatch.setattr(packing, "TILE", tile)
        found = built(folder)
        assert found[3] > 1 or size[0] < 100
        np.testing.assert_array_equal(found[0], raster)
        assert found[1].equals(regions)
        assert found[2].equals(touching)


def test_freed_memory_goes_back_now_and_then(tmp_path, monkeypatch):
    folder, _, _ = made(tmp_path / "run", (200, 150), 3, 64, 16, False)
    monkeypatch.setattr(cut, "BLOCK_CELLS", 3)
    returned = []
    monkeypatch.setattr(build, "return_freed_memory", lambda: returned.append(1))
    rows = cut.block_rows(150, 200, PER_MEGAPIXEL)
    assert len(rows) > 2
    monkeypatch.setattr(build, "RETURNED_AFTER", 2 * len(rows[0]))
    built(folder)
    assert len(returned) == len(rows) // 2
    monkeypatch.setattr(build, "RETURNED_AFTER", 1000)
    built(folder)
    assert len(returned) == len(rows) // 2


@pytest.mark.parametrize("size", [(2000, 1500), (389, 385), (384, 2), (5, 7)])
def test_a_block_knows_what_superpixels_and_joining_hang_on(size):
    """Its core and as much around it as `reach` says and joining takes, within the scene."""
    far = reach(SIDE) + cut.JOIN_CELLS * SIDE
    width, height = size
    times = np.zeros((height, width), int)
    for row in cut.block_rows(width, height, PER_MEGAPIXEL):
        for block in row:
            core, padded = block.core, block.padded
            times[core.y : core.y + core.height, core.x : core.x + core.width] += 1
            left, top = max(core.x - far, 0), max(core.y - far, 0)
            right = min(core.x + core.width + far, width)
            bottom = min(core.y + core.height + far, height)
            assert vars(padded) == vars(Window(left, top, right - left, bottom - top))
    assert (times == 1).all()


@pytest.mark.parametrize("at", [(3, 5), (60, 20)])
def test_of_a_damaged_scene_the_windows_that_can_be_read_are_cut(tmp_path, at):
    folder, image, valid = made(tmp_path / "run", (60, 130), 2, nodata=True)
    readable = np.zeros(valid.shape, bool)
    for w in plan_windows(130, 60, 48, 12):
        if not (0 <= at[0] - w.x < w.width and 0 <= at[1] - w.y < w.height):
            readable[w.y : w.y + w.height, w.x : w.x + w.width] = True
    assert 0 < (valid & ~readable).sum() < valid.sum() / 2
    raster, regions, *_ = built(folder, at)
    np.testing.assert_array_equal(raster != NOWHERE, valid & readable)
    lab = lab_of(image) / 128
    for number in range(0, regions.num_rows, 13):
        mean = regions["colour"][number].as_py()[:3]
        np.testing.assert_allclose(mean, lab[raster == number].mean(0), rtol=2e-3, atol=0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, image, valid = made(tmp_path_factory.mktemp("cut") / "run", (140, 170), 5, nodata=True)
    return folder, image, valid, *built(folder)[:3]


def test_each_valid_pixel_lies_in_one_region_that_hangs_together(whole):
    _, _, valid, raster, regions, _ = whole
    assert ((raster != NOWHERE) == valid).all()
    numbers, first = np.unique(raster[valid], return_index=True)
    assert (numbers == np.arange(regions.num_rows)).all()
    assert (np.diff(first) > 0).all()  # numbered by their first pixels
    for number, box in enumerate(ndimage.find_objects(np.where(valid, raster + 1, 0))):
        own = raster[box] == number
        assert ndimage.label(own)[1] == 1
        names = ("x", "y", "width", "height", "area")
        assert {name: regions[name][number].as_py() for name in names} == {
            "x": box[1].start,
            "y": box[0].start,
            "width": own.shape[1],
            "height": own.shape[0],
            "area": own.sum(),
        }


def test_slivers_are_joined_but_for_islands_and_a_few_among_themselves(whole):
    _, _, valid, _, regions, touching = whole
    area = regions["area"].to_numpy()
    has_neighbours = np.isin(np.arange(len(area)), [touching["region"], touching["other"]])
    # Where all around was small too, two rounds may leave a sliver.
    assert (area[has_neighbours] < round(cut.SLIVER * SIDE**2)).mean() < 0.01
    assert len(area) > 0.5 * valid.sum() / SIDE**2


def test_colours_are_those_of_the_pixels(whole):
    _, image, valid, raster, regions, _ = whole
    lab = lab_of(np.where(valid[..., None], image, 0)) / 128
    for number in range(0, regions.num_rows, 17):
        own = lab[raster == number]
        expected = np.concatenate([own.mean(0), own.std(0)])
        np.testing.assert_allclose(
            regions["colour"][number].as_py(), expected, rtol=2e-3, atol=0.02
        )


def test_borders_by_brute_force(whole):
    _, image, valid, raster, _, touching = whole
    lab = lab_of(np.where(valid[..., None], image, 0))
    lengths, steps = {}, {}
    for y, x in np.ndindex(raster.shape):
        for v, u in ((y, x + 1), (y + 1, x)):
            if v < raster.shape[0] and u < raster.shape[1]:
                here, there = int(raster[y, x]), int(raster[v, u])
                if NOWHERE not in (here, there) and here != there:
                    pair = min(here, there), max(here, there)
                    lengths[pair] = lengths.get(pair, 0) + 1
                    step = np.linalg.norm((lab[y, x].astype(float) - lab[v, u]) / 128)
                    steps.setdefault(pair, []).append(step)
    pairs = list(zip(touching["region"].to_pylist(), touching["other"].to_pylist(), strict=True))
    assert pairs == sorted(lengths)
    assert touching["length"].to_pylist() == [lengths[pair] for pair in pairs]
    mean = [np.mean(steps[pair]) for pair in pairs]
    np.testing.assert_allclose(touching["contrast"].to_numpy(), mean, atol=0.1)
    assert len(borders(raster.view(np.int32), lab).pairs) == len(pairs)


def test_shares_are_what_windows_saw_by_their_weights(whole):
    folder, _, _, raster, regions, _ = whole
    (tiles,) = Plan.of(folder).sources()
    source = SourceWindows(tiles, SegmentStore(folder, COLUMNS))
    expected = [{} for _ in range(regions.num_rows)]
    for index, window in enumerate(source.windows):
        hann = [
            np.maximum(np.rint(256 * np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2), 1)
            for n in (window.height, window.width)
        ]
        top = source.top(index)
        for y, x in zip(*np.nonzero(top >= 0), strict=True):
            number = raster[window.y + y, window.x + x]
            if number != NOWHERE:
                key = tiles[index].tile_id, int(top[y, x])
                own = expected[number]
                own[key] = own.get(key, 0) + hann[0][y] * hann[1][x]
    seen = 0
    for number, own in enumerate(expected):
        row = [regions[name][number].as_py() for name in ("tiles", "segments", "shares")]
        keys = list(zip(row[0], row[1], strict=True))
        assert keys == sorted(own)
        total = sum(own.values())
        np.testing.assert_allclose(row[2], [own[key] / total for key in keys], rtol=1e-5)
        assert not keys or sum(row[2]) == pytest.approx(1, abs=1e-5)
        seen += len(keys) > 1
    assert seen > 20


def test_the_segment_of_a_region_is_one_that_lies_there(whole):
    folder, _, _, raster, regions, _ = whole
    (tiles,) = Plan.of(folder).sources()
    source = SourceWindows(tiles, SegmentStore(folder, COLUMNS))
    objects = join_masks(source)
    window_of = {tile.tile_id: index for index, tile in enumerate(tiles)}
    named = 0
    for number in range(regions.num_rows):
        names = ("tile_id", "segment_id", "object")
        tile, segment, thing = (regions[name][number].as_py() for name in names)
        if segment < 0:
            assert (tile, thing) == (-1, -1)
            continue
        named += 1
        index = window_of[tile]
        assert thing == objects[source.first[index] + segment]
        window = source.windows[index]
        here = raster[window.y : window.y + window.height, window.x : window.x + window.width]
        assert ((here == number) & (source.top(index) == segment)).any()
    assert 0 < named < regions.num_rows


def test_the_stage_writes_the_same_again(tmp_path):
    folder, _, valid = made(tmp_path / "run", (90, 110), 1, nodata=True)
    raster = built(folder)[0]
    files = []
    for _ in range(2):
        forget_regions(folder)
        cut_archive(folder, CutSettings(None, PER_MEGAPIXEL))
        paths = (folder.root / "regions").rglob("*")
        files.append({path: path.read_bytes() for path in paths if path.is_file()})
        before = folder.regions(0).stat().st_mtime_ns
        cut_archive(folder, CutSettings(None, PER_MEGAPIXEL))
        assert folder.regions(0).stat().st_mtime_ns == before
    assert files[0] == files[1] and len(files[0]) == 4
    with open_regions(folder.region_raster("a.png")) as found:
        assert found.size == (110, 90)
        np.testing.assert_array_equal(np.concatenate([s for _, s in found.strips()]), raster)
        np.testing.assert_array_equal(found.read(7, 9, 11, 5), raster[9:14, 7:18])
        number = int(raster[valid].max()) + 1
        values = np.concatenate([s for _, s in found.values(np.arange(number, dtype=np.int16), -7)])
        assert values.dtype == np.int16
        np.testing.assert_array_equal(values, np.where(valid, raster.astype(np.int64), -7))
