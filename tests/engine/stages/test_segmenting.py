"""What segmenting writes of each tile: the masks' own values in their own rows, and sums."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.images.sources import find_sources
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.load import load_model
from alps.engine.planning.make import make_plan
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.tables import write_table
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.settings import RunSettings, SegmentSettings
from alps.engine.stages.segment import segment_archive, shards_missing
from alps.kernels.masks import coco

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def shards_of_one(monkeypatch):
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 1)


@pytest.fixture
def segmented(tmp_path, speck):
    """A function that segments an image of two windows: folder, image, generator."""
    image = make_scene(3, SceneSettings(size=200)).image[:120]
    (tmp_path / "images").mkdir()
    Image.fromarray(image).save(tmp_path / "images" / "a.png")
    model, info = load_model(str(speck), "cpu")

    def run(share=(0, 1), name="out", **segment):
        settings = RunSettings(segment=SegmentSettings(runtime="torch", **segment))
        settings = settings.for_model(info.defaults)
        folder = RunFolder(tmp_path / name)
        for inside in ("journal", "segments"):
            (folder.root / inside).mkdir(parents=True, exist_ok=True)
        write_table(make_plan(find_sources(tmp_path / "images"), settings.source), folder.plan)
        generator = MaskGenerator.for_run(TorchRuntime(model), settings.segment)
        segment_archive(folder, generator, settings, share)
        return folder, image, generator

    return run


def tiles_and_segments(folder, shard):
    (tile,) = pq.read_table(folder.shard_tiles(shard)).to_pylist()
    return tile, pq.read_table(folder.segments(shard))


def union_of(table, size):
    """Pixels under a mask, one after the other."""
    covered = np.zeros(size, bool)
    for row in table.to_pylist():
        if row["mask"] >= 0:
            covered |= coco.decode_mask(row["counts"], size)
    return covered


def test_rows_hold_what_everything_mode_found(segmented):
    folder, image, generator = segmented()
    for shard in range(2):
        tile, table = tiles_and_segments(folder, shard)
        rgb = image[:, tile["x"] : tile["x"] + tile["width"]]
        found = generator.segment(rgb, np.ones(rgb.shape[:2], bool), rest_cells=4)
        assert tile["segments"] == (found.mask >= 0).sum() > 1
        assert len(table) == len(found)
        assert tile["points"] == found.prompted == 36
        assert table["tile_id"].to_pylist() == [shard] * len(found)
        assert table["segment_id"].to_pylist() == list(range(len(found)))
        assert table["counts"].to_pylist() == found.counts
        for name, values in {
            "embedding": found.embeddings,
            "colour": found.colours,
        }.items():
            assert len(np.unique(values, axis=0)) > 1
            np.testing.assert_array_equal(
                np.array(table[name].to_pylist(), np.float16), values.astype(np.float16), name
            )
        for name, values in {
            "mask": found.mask,
            "area": found.area,
            "predicted_iou": found.predicted_iou,
            "stability_score": found.stability_score,
            "x": found.boxes[:, 0],
            "y": found.boxes[:, 1],
            "width": found.boxes[:, 2],
            "height": found.boxes[:, 3],
            "point_x": found.points[:, 0],
            "point_y": found.points[:, 1],
            "centre_x": found.centres[:, 0],
            "centre_y": found.centres[:, 1],
        }.items():
            np.testing.assert_array_equal(table[name].to_numpy(), values, name)


def test_coverage_is_of_pixels_under_a_mask_each_once(segmented):
    folder, *_ = segmented(max_area=0.5)
    for shard in range(2):
        tile, table = tiles_and_segments(folder, shard)
        covered = union_of(table, (tile["height"], tile["width"]))
        assert tile["valid_pixels"] == covered.size
        assert tile["covered_pixels"] == covered.sum() < covered.size
        rest = table["area"].to_numpy()[table["mask"].to_numpy() < 0]
        assert len(rest) <= 16 and rest.sum() == (~covered).sum()


def test_masks_overlap_where_coverage_counts_them_once(segmented):
    """Else the test above would show nothing of whole masks."""
    folder, *_ = segmented(max_area=1.0)
    tile, table = tiles_and_segments(folder, 0)
    masked = table["area"].to_numpy()[table["mask"].to_numpy() >= 0]
    assert masked.sum() > tile["covered_pixels"] > 0


def test_a_machine_segments_its_own_shards(segmented):
    folder, *_ = segmented(share=(1, 2))
    assert [folder.segments(shard).exists() for shard in range(2)] == [False, True]
    assert shards_missing(folder) == 1
    segmented(share=(0, 2))
    assert shards_missing(folder) == 0


def test_every_missing_shard_is_counted(segmented):
    folder, *_ = segmented()
    for shard, missing in ((0, 1), (1, 2)):
        folder.segments(shard).unlink()
        assert shards_missing(folder) == missing
