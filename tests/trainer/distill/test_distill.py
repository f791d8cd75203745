"""The parts of `alps distill`: the student's shape and start, windows, loss, agreement."""

import copy
import dataclasses
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import distilling
import numpy as np
import pyarrow as pa
import pytest
import rasterio
import speck
import torch
from click.testing import CliRunner

from alps.engine.base.errors import ModelError, RunFolderError, SettingsError, SourceError
from alps.engine.images.sources import find_sources
from alps.engine.masks.crops import Crop, network_pixels
from alps.engine.models.checkpoints import load_sam, save_sam
from alps.engine.planning.make import make_plan
from alps.engine.sam import OFFICIAL, ModelDefaults, Sam
from alps.engine.sam.image_encoder import ImageEncoder
from alps.engine.settings import FilledSourceSettings, SegmentSettings, SourceSettings
from alps.trainer.distill import data, targets
from alps.trainer.distill.agreement import measure_agreement
from alps.trainer.distill.command import distill as command
from alps.trainer.distill.data import Draws, WindowReader, split_windows
from alps.trainer.distill.lesson import schedule_of
from alps.trainer.distill.loss import (
    Statistics,
    embedding_loss,
    mean_cosine,
    measure_statistics,
)
from alps.trainer.distill.recipe import (
    AgreementSettings,
    DistillSettings,
    StudentSettings,
    TrainSettings,
)
from alps.trainer.distill.start import balance, fit_neck, look
from alps.trainer.distill.student import assemble, new_student, student_config
from alps.trainer.processes import Processes

pytestmark = pytest.mark.usefixtures("one_thread")

ALONE = Processes(0, 1, torch.device("cpu"))


# --- settings


@pytest.mark.parametrize(
    ("train", "option"),
    [
        ({"batch": 0}, "--batch 0"),
        ({"steps": -1}, "--steps -1"),
        ({"warmup": 1.5}, "--warmup 1.5"),
        ({"ema": 1.0}, "--ema 1.0"),
        ({"hold_out": 0.95}, "--hold-out 0.95"),
        ({"cache_gb": -1.0}, "--cache-gb -1.0"),
        ({"seed": -1}, "--seed -1"),
        ({"rate": float("nan")}, "--rate nan"),
        ({"precision": "float16"}, "--precision float16"),
    ],
)
def test_values_that_cannot_work_name_their_option(train, option):
    settings = DistillSettings(train=TrainSettings(**train))
    with pytest.raises(SettingsError, match=option):
        settings.for_teacher(ModelDefaults())


def test_windows_and_prompts_come_from_the_teacher():
    filled = DistillSettings().for_teacher(speck.DEFAULTS)
    assert filled.source == FilledSourceSettings(tile=128, overlap=16)
    assert filled.agreement.points_per_side == 6
    segment = filled.everything(speck.DEFAULTS).segment
    assert segment.box_nms_thresh == 0.95 and segment.points_per_side == 6
    asked = DistillSettings(
        source=SourceSettings(tile=64), agreement=AgreementSettings(points_per_side=3)
    ).for_teacher(speck.DEFAULTS)
    assert asked.source.tile == 64 and asked.agreement.points_per_side == 3


def test_every_setting_is_an_option_with_its_default():
    options = {option.name: option for option in command.params}
    for cls in (StudentSettings, TrainSettings, SourceSettings, AgreementSettings):
        for field in dataclasses.fields(cls):
            assert options[field.name].default == field.default
            assert options[field.name].help == field.metadata["help"]


def test_options_reach_their_settings(monkeypatch):
    from alps.trainer.distill import distill as module

    seen = []
    monkeypatch.setattr(module, "distill", lambda *arguments: seen.append(arguments))
    given = [
        "images", "out", "--teacher", "vit_b", "--student", "tiny", "--global-blocks", "2",
        "--rate", "1e-3", "--no-augment", "--cache-gb", "1.5", "--tile", "512",
        "--points-per-side", "8", "--checkpoint-every", "7", "--device", "cpu",
    ]  # fmt: skip
    done = CliRunner().invoke(command, given)
    assert done.exit_code == 0, done.output
    expected = DistillSettings(
        SourceSettings(tile=512),
        StudentSettings(student="tiny", global_blocks=2),
        TrainSettings(rate=1e-3, augment=False, cache_gb=1.5),
        AgreementSettings(points_per_side=8),
    )
    assert seen == [
        ("images", Path("out"), "vit_b", expected, module.DistillOptions("cpu", 7)),
    ]


# --- the student


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("preset", ["half", "small", "tiny"])
def test_presets_fit_every_official_teacher(name, preset):
    teacher = OFFICIAL[name]
    config = student_config(teacher, StudentSettings(student=preset))
    assert config.window_size == 14 and config.relative_positions
    assert 1 <= len(config.global_blocks) <= 4
    assert max(config.global_blocks) == config.encoder_depth - 1
    if preset == "half":
        assert config.global_blocks == teacher.global_blocks[:2]
        assert config.encoder_depth * 2 == teacher.encoder_depth
        assert config.encoder_heads == teacher.encoder_heads
    else:
        assert config.encoder_width == 64 * config.encoder_heads
    # All but the encoder is the teacher's, so that its decoder can be kept.
    own = ("encoder_width", "encoder_depth", "encoder_heads", "global_blocks")
    assert replace(config, **{n: getattr(teacher, n) for n in own}) == teacher
    with torch.device("meta"):
        own, other = ImageEncoder(config), ImageEncoder(teacher)
    assert sum(p.numel() for p in own.parameters()) < sum(p.numel() for p in other.parameters())


def test_explicit_dimensions_win_over_the_preset():
    settings = StudentSettings("small", width=96, depth=4, heads=4, window=7, global_blocks=2)
    config = student_config(OFFICIAL["vit_b"], settings)
    found = (config.encoder_width, config.encoder_depth, config.encoder_heads, config.window_size)
    assert found == (96, 4, 4, 7) and config.global_blocks == (1, 3)
    config = student_config(OFFICIAL["vit_b"], replace(settings, window=0))
    assert config.window_size == 0 and config.global_blocks == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 33}, "--heads 2: must divide --width 33"),
        ({"width": 0}, "--width 0"),
        ({"depth": 0}, "--depth 0"),
        ({"heads": 0}, "--heads 0"),
        ({"window": 9}, "--window 9: .* grid's side, 8"),
        ({"depth": 2, "global_blocks": 3}, "--global-blocks 3: must be between 0 and --depth 2"),
        ({"depth": 4}, "nothing to gain"),
        ({"width": 64, "depth": 4}, "nothing to gain"),
    ],
)
def test_dimensions_that_cannot_work(settings, words):
    if "width" in settings and settings["width"] == 33:
        settings = settings | {"heads": 2}
    with pytest.raises(SettingsError, match=words):
        new_student(Sam(distilling.PLAIN), StudentSettings(**settings), seed=0)


def test_a_student_of_equal_width_starts_with_the_teachers_layers():
    teacher = distilling.lively(distilling.OFFICIAL_LIKE)
    student = new_student(teacher, StudentSettings(depth=3), seed=0)
    assert student.start == "the first 3 layers of the teacher"
    assert student.config.global_blocks == (2,)
    own, source = student.encoder.state_dict(), teacher.image_encoder.state_dict()
    assert all(torch.equal(tensor, source[name]) for name, tensor in own.items())
    before = source["pos_embed"].clone()
    own["pos_embed"].add_(1)  # a copy: learning must not change the teacher
    assert torch.equal(teacher.image_encoder.pos_embed, before)


def test_a_student_without_a_global_layer_gets_one():
    teacher = distilling.lively(distilling.OFFICIAL_LIKE)
    student = new_student(teacher, StudentSettings(depth=2), seed=0)
    assert student.config.global_blocks == (1,)
    # The teacher's second layer has tables for a window: for a grid they begin anew; it is said.
    assert "random blocks.1.attn.rel_pos_h, blocks.1.attn.rel_pos_w" in student.start


def test_a_narrower_student_starts_at_random_by_the_seed():
    teacher = distilling.lively(distilling.OFFICIAL_LIKE)
    settings = StudentSettings(width=16, heads=2)
    one, same, other = (new_student(teacher, settings, seed) for seed in (0, 0, 1))
    states = [s.encoder.state_dict() for s in (one, same, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["pos_embed"], states[2]["pos_embed"])
    # The neck's second half does not depend on the width.
    assert torch.equal(states[0]["neck.2.weight"], teacher.image_encoder.neck[2].weight)
    assert one.start.startswith("random")


def test_the_student_keeps_the_teachers_decoder_and_survives_its_file(tmp_path):
    teacher = distilling.lively(distilling.OFFICIAL_LIKE)
    student = new_student(teacher, StudentSettings(depth=2), seed=0)
    model = assemble(teacher, student.encoder, student.config)
    save_sam(model, tmp_path / "student.safetensors", speck.DEFAULTS, dtype=torch.float32)
    loaded, info = load_sam(tmp_path / "student.safetensors")
    assert info.config == student.config and info.defaults == speck.DEFAULTS
    pixels = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(loaded.encode(pixels), student.encoder(pixels))
    state, source = loaded.state_dict(), teacher.state_dict()
    kept = [name for name in state if not name.startswith("image_encoder.")]
    assert len(kept) > 50 and all(torch.equal(state[name], source[name]) for name in kept)


def test_init_takes_encoder_and_shape_of_a_checkpoint(tmp_path):
    shape = replace(distilling.PLAIN, encoder_depth=2, encoder_width=16)
    init = distilling.save_teacher(tmp_path / "init.safetensors", shape)
    student = new_student(
        distilling.lively(distilling.PLAIN), StudentSettings(init=str(init)), seed=0
    )
    assert student.config == shape and student.start.startswith("the encoder of init (")
    expected = load_sam(init)[0].image_encoder.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in student.encoder.state_dict().items())


def test_init_that_does_not_fit_the_decoder_is_refused(tmp_path):
    other = replace(distilling.PLAIN, encoder_depth=2, embedding_channels=32)
    init = distilling.save_teacher(tmp_path / "other.safetensors", other)
    with pytest.raises(ModelError, match="embedding_channels 32, the teacher's is 16"):
        new_student(Sam(distilling.PLAIN), StudentSettings(init=str(init)), seed=0)
    settings = DistillSettings(student=StudentSettings(init=str(init), depth=1))
    with pytest.raises(SettingsError, match="leave out --depth"):
        settings.for_teacher(speck.DEFAULTS)


# --- the start


@pytest.fixture
def seen(plan):
    """A student of the official layout and what the first windows show of it."""
    teacher = distilling.lively(distilling.OFFICIAL_LIKE).eval()
    encoder = new_student(teacher, StudentSettings(depth=3), seed=0).encoder
    with WindowReader(plan, None, distilling.OFFICIAL_LIKE) as reader:
        windows = list(reader.upright(np.arange(7)))
    return teacher, encoder, windows, look(teacher, encoder, windows, plainly)


def plainly():
    return torch.autocast("cpu", torch.bfloat16, enabled=False)


def cells(images, windows):
    """(B, D, h, w) -> those cells (n, D) float64 that lie wholly in their windows."""
    weight = torch.stack([window.weight for window in windows])
    return images.permute(0, 2, 3, 1)[weight == 1].double()


@torch.no_grad()
def test_the_first_look_is_what_the_networks_show(seen):
    teacher, encoder, windows, found = seen
    pixels = torch.stack([window.pixels for window in windows])
    weight = torch.stack([window.weight for window in windows])
    expected = measure_statistics(teacher.encode(pixels), weight)
    torch.testing.assert_close(found.statistics.mean, expected.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.statistics.deviation, expected.deviation, rtol=1e-4, atol=0)
    tokens = encoder.tokens(pixels).double()
    moments = torch.einsum("bhwi,bhwj,bhw->ij", tokens, tokens, weight.double())
    torch.testing.assert_close(found.second_moments[:-1, :-1], moments, rtol=1e-4, atol=1e-2)
    assert found.weight == pytest.approx(weight.sum().item()) and found.reasons == []
    assert found.second_moments[-1, -1].item() == pytest.approx(found.weight)


@torch.no_grad()
def test_balance_changes_the_scale_and_not_the_function(seen):
    _, encoder, windows, found = seen
    pixels = torch.stack([window.pixels for window in windows])
    assert abs(float(encoder.tokens(pixels).square().mean().sqrt()) - 1) > 0.3
    before, products = encoder(pixels), found.products.clone()
    balance(encoder, found)
    torch.testing.assert_close(encoder(pixels), before, rtol=0, atol=2e-3)
    tokens = cells(encoder.tokens(pixels).permute(0, 3, 1, 2), windows)
    assert tokens.square().mean().sqrt().item() == pytest.approx(1, abs=0.1)
    # What was seen is seen of the balanced one.
    weight = torch.stack([window.weight for window in windows]).double()
    again = torch.einsum("bhwi,bhwi,bhw->i", *[encoder.tokens(pixels).double()] * 2, weight)
    torch.testing.assert_close(found.second_moments.diagonal()[:-1], again, rtol=1e-3, atol=0)
    assert not torch.equal(found.products[:-1], products[:-1])
    assert torch.equal(found.products[-1], products[-1])


@torch.no_grad()
def test_the_fitted_neck_is_the_best_linear_one(seen):
    teacher, encoder, windows, found = seen
    pixels = torch.stack([window.pixels for window in windows])
    wanted = teacher.image_encoder.neck[0](teacher.image_encoder.tokens(pixels).permute(0, 3, 1, 2))

    def error():
        given = encoder.neck[0](encoder.tokens(pixels).permute(0, 3, 1, 2))
        weight = torch.stack([window.weight for window in windows])
        return float(((given - wanted).square().sum(1) * weight).sum())

    untouched = error()
    balance(encoder, found)
    fit_neck(encoder, found)
    fitted = error()
    assert fitted < 0.5 * untouched
    generator = torch.Generator().manual_seed(0)
    best = encoder.neck[0].weight.clone()
    for _ in range(5):
        step = 0.05 * best.std() * torch.randn(best.shape, generator=generator)
        encoder.neck[0].weight.copy_(best + step)
        assert error() > fitted


# --- windows


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return distilling.save_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def plan(images):
    return make_plan(find_sources(images), SourceSettings(tile=128, overlap=16))


def some_plan(windows_of_images):
    """Columns that a split needs; an image with None windows could not be opened."""
    rows = []
    for image, windows in enumerate(windows_of_images):
        rows += [(image, "" if windows else "broken")] * (windows or 1)
    index, reasons = zip(*rows, strict=True)
    return pa.table({"source_index": pa.array(index, pa.int32()), "reason": list(reasons)})


def test_whole_images_are_held_out_where_there_are_many():
    table = some_plan([3, None, 4] * 10)
    split = split_windows(table, 0.2, seed=0)
    image = table.column("source_index").to_numpy()
    broken = {1 + 3 * i for i in range(10)}
    assert split.by == "image" and len(set(image[split.held_out])) == 4
    assert not set(image[split.held_out]) & set(image[split.train])
    assert set(image[split.held_out]) | set(image[split.train]) == set(range(30)) - broken
    assert len(split.held_out) + len(split.train) == 70
    again, other = split_windows(table, 0.2, seed=0), split_windows(table, 0.2, seed=1)
    assert (again.held_out == split.held_out).all()
    assert set(other.held_out) != set(split.held_out)


def test_windows_of_few_images_are_held_out_one_by_one():
    split = split_windows(some_plan([20, 20]), 0.1, seed=0)
    assert split.by == "window" and len(split.held_out) == 4 and len(split.train) == 36
    assert not set(split.held_out) & set(split.train)
    smallest = split_windows(some_plan([2]), 0.0, seed=0)
    assert len(smallest.held_out) == len(smallest.train) == 1
    assert len(split_windows(some_plan([4]), 0.9, seed=0).train) == 1


@pytest.mark.parametrize("windows", [[1], [1, None, None]])
def test_too_few_windows_say_how_many_are_needed(windows):
    with pytest.raises(SourceError, match=r"1 windows .* at least 2 .*smaller --tile"):
        split_windows(some_plan(windows), 0.1, seed=0)


def test_draws_depend_on_the_number_alone():
    through, apart = Draws(10, 7, oriented=True), Draws(10, 7, oriented=True)
    batches = [through.batch(step, 4) for step in range(50)]
    assert [apart.batch(step, 4) for step in reversed(range(50))] == batches[::-1]
    drawn = [draw.index for batch in batches for draw in batch]
    for epoch in range(20):  # each window once an epoch
        assert sorted(drawn[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert drawn[:10] != drawn[10:20]
    assert {draw.orientation for batch in batches for draw in batch} == set(range(8))
    # Two processes of half a batch see together what one sees.
    assert batches[3][ALONE.share(4)] == batches[3]
    halves = [Processes(rank, 2, torch.device("cpu")).share(4) for rank in (0, 1)]
    assert batches[3][halves[0]] + batches[3][halves[1]] == batches[3]
    upright = Draws(10, 7, oriented=False).batch(0, 10)
    assert {draw.orientation for draw in upright} == {0}
    assert [draw.index for draw in upright] == drawn[:10]


def test_orientations_are_eight():
    image = np.arange(6).reshape(2, 3)
    seen = {data.turned(image, k).tobytes() + bytes(data.turned(image, k).shape) for k in range(8)}
    assert len(seen) == 8 and (data.turned(image, 0) == image).all()


@pytest.mark.parametrize("shape", [(128, 128), (100, 128), (64, 256), (30, 7), (128, 129)])
def test_weights_are_shares_of_valid_pixels(shape):
    valid = np.random.default_rng(0).random(shape) > 0.3
    valid[: shape[0] // 2, : shape[1] // 3] = False
    weight = data.cell_weights(valid, distilling.PLAIN).numpy()
    assert weight.shape == (8, 8) and weight.dtype == np.float32
    rows, columns = Crop(0, 0, shape[1], shape[0], 0).input_size(128)
    # Each pixel of the input samples the image; its mean over cells is the area's.
    assert weight.sum() * 256 == pytest.approx(valid.mean() * rows * columns, rel=0.02)
    seen = weight.repeat(16, 0).repeat(16, 1)
    assert not seen[-(-rows // 16) * 16 :].any() and not seen[:, -(-columns // 16) * 16 :].any()
    full = data.cell_weights(np.ones(shape, bool), distilling.PLAIN)
    assert full[0, 0] == min(1, rows / 16) * min(1, columns / 16) and full.max() <= 1


def test_windows_reach_the_network_as_everything_mode_shows_them(images, plan):
    with WindowReader(plan, None, distilling.PLAIN) as reader:
        upright = list(reader.upright(np.arange(plan.num_rows)))
        turned = [read.result() for read in reader.read([3], [5])]
    for row, window in zip(plan.to_pylist(), upright, strict=True):
        with rasterio.open(row["path"]) as file:
            place = rasterio.windows.Window(row["x"], row["y"], row["width"], row["height"])
            image = np.moveaxis(file.read(window=place), 0, -1)
        assert (window.rgb == image).all() and window.valid.all() and window.reason == ""
        crop = Crop(0, 0, image.shape[1], image.shape[0], 0)
        assert torch.equal(window.pixels, network_pixels(image, crop, 128))
    assert (turned[0].rgb == data.turned(upright[3].rgb, 5)).all()


def test_a_window_that_cannot_be_read_shows_nothing_and_says_why(tmp_path):
    folder = distilling.save_images(tmp_path / "images", count=2)
    table = make_plan(find_sources(folder), SourceSettings(tile=128, overlap=16))
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    with WindowReader(table, None, distilling.PLAIN) as reader:
        windows = list(reader.upright(np.arange(table.num_rows)))
    failed = [w for w in windows if w.reason]
    assert 0 < len(failed) < len(windows)
    for window in failed:
        assert "1.png" in window.reason and not window.weight.any() and not window.valid.any()


# --- the teacher's embeddings


@pytest.fixture(scope="module")
def teacher():
    return distilling.lively(distilling.PLAIN).eval()


def look_up(teacher, reader, plan):
    rows = np.arange(plan.num_rows)
    return targets.Targets(
        teacher, reader, rows, lambda: torch.autocast("cpu", torch.bfloat16, enabled=False)
    )


def test_targets_are_the_teachers_embeddings(teacher, plan):
    draws = Draws(plan.num_rows, 0, oriented=True)
    with WindowReader(plan, None, distilling.PLAIN) as reader:
        steps = [draws.batch(step, 5) for step in range(3)]
        batches = list(look_up(teacher, reader, plan).batches(iter(steps)))
    assert len(batches) == 3
    for batch in batches:
        with torch.no_grad():
            expected = teacher.encode(batch.pixels)
        torch.testing.assert_close(batch.target, expected, rtol=0, atol=1e-5)
        assert batch.weight.shape == (5, 8, 8) and not batch.target.requires_grad


def test_the_cache_is_bounded_and_its_bytes_do_not_depend_on_how_it_was_filled(
    teacher, plan, tmp_path, monkeypatch
):
    monkeypatch.setattr(targets, "WINDOWS_A_FILE", 4)
    draws = Draws(plan.num_rows, 0, oriented=False)
    one = 2 * 16 * 8 * 8 / 1e9  # GB a window
    folders = [tmp_path / name for name in "abc"]
    with WindowReader(plan, None, distilling.PLAIN) as reader:

        def fill(folder, gb, used=1000, group=ALONE):
            found = look_up(teacher, reader, plan)
            return found, found.fill_cache(folder, draws, used, gb, group)

        kept, count = fill(folders[0], 7.5 * one)
        assert count == 7 and len(list(folders[0].iterdir())) == 2
        assert fill(tmp_path / "few", 1.0, used=3)[1] == 3
        assert fill(tmp_path / "all", 1.0)[1] == plan.num_rows

        fill(folders[1], 7.5 * one)
        (folders[1] / "embeddings-000000.npz").unlink()  # killed before this one
        fill(folders[1], 7.5 * one)
        for rank in (1, 0):  # two processes
            monkeypatch.setattr(Processes, "wait", lambda _: None)
            fill(folders[2], 7.5 * one, group=Processes(rank, 2, torch.device("cpu")))
        bytes_of = [[p.read_bytes() for p in sorted(folder.iterdir())] for folder in folders]
        assert bytes_of[0] == bytes_of[1] == bytes_of[2]

        batch = next(kept.batches(iter([draws.batch(0, 10)])))
    with torch.no_grad():
        expected = teacher.encode(batch.pixels)
    off = (batch.target - expected).abs().amax((1, 2, 3))
    assert (off[:7] > 0).all() and (off[:7] < 2e-3).all()  # kept as float16
    assert (off[7:] < 1e-5).all()  # did not fit, so computed


def test_no_flipped_bit_of_a_kept_embedding_is_learnt_from(teacher, plan, tmp_path):
    with WindowReader(plan, None, distilling.PLAIN) as reader:
        found = look_up(teacher, reader, plan)
        found.fill_cache(tmp_path, Draws(plan.num_rows, 0, oriented=False), 1000, 1.0, ALONE)
    path = found._file(0)
    whole, right = path.read_bytes(), found._kept(0)
    for at in range(0, len(whole), 97):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        try:
            assert (found._kept(0) == right).all()  # it was another's
        except RunFolderError as error:
            assert f"{path} is damaged" in str(error) and "made anew" in str(error)
    start = whole.index(right.tobytes())
    path.write_bytes(whole[:start] + b"\x3c" + whole[start + 1 :])
    with pytest.raises(RunFolderError, match="is damaged"):
        found._kept(0)


# --- the loss


def some_embeddings(seed=0):
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = torch.randn(2, 3, 5, 4, 4, generator=generator)
    return ours, 3 * theirs + 1, torch.rand(3, 4, 4, generator=generator).clamp(min=0.1)


def test_loss_cell_by_cell():
    ours, theirs, weight = some_embeddings()
    weight[0, 2:] = 0
    statistics = measure_statistics(theirs, weight)
    squared = cosine = 0.0
    for b, y, x in np.ndindex(3, 4, 4):
        a, t = (
            (e[b, :, y, x].double() - statistics.mean) / statistics.deviation
            for e in (ours, theirs)
        )
        squared += float(weight[b, y, x] * ((a - t) ** 2).mean())
        cosine += float(weight[b, y, x] * (1 - a @ t / (a.norm() * t.norm())))
    loss = embedding_loss(ours, theirs, weight, statistics, cosine=0.7)
    assert loss.squared.item() == pytest.approx(squared, rel=1e-5)
    assert loss.cosine.item() == pytest.approx(cosine, rel=1e-5)
    assert loss.total.item() == pytest.approx((squared + 0.7 * cosine) / 48, rel=1e-5)
    assert loss.weight.item() == pytest.approx(weight.sum().item())


def test_padding_teaches_nothing():
    ours, theirs, weight = some_embeddings()
    weight[:, 2:] = 0
    statistics = measure_statistics(theirs, weight)
    ours.requires_grad_()
    embedding_loss(ours, theirs, weight, statistics, 1.0).total.backward()
    assert ours.grad[:, :, :2].abs().min() > 0 and not ours.grad[:, :, 2:].any()
    changed = theirs.clone()
    changed[:, :, 2:] = 99
    again = measure_statistics(changed, weight)
    assert torch.equal(again.mean, statistics.mean)
    same = embedding_loss(ours, changed, weight, statistics, 1.0).total
    assert torch.equal(same, embedding_loss(ours, theirs, weight, statistics, 1.0).total)


def test_statistics_standardise_the_teacher():
    _, theirs, weight = some_embeddings()
    theirs[:, 2] = 4.0  # a channel that never varies must not be blown up
    found = measure_statistics(theirs, weight).standardise(theirs)
    share = weight[:, None] / weight.sum()
    assert (found * share).sum((0, 2, 3)).abs().max() < 1e-5
    spread = (found.square() * share).sum((0, 2, 3))
    assert spread[2] < 1e-6 and spread[[0, 1, 3, 4]].tolist() == pytest.approx([1] * 4, rel=1e-4)


def test_mean_cosine_leaves_out_what_shows_nothing():
    ours, theirs, weight = some_embeddings()
    weight[:] = 0
    weight[1, 2, 3] = 0.5
    a, b = ours[1, :, 2, 3], theirs[1, :, 2, 3]
    assert mean_cosine(ours, theirs, weight) == pytest.approx(
        float(a @ b / (a.norm() * b.norm())), rel=1e-5
    )


def test_the_rate_rises_and_falls():
    schedule = schedule_of(TrainSettings(steps=100, warmup=0.1))
    shares = [schedule.share(step) for step in range(100)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert shares[10] == 1 and all(a > b for a, b in pairwise(shares[10:]))
    assert 0.02 < shares[-1] < 0.03
    assert schedule_of(TrainSettings(steps=1, warmup=0)).share(0) == 1


# --- agreement


SEGMENT = SegmentSettings(6, 64, 0.0, 0.0, 1.0, 0.95, 1.0)
EVEN = Statistics(torch.zeros(16), torch.ones(16))


@pytest.fixture(scope="module")
def windows(plan):
    with WindowReader(plan, None, distilling.PLAIN) as reader:
        yield list(reader.upright(np.arange(6)))


@pytest.fixture(scope="module")
def sure(tmp_path_factory):
    """A teacher whose masks differ from point to point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speck, "CONFIG", distilling.PLAIN)
        path = speck.save_speck(tmp_path_factory.mktemp("model") / "sure.safetensors")
    return load_sam(path)[0]


@pytest.mark.slow
def test_a_network_agrees_with_itself(sure, windows):
    found = measure_agreement(sure, sure, windows, 6, SEGMENT, EVEN)
    assert found.windows == 6 and found.left_out == 0 and found.points == 6 * 36
    for name in ("cosine", "centred_cosine", "point_iou", "point_iou_75", "point_iou_90"):
        assert getattr(found, name) == pytest.approx(1, abs=1e-6)
    assert found.teacher_masks == found.student_masks > 1
    assert found.mask_iou == found.found_75 == found.true_90 == 1
    assert found.teacher_seconds > 0 and found.student_seconds > 0


def test_networks_that_differ_agree_less(sure, windows):
    other = assemble(sure, distilling.lively(distilling.PLAIN, seed=8).image_encoder, sure.config)
    found = measure_agreement(sure, other, windows, 6, SEGMENT, EVEN)
    assert found.cosine < 0.9 and found.point_iou < 0.9 and found.found_90 < 1
    assert json.loads(json.dumps(found.to_dict()))["points"] == 216


def test_the_same_output_is_compared(sure, windows):
    """Outputs that changed places are no agreement, though the three masks are the same."""
    turned = copy.deepcopy(sure)
    order = [0, 2, 3, 1]
    decoder = turned.mask_decoder
    decoder.mask_tokens.weight.data = decoder.mask_tokens.weight.data[order]
    mlps = [decoder.output_hypernetworks_mlps[i] for i in order]
    decoder.output_hypernetworks_mlps = torch.nn.ModuleList(mlps)
    found = measure_agreement(sure, turned, windows, 6, SEGMENT, EVEN)
    assert found.cosine == pytest.approx(1) and found.point_iou < 0.9


def test_windows_that_show_nothing_are_counted(sure, windows):
    blank = replace(windows[0], valid=np.zeros_like(windows[0].valid))
    found = measure_agreement(sure, sure, [blank, windows[1]], 2, SEGMENT, EVEN)
    assert (found.windows, found.left_out) == (1, 1)
    none = measure_agreement(sure, sure, [blank], 1, SEGMENT, EVEN)
    assert none.windows == 0 and np.isnan(none.point_iou) and none.to_dict()["cosine"] is None


def test_points_lie_on_valid_pixels_only(sure, windows):
    half = windows[0].valid.copy()
    half[:, : half.shape[1] // 2] = False
    found = measure_agreement(sure, sure, [replace(windows[0], valid=half)], 1, SEGMENT, EVEN)
    assert found.points == 18
