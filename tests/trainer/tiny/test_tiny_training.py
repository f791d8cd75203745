"""The training of `tiny`: its prompts and its two stages."""

import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("skimage", reason="training needs scikit-image: pip install -e .[train]")

import speck

from alps.engine.base.errors import AlpsError, SettingsError
from alps.engine.sam import Sam
from alps.trainer.loop.lines import keep_before
from alps.trainer.loop.state import State
from alps.trainer.tiny import train
from alps.trainer.tiny.cells import carry_cells
from alps.trainer.tiny.pool import Pool
from alps.trainer.tiny.prompts import (
    Batch,
    batches,
    draw_points,
    masks_at,
)
from alps.trainer.tiny.recipe import PoolSettings, TinyRecipe, TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")


# --- prompts


def nested_levels(side=64, seed=0):
    """(3, side, side) uint16, fine to coarse: unequal rectangles, merged twice; 0 is no region."""
    rng = np.random.default_rng(seed)
    cuts = [np.sort(rng.choice(np.arange(2, side - 1), 7, replace=False)) for _ in range(2)]
    rows, columns = (np.searchsorted(c, np.arange(side), side="right") for c in cuts)
    fine = 8 * rows[:, None] + columns[None]  # 0 … 63
    middle = 8 * (rows[:, None] // 2) + columns[None] // 2
    coarse = np.where(rows[:, None] < 4, middle, 100 + columns[None] // 4)  # above as in the middle
    gap = (rows[:, None] == 5) & (columns[None] < 3)
    return np.stack([np.where(gap, 0, level + 1) for level in (fine, middle, coarse)]).astype(
        np.uint16
    )


@pytest.mark.parametrize("seed", range(5))
def test_points_lie_in_their_masks(seed):
    levels = nested_levels(seed=seed)
    least, most = 30, 0.2
    xy = draw_points(levels, np.random.default_rng(seed), 40)
    assert xy.shape == (40, 2) and xy.min() >= 0 and xy.max() < 64
    tensors = (torch.from_numpy(array)[None] for array in (levels.astype(np.int32), xy))
    prompts = masks_at(Batch(torch.zeros(1, 128, 128, 3), *tensors), least, most, size=128)
    truth, valid = prompts.truth.numpy(), prompts.valid.numpy()
    assert truth.shape == (40, 3, 32, 32) and valid.shape == (40, 3)
    assert truth.dtype == np.float32 and valid.dtype == bool
    assert torch.equal(prompts.xy[0], torch.from_numpy(xy) * 2 + 0.5)
    seen = set()
    for (x, y), masks, flags in zip(xy, truth, valid, strict=True):
        areas = []
        for level in range(3):
            number = levels[level, y, x]
            mask = (levels[level] == number) & (number > 0)
            assert (masks[level] == mask.reshape(32, 2, 32, 2).mean((1, 3))).all()
            fits = least <= mask.sum() <= most * 64 * 64
            again = level > 0 and mask.sum() == areas[-1]
            assert flags[level] == (fits and not again)
            seen.add((bool(fits), bool(again)))
            areas.append(mask.sum())
            if flags[level]:
                assert masks[level, y // 2, x // 2] > 0
    assert seen >= {(True, False), (True, True), (False, False)}


def test_small_regions_are_asked_too():
    """Uniform over pixels alone, a region of one pixel would hardly be met."""
    levels = np.ones((3, 64, 64), np.uint16)
    levels[:, 10, 20] = 2
    xy = draw_points(levels, np.random.default_rng(0), 40)
    assert 5 < (xy == [20, 10]).all(1).sum() < 20


CONFIG = replace(speck.CONFIG, encoder_width=24, encoder_depth=2)


def with_cells(images):
    """A model whose encoder lets the cells of patches pass, and where to read them."""
    torch.manual_seed(3)
    model = Sam(CONFIG)
    pixels = model.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
    return model, carry_cells(model, pixels)


@pytest.fixture(scope="module")
def pool():
    """Five images whose red is the fine region's id, green the coarse one's."""
    levels = np.stack([nested_levels(seed=seed) for seed in range(5)])
    large = levels.repeat(2, axis=2).repeat(2, axis=3)
    blue = np.random.default_rng(0).integers(0, 255, large[:, 0].shape)
    return Pool(np.stack([large[:, 0], large[:, 2], blue], axis=-1).astype(np.uint8), levels)


SETTINGS = TrainSettings(
    decoder_steps=6, joint_steps=6, images=2, points=4, warmup=2, balance_steps=4,
    decoder_rate=3e-3, joint_rate=3e-3, encoder_rate=1e-3, single_every=3,
)  # fmt: skip
RECIPE = TinyRecipe(model=CONFIG, train=SETTINGS)


def draw(pool, start=0, seed=1):
    return batches(pool, seed=seed, start=start, images=3, points=10)


def masks(batch):
    return masks_at(batch, min_pixels=20, max_share=0.5, size=128)


def test_batches_depend_on_the_step_alone(pool):
    through = draw(pool)
    for step in range(6):
        expected, found = next(through), next(draw(pool, start=step))
        for name in ("images", "levels", "xy"):
            assert torch.equal(getattr(expected, name), getattr(found, name))
    assert not torch.equal(next(draw(pool)).xy, next(draw(pool, seed=2)).xy)


def assert_points_in_place(batch):
    """In images (B, 128, 128, 3) whose red is the fine region, as truth and points have it."""
    prompts = masks(batch)
    assert prompts.xy.shape == (3, 10, 2) and prompts.xy.dtype == torch.float32
    assert prompts.truth.shape == (30, 3, 32, 32) and prompts.valid.shape == (30, 3)
    red, green = batch.images[..., 0], batch.images[..., 1]
    asked = 0
    for image, per_image in enumerate(prompts.xy):
        for point, (x, y) in enumerate(per_image):
            row = image * 10 + point
            for level, shown in ((0, red[image]), (2, green[image])):
                if not prompts.valid[row, level]:
                    continue
                asked += 1
                mask = shown == shown[int(y), int(x)]
                truth = prompts.truth[row, level]
                assert torch.equal(F.avg_pool2d(mask[None].float(), 4)[0], truth)
                assert truth[int(y) // 4, int(x) // 4] > 0
    assert asked > 10
    return prompts


def test_batches_put_points_into_input_pixels(pool):
    assert_points_in_place(next(draw(pool)))


def test_flips_and_turns_take_points_and_truth_along(pool):
    batch = next(draw(pool))
    turned = [batch.turned(turns, flip) for turns in range(4) for flip in (False, True)]
    valid = [assert_points_in_place(one).valid for one in turned]
    assert all(torch.equal(valid[0], one) for one in valid)
    for a in range(8):
        for b in range(a):
            assert not torch.equal(turned[a].images, turned[b].images)


def test_each_step_sees_another_side(pool, monkeypatch):
    """Eight steps see one batch in eight ways, and no two lit alike."""
    model = Sam(CONFIG)
    seen, lit = set(), set()
    real = Batch.turned
    monkeypatch.setattr(
        Batch,
        "turned",
        lambda self, turns, flip: seen.add((turns, flip)) or real(self, turns, flip),
    )
    tokens = model.image_encoder.tokens
    model.image_encoder.tokens = lambda pixels: lit.add(pixels.mean().item()) or tokens(pixels)
    stage, batch = train.decoder_stage(model, SETTINGS), next(draw(pool))
    for step in range(8):
        train._step(stage, model, batch, step, SETTINGS)
    assert len(seen) == len(lit) == 8


# --- the stages


def start_training(pool):
    """What make_tiny does before the first stage, in miniature."""
    model, directions = with_cells(pool.images)
    train.initialise(model, pool, directions, seed=0)
    averaged = Sam(CONFIG)
    averaged.load_state_dict(model.state_dict())
    return model, averaged


def stages(model):
    return train.decoder_stage(model, SETTINGS), train.joint_stage(model, SETTINGS)


def train_through(pool, out):
    """Both stages; returns the weights, and those averaged."""
    out.mkdir(exist_ok=True)
    model, averaged = start_training(pool)
    for stage in stages(model):
        train.run_stage(stage, model, averaged, train.Workshop(out, pool, RECIPE, 2))
    return model.state_dict() | {"a." + k: v for k, v in averaged.state_dict().items()}


@pytest.fixture(scope="module")
def undisturbed(pool, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    return train_through(pool, out), out


def read_log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_training_learns_and_writes_its_log(undisturbed):
    weights, out = undisturbed
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    lines = read_log(out)
    assert [(line["stage"], line["step"], line["steps"]) for line in lines] == [
        (stage, step, 2) for stage in ("decoder", "joint") for step in (1, 3, 5)
    ]
    loss = [line["loss"] for line in lines if line["stage"] == "decoder"]
    assert loss[-1] < loss[0]
    assert [("single_loss" in line) for line in lines] == [False, True, True] * 2
    assert [len(line["gradient_norm"]) for line in lines] == [1, 1, 1, 2, 2, 2]


def test_a_line_that_was_not_ended_is_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [{"stage": "decoder", "step": 3}, {"stage": "joint", "step": 3}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "joi')
    keep_before(path, 4, "joint")
    assert read_log(tmp_path) == lines
    keep_before(path, 3, "joint")
    assert read_log(tmp_path) == lines[:1]


def test_a_loss_that_is_no_number_ends_it(pool, tmp_path):
    model, averaged = start_training(pool)
    with torch.no_grad():
        model.mask_decoder.iou_token.weight.fill_(float("nan"))
    stage, _ = stages(model)
    with pytest.raises(AlpsError, match="no number any more at step 1 of the decoder stage"):
        train.run_stage(stage, model, averaged, train.Workshop(tmp_path, pool, RECIPE, 2))
    assert not (tmp_path / "decoder.pt").exists()


def test_the_decoder_stage_leaves_the_encoder_alone(pool, tmp_path):
    model, averaged = start_training(pool)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stage, _ = stages(model)
    train.run_stage(stage, model, averaged, train.Workshop(tmp_path, pool, RECIPE))
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert not {n for n in changed if n.startswith("image_encoder") and "neck" not in n}
    assert {"image_encoder.neck.0.weight", "mask_decoder.iou_token.weight"} <= changed
    assert "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix" not in changed


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [(1, 3), (5, 7), (10,)])
def test_killed_and_resumed_ends_with_the_same_weights(
    pool, undisturbed, tmp_path, monkeypatch, killed_at
):
    real = State.average
    for steps in killed_at:  # counted from each start, lost ones again
        left = [steps]

        def average(*arguments, left=left):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            real(*arguments)

        monkeypatch.setattr(State, "average", average)
        with pytest.raises(KeyboardInterrupt):
            train_through(pool, tmp_path)
    monkeypatch.setattr(State, "average", real)
    found, (expected, out) = train_through(pool, tmp_path), undisturbed
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    timeless = [
        [
            line | dict.fromkeys(("seconds", "images_per_second", "waited"), 0)
            for line in read_log(folder)
        ]
        for folder in (tmp_path, out)
    ]
    assert timeless[0] == timeless[1]


def test_killed_while_writing_a_checkpoint(pool, undisturbed, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        train_through(pool, tmp_path)
    assert not (tmp_path / "decoder.pt").exists()
    monkeypatch.undo()
    found, (expected, _) = train_through(pool, tmp_path), undisturbed
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert {path.name for path in tmp_path.iterdir()} == {"decoder.pt", "joint.pt", "log.jsonl"}


def test_a_finished_training_does_nothing_more(pool, undisturbed, monkeypatch):
    expected, out = undisturbed
    monkeypatch.setattr(train, "batches", lambda *_, **__: pytest.fail("trained again"))
    found = train_through(pool, out)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from alps.trainer.commands import train_tiny

    for module in ("onnx", "alps.trainer.tiny.make", "alps.trainer.tiny.backbone"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    wheel = tmp_path / "backbone.whl"
    wheel.touch()
    found = CliRunner().invoke(train_tiny, ["images", str(tmp_path), "--backbone", str(wheel)])
    assert isinstance(found.exception, SettingsError)
    assert "onnx" in str(found.exception) and "[train]" in str(found.exception)


# --- the whole recipe


@pytest.fixture
def backbone(monkeypatch):
    """Random weights in place of the wheel's."""
    from alps.trainer.tiny import make

    def weights(path, config):
        torch.manual_seed(5)
        return Sam(config).image_encoder.state_dict()

    monkeypatch.setattr(make, "encoder_weights", weights)
    return "a wheel"


@pytest.mark.slow
def test_from_images_to_weights(scene_sources, backbone, tmp_path):
    from alps.engine.models.checkpoints import load_sam
    from alps.trainer.tiny.make import MakeOptions, make_tiny

    recipe = replace(RECIPE, pool=PoolSettings(scenes=2, crops=3))
    cpu = MakeOptions(torch.device("cpu"), checkpoint_every=4)
    path = make_tiny(scene_sources, tmp_path / "out", backbone, recipe, options=cpu)
    model, info = load_sam(path)
    assert model.config == CONFIG and info.defaults == recipe.defaults
    assert [line["step"] for line in read_log(tmp_path / "out")] == [3, 5, 3, 5]
    again = make_tiny(scene_sources, tmp_path / "out", backbone, recipe, options=cpu)
    assert again.read_bytes() == path.read_bytes()
    for name, value in {"points": 5, "seed": 1, "decoder_steps": 8}.items():
        other = replace(recipe, train=replace(recipe.train, **{name: value}))
        with pytest.raises(SettingsError, match=f"another {name}; give that again"):
            make_tiny(scene_sources, tmp_path / "out", backbone, other, options=cpu)
    longer = replace(recipe, train=replace(recipe.train, joint_steps=8))
    make_tiny(scene_sources, tmp_path / "out", backbone, longer, options=cpu)
    assert [line["step"] for line in read_log(tmp_path / "out")] == [3, 5, 3, 5, 7]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"images": 9}, "--images 9: there are 2 scenes and 3 crops"),
        ({"images": 0}, "--images 0"),
        ({"points": 0}, "--points 0"),
        ({"joint_steps": -1}, "--joint-steps -1"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_settings_that_cannot_work(asked, said):
    with pytest.raises(SettingsError, match=said):
        TinyRecipe(pool=PoolSettings(scenes=2, crops=3), train=replace(SETTINGS, **asked))
    with pytest.raises(SettingsError, match="--crops 0"):
        PoolSettings(crops=0)
