"""Everything mode: against the original, and what the pipeline needs beyond it."""

import copy
import inspect

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from stock_sam import SMALL, original_generator, ours_like, picture, stock_sam

from alps.engine.base.errors import ModelError, SettingsError, SourceError
from alps.engine.masks.generator import EverythingSettings, MaskGenerator
from alps.engine.runtimes.batching import fit_capacity
from alps.engine.runtimes.protocol import Capacity, DecodedMasks
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.settings import ModelDefaults, RunSettings

# pycocotools' own, under NumPy 2
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

# Random weights are sure of nothing: their logits are small and their predicted IoU is anything.
LENIENT = {
    "points_per_side": 6,
    "points_per_batch": 10,
    "pred_iou_thresh": -9.0,
    "stability_score_thresh": 0.5,
    "stability_score_offset": 0.05,
    "box_nms_thresh": 0.95,
}


@pytest.fixture(scope="module")
def stock():
    return stock_sam()


@pytest.fixture(scope="module")
def ours(stock):
    return ours_like(stock)


def both(stock, ours, image, **settings):
    settings = LENIENT | settings
    return (
        original_generator()(stock, **settings).generate(image),
        MaskGenerator(ours, **settings).generate(image),
    )


def assert_same_records(theirs, mine):
    assert len(theirs) == len(mine)
    for expected, got in zip(theirs, mine, strict=True):
        assert list(expected) == list(got)
        if isinstance(expected["segmentation"], dict):
            assert expected["segmentation"] == got["segmentation"]
        else:
            assert got["segmentation"].dtype == bool
            np.testing.assert_array_equal(expected["segmentation"], got["segmentation"])
        for name in ("area", "bbox", "crop_box", "point_coords"):
            assert expected[name] == got[name], name
        assert got["predicted_iou"] == pytest.approx(expected["predicted_iou"], abs=1e-5)
        assert got["stability_score"] == pytest.approx(
            expected["stability_score"], abs=1e-3, nan_ok=True
        )


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((64, 64), {}),
        ((50, 70), {}),
        ((70, 50), {"output_mode": "uncompressed_rle"}),
        ((150, 90), {"output_mode": "coco_rle"}),
        ((64, 64), {"stability_score_thresh": 0.0}),
        ((50, 70), {"pred_iou_thresh": 2.0, "box_nms_thresh": 1.0}),
        ((50, 70), {"pred_iou_thresh": 0.0, "box_nms_thresh": 0.7}),
        ((130, 100), {"crop_n_layers": 1}),
        ((100, 131), {"crop_n_layers": 2, "crop_n_points_downscale_factor": 2}),
        (
            (100, 90),
            {
                "crop_n_layers": 1,
                "crop_overlap_ratio": 0.2,
                "crop_nms_thresh": 0.4,
                "box_nms_thresh": 0.7,
            },
        ),
        ((80, 70), {"min_mask_region_area": 30}),
        ((110, 90), {"min_mask_region_area": 200, "crop_n_layers": 1}),
        ((7, 5), {}),
        ((1, 9), {}),
    ],
)
def test_same_records_as_the_original(stock, ours, size, settings):
    theirs, mine = both(stock, ours, picture(*size), **settings)
    assert len(theirs) > 2  # else the comparison proves little
    assert_same_records(theirs, mine)


def test_point_grids_as_in_the_original(stock, ours):
    grid = np.array([[0.1, 0.2], [0.5, 0.9], [0.99, 0.01]])
    theirs, mine = both(stock, ours, picture(40, 60), points_per_side=None, point_grids=[grid])
    assert theirs
    assert_same_records(theirs, mine)


def test_nothing_passes(stock, ours):
    theirs, mine = both(stock, ours, picture(40, 60), pred_iou_thresh=1e6)
    assert theirs == mine == []
    segments = MaskGenerator(ours, **LENIENT | {"pred_iou_thresh": 1e6}).segment(picture(40, 60))
    assert_empty(segments, (40, 60))
    assert segments.prompted == 36


def assert_empty(segments, size):
    assert len(segments) == 0
    assert segments.size == size
    assert segments.counts == []
    assert segments.boxes.shape == (0, 4)
    assert segments.embeddings.shape == (0, SMALL.embedding_channels)
    assert segments.points.shape == (0, 2)
    for array in (segments.area, segments.predicted_iou, segments.stability_score):
        assert array.shape == (0,)


def test_segments_are_the_records_as_arrays(ours):
    image = picture(90, 110)
    generator = MaskGenerator(ours, **LENIENT)
    records = [r for r in generator.generate(image) if r["area"]]
    segments = generator.segment(image)
    assert len(segments) == len(records) > 2
    for i, record in enumerate(records):
        code = coco.encode(np.asfortranarray(record["segmentation"], dtype=np.uint8))
        assert segments.counts[i] == code["counts"]
        assert segments.boxes[i].tolist() == coco.toBbox(code).tolist()
        assert segments.area[i] == record["area"]
        assert segments.points[i].tolist() == pytest.approx(record["point_coords"][0])
        assert segments.predicted_iou[i] == np.float32(record["predicted_iou"])
        assert segments.stability_score[i] == np.float32(record["stability_score"])
    types = {
        "boxes": np.int32,
        "area": np.int32,
        "predicted_iou": np.float32,
        "stability_score": np.float32,
        "points": np.float32,
        "embeddings": np.float32,
    }
    assert {name: getattr(segments, name).dtype for name in types} == types
    assert set(segments.seconds) == {"encode", "decode", "filter", "runs", "pool"}
    assert segments.prompted == 36


def masks_of(segments):
    return [
        coco.decode({"size": list(segments.size), "counts": counts}).astype(bool)
        for counts in segments.counts
    ]


def test_best_first_and_the_same_twice(ours):
    image = picture(120, 100)
    generator = MaskGenerator(ours, **LENIENT, crop_n_layers=1)
    first, second = generator.segment(image), generator.segment(image)
    assert (np.diff(first.predicted_iou) <= 0).all()
    assert first.counts == second.counts
    np.testing.assert_array_equal(first.embeddings, second.embeddings)


def test_embeddings_are_means_over_the_mask(stock, ours):
    image = picture(64, 48)
    segments = MaskGenerator(ours, **LENIENT | {"box_nms_thresh": 1.0}).segment(image)
    with torch.inference_mode():
        pixels = stock.preprocess(torch.from_numpy(image).permute(2, 0, 1).float())
        embedding = stock.image_encoder(pixels[None])[0].numpy()
    full = embedding.repeat(8, axis=1).repeat(8, axis=2)[:, :64, :48]
    assert len(segments) > 1
    for mask, pooled in zip(masks_of(segments), segments.embeddings, strict=True):
        np.testing.assert_allclose(pooled, full[:, mask].mean(axis=1), atol=1e-4)


class Squares:
    """A runtime that answers each point with a square of 8 input pixels around it.

    Its embedding is, in every channel, 100 x how often it encoded before + the cell's column.
    """

    config = SMALL
    capacity = Capacity(images=1, points=64)
    on_callers_cores = False

    def __init__(self):
        self.encoded = 0

    def encode(self, pixels):
        columns = torch.arange(8.0).expand(len(pixels), SMALL.embedding_channels, 8, 8)
        self.encoded += 1
        return columns + 100 * (self.encoded - 1)

    def reach(self, x):
        """Half a square's side, for squares at x (N, 1)."""
        return 4

    def decode(self, embedding, points, pred_iou_thresh, points_per_batch):
        pixel = torch.arange(32.0) * 2 + 1  # centres of the logits' pixels
        x, y = points.float().T[..., None]
        reach = self.reach(x)
        column, row = (pixel - x).abs() < reach, (pixel - y).abs() < reach
        inside = row[:, :, None] & column[:, None, :]
        yield DecodedMasks(
            logits=torch.where(inside, 9.0, -9.0),
            predicted_iou=torch.full((len(points),), 0.9),
            point_index=torch.arange(len(points)),
        )


def test_masks_of_crops_are_pooled_in_their_crop():
    generator = MaskGenerator(
        Squares(), 8, stability_score_thresh=0.2, crop_n_layers=1, crop_overlap_ratio=0.0
    )
    segments = generator.segment(np.zeros((128, 128, 3), np.uint8))
    origins = {1: (0, 0), 2: (0, 64), 3: (64, 0), 4: (64, 64)}  # x, y; columns of crops first
    seen = set()
    for mask, pooled in zip(masks_of(segments), segments.embeddings, strict=True):
        crop, mean_column = divmod(float(pooled[0]), 100)
        seen.add(crop)
        y, x = np.nonzero(mask)
        if crop == 0:  # halved to fit the input: a cell of 8 input pixels is 16 of the image
            assert mean_column == pytest.approx((x // 16).mean(), abs=1e-3)
            continue
        left, top = origins[crop]
        assert left <= x.min() <= x.max() < left + 64
        assert top <= y.min() <= y.max() < top + 64
        assert mean_column == pytest.approx(((x - left) // 8).mean(), abs=1e-3)
    assert seen == {0, 1, 2, 3, 4}


class Counting(TorchRuntime):
    encoded = 0

    def encode(self, pixels):
        self.encoded += len(pixels)
        return super().encode(pixels)


def test_encoder_runs_once_a_crop(ours):
    runtime = Counting(ours)
    MaskGenerator(runtime, **LENIENT, crop_n_layers=1).segment(picture(70, 80))
    assert runtime.encoded == 5


def test_nodata_everywhere_asks_nothing(ours):
    class NoEncoder(TorchRuntime):
        def encode(self, pixels):
            raise AssertionError("there is nothing to encode")

    generator = MaskGenerator(NoEncoder(ours), **LENIENT, crop_n_layers=1)
    segments = generator.segment(picture(40, 30), np.zeros((40, 30), bool))
    assert_empty(segments, (40, 30))
    assert segments.prompted == 0


def test_nodata_is_neither_prompted_nor_covered(ours):
    image, valid = picture(60, 90), np.ones((60, 90), bool)
    valid[:, :40] = False
    valid[20:30] = False
    segments = MaskGenerator(ours, **LENIENT).segment(image, valid)
    grid = (np.arange(6) + 0.5) / 6
    x, y = np.meshgrid(grid * 90, grid * 60)
    assert segments.prompted == valid[y.astype(int), x.astype(int)].sum() < 36
    assert len(segments) > 1
    for i, mask in enumerate(masks_of(segments)):
        assert not (mask & ~valid).any()
        assert segments.area[i] == mask.sum() > 0
        left, top, width, height = segments.boxes[i]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert (left, left + width - 1) == (columns[0], columns[-1])
        assert (top, top + height - 1) == (rows[0], rows[-1])
        assert valid[int(segments.points[i, 1]), int(segments.points[i, 0])]


def test_masks_are_clipped_not_changed(ours):
    """Without NMS each mask under nodata is the mask without it, minus nodata."""
    image, valid = picture(60, 60), np.ones((60, 60), bool)
    valid[:, 57:] = False  # no point lies there
    generator = MaskGenerator(ours, **LENIENT | {"box_nms_thresh": 1.0})
    plain, clipped = generator.segment(image), generator.segment(image, valid)
    expected = [mask & valid for mask in masks_of(plain)]
    expected = [mask for mask in expected if mask.any()]
    assert len(clipped) == len(expected)
    assert any((mask & ~valid).any() for mask in masks_of(plain))
    for mask, wanted in zip(masks_of(clipped), expected, strict=True):
        np.testing.assert_array_equal(mask, wanted)


def test_area_gate_comes_before_nms(ours):
    image = picture(64, 64)
    everything = MaskGenerator(ours, **LENIENT | {"box_nms_thresh": 1.0}).segment(image)
    gated = MaskGenerator(ours, **LENIENT | {"box_nms_thresh": 1.0}).segment(
        image, max_area=0.3, min_area=20
    )
    small = (everything.area <= 0.3 * 64 * 64) & (everything.area >= 20)
    assert 0 < small.sum() < len(small)
    np.testing.assert_array_equal(gated.area, everything.area[small])
    # With NMS: large masks that would have suppressed small ones are gone before.
    plain = MaskGenerator(ours, **LENIENT | {"box_nms_thresh": 0.5})
    kept = plain.segment(image, max_area=0.3)
    assert len(kept) >= (plain.segment(image).area <= 0.3 * 64 * 64).sum()
    assert len(kept) > 0


def test_small_regions_in_segments(ours):
    image, valid = picture(80, 70), np.ones((80, 70), bool)
    valid[30:40, 30:40] = False
    segments = MaskGenerator(ours, **LENIENT, min_mask_region_area=150).segment(image, valid)
    assert len(segments) > 0
    for i, mask in enumerate(masks_of(segments)):
        assert segments.area[i] == mask.sum()
        assert not (mask & ~valid).any()


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_batches_of_points_change_nothing(ours, batch):
    image = picture(70, 50)
    expected = MaskGenerator(ours, **LENIENT).segment(image)
    got = MaskGenerator(ours, **LENIENT | {"points_per_batch": batch}).segment(image)
    assert got.counts == expected.counts
    np.testing.assert_allclose(got.predicted_iou, expected.predicted_iou, atol=1e-5)


def test_blank_image(stock, ours):
    blank = np.zeros((48, 64, 3), np.uint8)
    theirs, mine = both(stock, ours, blank)
    assert_same_records(theirs, mine)


def decoded_at_once(runtime, embedding, points, threshold):
    (decoded,) = runtime.decode(embedding, points, threshold, points_per_batch=1000)
    return decoded


@pytest.mark.parametrize("decoder", ["plain", "absorbed", "compiled"])
def test_runtime_gives_only_what_passes(ours, decoder):
    runtime = TorchRuntime(ours, decoder=decoder)
    embedding = runtime.encode(torch.zeros(1, 3, 64, 64))[0]
    points = torch.from_numpy(np.random.default_rng(0).uniform(0, 64, (9, 2)))
    everything = decoded_at_once(runtime, embedding, points, 0.0)
    assert everything.logits.shape == (27, 32, 32)
    assert everything.point_index.tolist() == np.repeat(np.arange(9), 3).tolist()
    threshold = float(everything.predicted_iou.quantile(0.8))
    assert threshold > 0
    some = decoded_at_once(runtime, embedding, points, threshold)
    passed = everything.predicted_iou > threshold
    assert 0 < passed.sum() < 27
    assert torch.equal(some.point_index, everything.point_index[passed])
    torch.testing.assert_close(some.logits, everything.logits[passed])
    assert list(runtime.decode(embedding, points[:0], 0.0)) == []


@pytest.mark.parametrize("decoder", ["absorbed", "compiled"])
def test_decoders_agree(ours, decoder):
    """The absorbed decoder errs no more than twice as much as the plain one, against float64."""
    exact = copy.deepcopy(ours).double()
    rng = np.random.default_rng(1)
    embedding = torch.from_numpy(rng.normal(size=(32, 8, 8)).astype(np.float32))
    points = torch.from_numpy(rng.uniform(0, 64, (23, 2)).astype(np.float32))
    with torch.inference_mode():
        true = exact.decode_points(embedding[None].double(), points[None].double())
        logits = exact.mask_decoder.masks(true.mask_tokens[0], true.image_tokens[0])
    true_iou, true_logits = true.predicted_iou[0, :, 1:].flatten(), logits[:, 1:].flatten(0, 1)

    def error(decoder):
        got = decoded_at_once(TorchRuntime(ours, decoder=decoder), embedding, points, 0.0)
        return [
            (mine - theirs).abs().max().item()
            for mine, theirs in ((got.predicted_iou, true_iou), (got.logits, true_logits))
        ]

    for mine, plain in zip(error(decoder), error("plain"), strict=True):
        assert mine <= 2 * plain + 1e-6


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_batches_hand_out_all_points_in_order(ours, batch):
    runtime = TorchRuntime(ours)
    embedding = runtime.encode(torch.zeros(1, 3, 64, 64))[0]
    points = torch.from_numpy(np.random.default_rng(0).uniform(0, 64, (20, 2)))
    parts = list(runtime.decode(embedding, points, 0.0, batch))
    assert len(parts) == -(-20 // batch)
    index = torch.cat([part.point_index for part in parts])
    assert index.tolist() == np.repeat(np.arange(20), 3).tolist()


def test_a_gpu_out_of_memory_gets_smaller_batches_before_the_first_tile(ours, monkeypatch):
    """What torch raises there is raised here: the CPU has memory enough."""
    batches, encode = [], ours.encode

    def fails_above_two(pixels, *attend):
        batches.append(len(pixels))
        if len(pixels) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return encode(pixels, *attend)

    monkeypatch.setattr(ours, "encode", fails_above_two)
    runtime = TorchRuntime(ours, decoder="absorbed")  # as there: what is compiled is the CPU's
    runtime.capacity = Capacity(images=8, points=4)
    fit_capacity(runtime)
    assert batches == [8, 4, 2] and runtime.capacity == Capacity(images=2, points=4)
    pixels = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(runtime.encode(pixels), encode(pixels))
    assert batches[3:] == [2, 2, 1]

    def always_fails(pixels, *attend):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ours, "encode", always_fails)  # a neighbour grew
    with pytest.raises(torch.cuda.OutOfMemoryError):
        runtime.encode(pixels)
    assert runtime.capacity == Capacity(images=2, points=4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_near(ours, precision):
    image = picture(64, 64)
    exact = TorchRuntime(ours, decoder="absorbed")
    rough = TorchRuntime(ours, precision=precision, decoder="absorbed")
    pixels = ours.normalise(torch.from_numpy(image).permute(2, 0, 1))[None]
    embeddings = [runtime.encode(pixels)[0] for runtime in (exact, rough)]
    assert all(embedding.dtype == torch.float32 for embedding in embeddings)
    difference = (embeddings[0] - embeddings[1]).norm() / embeddings[0].norm()
    assert 0 < difference < 0.05
    points = torch.tensor([[20.0, 30.0]])
    ious = [
        decoded_at_once(runtime, embeddings[0], points, 0.0).predicted_iou
        for runtime in (exact, rough)
    ]
    torch.testing.assert_close(*ious, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"precision": "int3"}, "fp32, bf16, fp16"), ({"decoder": "fast"}, "compiled")],
)
def test_runtimes_that_are_none(ours, arguments, says):
    with pytest.raises(SettingsError, match=says):
        TorchRuntime(ours, **arguments)


def test_embeddings_can_be_passed_in(ours):
    images = [picture(70, 80), picture(50, 60, seed=1)]
    runtime = Counting(ours)
    generator = MaskGenerator(runtime, **LENIENT, crop_n_layers=1)
    expected = [generator.segment(image) for image in images]
    runtime.encoded = 0
    embeddings = generator.embed(images)
    assert runtime.encoded == 10
    assert [len(own) for own in embeddings] == [5, 5]
    got = [
        generator.segment(image, embeddings=own)
        for image, own in zip(images, embeddings, strict=True)
    ]
    assert runtime.encoded == 10
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.counts == theirs.counts
    stricter = MaskGenerator(runtime, **LENIENT | {"stability_score_thresh": 0.7}, crop_n_layers=1)
    assert len(stricter.generate(images[0], embeddings[0])) < len(expected[0])
    assert runtime.encoded == 10
    with pytest.raises(SourceError, match="5 crop"):
        generator.segment(images[0], embeddings=embeddings[0][:2])
    assert generator.embed([]) == []


def test_coarse_to_fine_asks_less_and_finds_nothing_new(ours):
    image = picture(64, 64)
    plain = MaskGenerator(ours, **LENIENT | {"box_nms_thresh": 1.0})
    quick = MaskGenerator(ours, **LENIENT | {"box_nms_thresh": 1.0}, coarse_to_fine=True)
    everything, some = plain.segment(image), quick.segment(image)
    assert 9 <= some.prompted < everything.prompted == 36
    assert 0 < len(some) < len(everything)
    assert set(some.counts) <= set(everything.counts)
    with pytest.raises(SettingsError, match="points_per_side"):
        MaskGenerator(ours, points_per_side=None, point_grids=[[[0, 0]]], coarse_to_fine=True)


def test_coarse_to_fine_asks_on_under_large_masks():
    """Squares of the left half are of 12 cells of the grid or more, those of the right of 6."""

    class LargeOnTheLeft(Squares):
        def reach(self, x):
            return torch.where(x < 32, 24, 10)

    generator = MaskGenerator(LargeOnTheLeft(), 8, stability_score_thresh=0.2, coarse_to_fine=True)
    segments = generator.segment(np.zeros((64, 64, 3), np.uint8))
    # 4 x 4 points, then those of the three leftmost columns: small squares cover the others.
    assert segments.prompted == 16 + (4 + 8 + 4)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"points_per_side": None}, "exactly one"),
        ({"point_grids": [np.zeros((1, 2))]}, "exactly one"),
        ({"points_per_side": 0}, "points_per_side is 0"),
        ({"points_per_side": 2.5}, "whole number"),
        ({"points_per_batch": 0}, "points_per_batch"),
        ({"pred_iou_thresh": float("nan")}, "finite"),
        ({"box_nms_thresh": 1.5}, "within 0 and 1"),
        ({"crop_n_layers": -1}, "crop_n_layers"),
        ({"crop_n_layers": 6, "crop_n_points_downscale_factor": 2}, "no point"),
        ({"points_per_side": None, "point_grids": [np.ones((2, 3))]}, r"\(n, 2\)"),
        ({"points_per_side": None, "point_grids": [np.full((1, 2), 1.2)]}, r"\(n, 2\)"),
        (
            {"points_per_side": None, "point_grids": [np.ones((1, 2))], "crop_n_layers": 1},
            "need 2",
        ),
        ({"output_mode": "png"}, "coco_rle"),
        ({"min_mask_region_area": -3}, "min_mask_region_area"),
    ],
)
def test_settings_that_cannot_work(settings, says):
    with pytest.raises(SettingsError, match=says):
        EverythingSettings(**settings)


def test_settings_are_stocks_settings():
    stock = inspect.signature(original_generator()).parameters
    ours = inspect.signature(EverythingSettings).parameters
    assert list(stock)[1:] == list(ours)
    assert [p.default for p in list(stock.values())[1:]] == [p.default for p in ours.values()]
    grid = [np.array([[0.25, 0.5]])]
    assert EverythingSettings(None, point_grids=grid) == EverythingSettings(None, point_grids=grid)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 3), np.float32),
        np.zeros((0, 5, 3), np.uint8),
        [[1]],
    ],
    ids=["grey", "rgba", "float", "empty", "list"],
)
def test_images_that_are_none(ours, image):
    generator = MaskGenerator(ours, **LENIENT)
    for call in (generator.generate, generator.segment):
        with pytest.raises(SourceError, match=r"\(H, W, 3\)"):
            call(image)


def test_other_bad_arguments(ours):
    with pytest.raises(SourceError, match="valid"):
        MaskGenerator(ours).segment(picture(8, 8), np.ones((9, 8), bool))
    with pytest.raises(ModelError, match="load_sam"):
        MaskGenerator("vit_b")


def test_settings_of_a_run_fall_back_to_those_of_the_original(ours):
    filled = RunSettings().for_model(ModelDefaults()).segment
    generator = MaskGenerator.for_run(TorchRuntime(ours), filled)
    assert generator.settings == EverythingSettings()
