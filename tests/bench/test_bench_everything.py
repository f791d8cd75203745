"""The benchmark of everything mode: the original's side, the ladder, and the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from stock_sam import SMALL, original_generator, picture

from alps.bench.commands import KeywordArguments, bench
from alps.bench.everything import ladder, sides, stock, torchvision_stand_in
from alps.bench.everything.compare import columns, find_tiles
from alps.bench.everything.matching import agreement, best_ious
from alps.bench.everything.options import EverythingOptions
from alps.bench.everything.random_weights import save_random_sam
from alps.bench.everything.sides import (
    Job,
    SideResult,
    TileMasks,
    run,
    run_in_fresh_process,
)
from alps.bench.everything.thresholds import keep_all, thresholds_of
from alps.engine.base.errors import SettingsError
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.checkpoints import load_sam
from alps.engine.sam2 import OFFICIAL
from alps.kernels.base.threads import set_threads
from alps.kernels.masks.pixels import runs_of
from alps.kernels.nms import box_nms
from alps.kernels.pool import cell_shares, pool_embeddings

# pycocotools' own, under NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

POINTS = 6  # a side


@pytest.fixture(autouse=True, scope="module")
def threads_as_before(one_thread):
    yield
    set_threads(None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def checkpoint(folder):
    """A small SAM with random weights whose masks lie around their points."""
    path = folder / "small.pth"
    save_random_sam(SMALL, path, picture(64, 64), seed=0)
    return path


@pytest.fixture(scope="module")
def settings(checkpoint):
    return keep_all({"points_per_side": POINTS}) | thresholds_of(everything_in(checkpoint))


@pytest.fixture(scope="module")
def tiles(folder):
    """Two images as tiles of a job."""
    from PIL import Image

    found = []
    for seed, (height, width) in enumerate([(64, 64), (50, 70)]):
        path = folder / f"{seed}.png"
        Image.fromarray(picture(height, width, seed)).save(path)
        found.append((str(path), 0, 0, width, height))
    return tuple(found)


def everything_in(checkpoint):
    sam, _ = load_sam(checkpoint)
    return MaskGenerator(sam, **keep_all({"points_per_side": POINTS})).segment(picture(64, 64))


# --- the original's side


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.7, 1.0])
def test_the_stand_in_drops_the_boxes_that_ours_drops(threshold):
    rng = np.random.default_rng(4)
    corners = rng.integers(0, 60, (300, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 30, (300, 2))], 1)
    scores = rng.integers(0, 40, 300) / 40  # with ties
    theirs = torchvision_stand_in.batched_nms(
        torch.from_numpy(boxes).float(),
        torch.from_numpy(scores).float(),
        torch.zeros(300),
        threshold,
    )
    mine = box_nms(boxes.astype(np.float32), scores.astype(np.float32), threshold)
    assert theirs.tolist() == mine.tolist()
    assert len(mine) > 1
    none = torchvision_stand_in.batched_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), 0.5)
    assert none.shape == (0,) and none.dtype == torch.int64


@pytest.mark.slow
def test_a_clock_changes_no_mask(checkpoint, settings):
    sam, _ = load_sam(checkpoint)
    network = stock.stock_like(sam)
    image = picture(50, 70)
    plain = original_generator()(network, output_mode="coco_rle", **settings).generate(image)
    side = stock.StockGenerator(stock.stock_like(sam), **settings)
    side.warm_up()
    timed = side.segment(image)
    assert timed.counts == [record["segmentation"]["counts"].encode() for record in plain]
    assert len(plain) > 1 and timed.size == (50, 70) and timed.prompted == POINTS**2
    assert set(timed.seconds) == set(sides.STAGES)
    assert all(seconds > 0 for seconds in timed.seconds.values())
    assert timed.total == pytest.approx(sum(timed.seconds.values()))
    # What it counts is what passes; a threshold of 0 passes all.
    assert 0 < timed.prompts_left <= timed.masks_left < 3 * POINTS**2
    everything = stock.StockGenerator(stock.stock_like(sam), **keep_all(settings)).segment(image)
    assert everything.prompts_left == POINTS**2 and everything.masks_left == 3 * POINTS**2


@pytest.mark.slow
def test_pooling_one_by_one_gives_our_means():
    rng = np.random.default_rng(2)
    embedding = rng.normal(size=(5, 8, 8)).astype(np.float32)
    mask = rng.random((40, 64)) < 0.4
    plain = stock.pool_one_by_one(torch.from_numpy(embedding), torch.from_numpy(mask))
    ours = pool_embeddings(embedding, cell_shares(runs_of(mask[None]), (8, 8), 8))
    np.testing.assert_allclose(plain.numpy(), ours[0], rtol=1e-5, atol=1e-6)


def test_the_original_of_sam_2_is_asked_for_by_name(monkeypatch):
    from alps.bench.everything import stock_sam2

    monkeypatch.setattr(stock_sam2, "PACKAGE", "sam2_that_is_not_here")
    with pytest.raises(SettingsError, match="facebookresearch/sam2 on PYTHONPATH"):
        stock_sam2.stock_network(OFFICIAL["sam2.1_hiera_tiny"])


# --- random weights and their thresholds


@pytest.mark.slow
def test_random_weights_give_masks_of_their_own(checkpoint):
    masks = everything_in(checkpoint)
    assert len(masks) > 2 * POINTS**2  # few are empty
    shares = masks.area / 64**2
    assert 0.005 < np.median(shares) < 0.3
    assert np.median(best_ious(masks.counts[:20], masks.counts[20:], (64, 64))) < 0.99
    assert 0.7 < masks.predicted_iou.mean() < 0.9 and masks.predicted_iou.std() > 0.03


@pytest.mark.slow
def test_thresholds_leave_a_usual_share(checkpoint, settings):
    masks = everything_in(checkpoint)
    passed = (masks.predicted_iou > settings["pred_iou_thresh"]).mean()
    assert passed == pytest.approx(0.3, abs=0.02)
    assert settings["pred_iou_thresh"] not in masks.predicted_iou
    sam, _ = load_sam(checkpoint)
    left = len(MaskGenerator(sam, **settings).segment(picture(64, 64)))
    assert 1 <= left <= 8  # 100 of 1024 points are 4 of 36


# --- sides, rows, tables


def job(checkpoint, settings, tiles, builder, **options):
    return Job("side", builder, str(checkpoint), tiles, settings, options)


EXACT = [name for name in ladder.STEPS if not name.startswith("ours,")]


@pytest.mark.slow
def test_every_step_of_the_ladder_finds_the_masks_of_the_original(checkpoint, settings, tiles):
    theirs = run(job(checkpoint, settings, tiles, "alps.bench.everything.stock:build"))
    assert theirs.masks > 3 and theirs.peak_bytes >= theirs.loaded_bytes > 1 << 20
    sizes = [tile.size for tile in theirs.tiles]
    assert sizes == [(64, 64), (50, 70)]
    for name in EXACT:
        step = ladder.STEPS[name]
        mine = run(job(checkpoint, settings, tiles, step.builder, **step.options))
        sets = [[tile.counts for tile in side.tiles] for side in (theirs, mine)]
        for one, other in (sets, sets[::-1]):
            found = agreement(one, other, sizes)
            assert found.shares[0.99] == 1, name
            assert found.masks == theirs.masks
        assert set(mine.tiles[0].seconds) == set(sides.STAGES)


def test_options_that_change_masks_run(checkpoint, settings, tiles):
    for name in set(ladder.STEPS) - set(EXACT):
        step = ladder.STEPS[name]
        mine = run(job(checkpoint, settings, tiles[:1], step.builder, **step.options))
        assert len(mine.tiles) == 1


def test_rows_of_the_ladder_are_chosen_by_name(checkpoint, settings, tiles):
    from alps.bench.everything.compare import Setup

    setup = Setup("small", str(checkpoint), SMALL, tiles, settings, 1, "cpu")
    assert len(ladder.jobs_of(setup)) == 1 + len(ladder.STEPS)
    assert [j.label for j in ladder.jobs_of(setup, ("bf16",))] == [
        "stock AMG", "ours, bf16", "ours, bf16, coarse to fine",
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="the rows are"):
        ladder.jobs_of(setup, ("fp8",))


@pytest.mark.slow
def test_a_side_that_fails_is_a_row_with_a_reason(checkpoint, settings, tiles):
    broken = job(checkpoint, settings, tiles, "alps.bench.everything.stock:no_such_function")
    result = run_in_fresh_process(broken)
    assert not result.tiles and "no_such_function" in result.failure


def test_the_fastest_try_counts():
    class Side:
        totals = iter([3.0, 1.0, 2.0])

        def warm_up(self):
            pass

        def segment(self, image):
            return TileMasks(image.shape[:2], [], {}, next(self.totals), 1)

    tries = [sides.segment_once(Side(), picture(8, 8)) for _ in range(3)]
    assert [masks.total for masks in tries] == [3, 1, 2]
    assert all(masks.cpu_seconds >= 0 for masks in tries)


def test_results_survive_json():
    tile = TileMasks((4, 5), [b"04d0", b"1X"], {"encode": 0.5}, 0.75, 9, 3, 4, 1.25)
    result = SideResult("ours", "absorbed", [tile], 10, 20, None, 1.5)
    assert SideResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert result.seconds("encode") == 0.5 and result.seconds("runs") == 0
    assert (result.total, result.masks, result.cpu_seconds) == (0.75, 2, 1.25)


def test_tables_line_up():
    lines = list(columns([("a", "bb", "c"), ("long", "1", "2222"), ("x", "failed: no memory")]))
    assert lines == ["a     bb     c", "long   1  2222", "x     failed: no memory"]


def test_tiles_are_whole_images_or_windows(tiles, folder):
    images = [tiles[0][0], tiles[1][0]]
    assert tuple(find_tiles(images, EverythingOptions(), 64, folder)) == tiles
    cut = find_tiles(images, EverythingOptions(tile=40), 64, folder)
    assert len(cut) == 8 and {tile[3:] for tile in cut} == {(40, 40)}
    assert find_tiles(images, EverythingOptions(limit=1, tile=40), 64, folder) == cut[:1]
    (scene,) = find_tiles([], EverythingOptions(), 64, folder)
    assert scene[1:] == (0, 0, 64, 64)


# --- the command


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("precision=bf16", {"precision": "bf16"}),
        ("coarse_to_fine=true,points_per_batch=8", {"coarse_to_fine": True, "points_per_batch": 8}),
        ("box_nms_thresh=0.5", {"box_nms_thresh": 0.5}),
    ],
)
def test_variants(text, options):
    assert KeywordArguments().convert(text, None, None) == options


@pytest.mark.parametrize("text", ["precision", "=3", "a b=3", ""])
def test_variants_that_are_none(text):
    done = CliRunner().invoke(bench, ["everything", "--with", text])
    assert done.exit_code == 2 and "name=value" in done.output


def test_settings_that_cannot_work():
    for name in ("limit", "threads", "tile", "points_per_side", "repeat"):
        with pytest.raises(SettingsError, match="at least 1"):
            EverythingOptions(**{name: 0})
    assert EverythingOptions(threads=3).thread_count == 3 and EverythingOptions().thread_count >= 1


def call(*arguments):
    return CliRunner().invoke(bench, ["everything", *map(str, arguments)])


@pytest.mark.slow
def test_the_command_end_to_end(checkpoint, tiles, folder, monkeypatch):
    target = folder / "out.json"
    common = (tiles[1][0], "--model", checkpoint, "--points-per-side", POINTS, "--threads", 1)
    done = call(*common, "--random-weights", "--json", target)
    assert done.exit_code == 0, done.output
    for text in ("stock AMG", "encode", "GEMM", "100.00%", "small.pth with random weights"):
        assert text in done.output, text
    plain = json.loads(target.read_text())
    stocks, ours = plain["results"]
    assert [stocks["label"], ours["label"]] == ["stock AMG", "ours"]
    assert len(stocks["tiles"][0]["counts"]) == len(ours["tiles"][0]["counts"]) >= 1
    assert stocks["decoder_flops"] > 0 and ours["decoder_flops"] > 0
    assert str(folder) not in target.read_text()

    # Stock's row can be had again for the same weights, tiles and settings only.
    again = folder / "again.json"
    monkeypatch.setattr("alps.bench.everything.compare.run_in_fresh_process", run)
    done = call(*common, "--random-weights", "--stock-from", target, "--json", again,
                "--with", "coarse_to_fine=true")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "stock AMG: running" not in done.output
    labels = [result["label"] for result in json.loads(again.read_text())["results"]]
    assert labels == ["stock AMG", "ours", "ours, coarse_to_fine=True"]
    done = call(*common, "--stock-from", target)
    assert isinstance(done.exception, SettingsError) and "other" in str(done.exception)


@pytest.mark.slow
def test_a_file_that_json_did_not_write(folder, tiles, checkpoint):
    wrong = folder / "wrong.json"
    wrong.write_text("{}")
    done = call(tiles[0][0], "--model", checkpoint, "--threads", 1, "--stock-from", wrong)
    assert isinstance(done.exception, SettingsError) and "--json" in str(done.exception)


@pytest.mark.slow
def test_a_failed_side_fails_the_command_after_its_table(checkpoint, tiles, folder, monkeypatch):
    def pretend(job):
        good = job.label == "stock AMG"
        tile = TileMasks((64, 64), [], dict.fromkeys(sides.STAGES, 1.0), 5.0, 36, 0, 0)
        result = SideResult(job.label, job.decoder_form)
        return replace(result, tiles=[tile]) if good else replace(result, failure="no memory")

    monkeypatch.setattr("alps.bench.everything.compare.run_in_fresh_process", pretend)
    done = call(tiles[0][0], "--model", checkpoint, "--threads", 1)
    assert done.exit_code == 1 and "ours: no memory" in str(done.exception)
    assert "failed: no memory" in done.output and "5.00" in done.output


def test_an_original_that_is_not_here_is_missed_before_anything_runs(
    checkpoint, tiles, monkeypatch
):
    def run(job):
        raise AssertionError("nothing may run")

    monkeypatch.setattr("alps.bench.everything.compare.run_in_fresh_process", run)
    monkeypatch.setattr("alps.bench.everything.stock.find_spec", lambda name: None)
    done = call(tiles[0][0], "--model", checkpoint, "--threads", 1)
    assert isinstance(done.exception, SettingsError)
    assert "segment_anything" in str(done.exception) and "pip install" in str(done.exception)
