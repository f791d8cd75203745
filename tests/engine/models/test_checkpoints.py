"""Checkpoints: what is loaded, what is inferred, and what is refused and how."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from stock_sam import SMALL, picture, stock_sam

from alps.engine.base.errors import ModelError, RunFolderError
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models import checkpoints
from alps.engine.models.checkpoints import load_sam, save_sam
from alps.engine.models.layouts.official import infer_config
from alps.engine.sam import OFFICIAL, ModelDefaults, Sam


@pytest.fixture(scope="module")
def stock():
    return stock_sam()


@pytest.fixture
def pth(stock, tmp_path):
    path = tmp_path / "small.pth"
    torch.save(stock.state_dict(), path)
    return path


def small_sam(**changes):
    torch.manual_seed(1)
    return Sam(replace(SMALL, **changes))


def refusal(path):
    with pytest.raises(ModelError) as caught:
        load_sam(path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    return text


def test_pth_needs_no_word_about_its_dimensions(pth, stock):
    model, info = load_sam(pth)
    assert info.config == SMALL
    assert (info.name, info.defaults) == ("small", ModelDefaults())
    assert info.sha256 == hashlib.sha256(pth.read_bytes()).hexdigest()
    assert info.parameters == sum(p.numel() for p in stock.parameters())
    for key, tensor in stock.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(model.encode(pixels), stock.image_encoder(pixels))
        torch.testing.assert_close(
            model.normalise(pixels * 255)[0], stock.preprocess(pixels[0] * 255)
        )


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_wrapped_weights(stock, tmp_path, wrapper):
    torch.save({wrapper: stock.state_dict(), "epoch": 3}, tmp_path / "wrapped.pt")
    assert load_sam(tmp_path / "wrapped.pt", name="mine")[1].name == "mine"


def test_pth_of_an_old_torch(stock, tmp_path):
    path = tmp_path / "old.pth"
    torch.save(stock.state_dict(), path, _use_new_zipfile_serialization=False)
    assert load_sam(path)[1].config == SMALL


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_sizes_are_recognised(name):
    with torch.device("meta"):
        tensors = Sam(OFFICIAL[name]).state_dict()
    assert infer_config(tensors, "x.pth") == OFFICIAL[name]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"global_blocks": (), "window_size": 4},
        {"global_blocks": (0, 1), "window_size": 0},
        {"decoder_depth": 1, "iou_head_depth": 2, "multimask_outputs": 2},
    ],
)
def test_dimensions_are_inferred(changes):
    config = replace(SMALL, **changes)
    assert infer_config(Sam(config).state_dict(), "x.pth") == config


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0), (torch.float16, 1e-3)])
def test_safetensors_round_trip(tmp_path, dtype, tolerance):
    # Heads of the decoder and missing relative positions can only come from the metadata.
    model = small_sam(relative_positions=False, decoder_heads=4)
    defaults = ModelDefaults(points_per_side=16, pred_iou_thresh=0.5, tile=512)
    path = tmp_path / "deep" / "mine.safetensors"
    save_sam(model, path, defaults, dtype=dtype, metadata={"made.by": "a test"})
    loaded, info = load_sam(path)
    assert (info.name, info.config, info.defaults) == ("mine", model.config, defaults)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["made.by"] == "a test"
        assert file.get_tensor("image_encoder.pos_embed").dtype == dtype
    for key, tensor in model.state_dict().items():
        assert loaded.state_dict()[key].dtype == torch.float32
        torch.testing.assert_close(loaded.state_dict()[key], tensor, rtol=tolerance, atol=1e-6)
    frequencies = "positional_encoding_gaussian_matrix"
    assert torch.equal(
        getattr(loaded.prompt_encoder.pe_layer, frequencies),
        getattr(model.prompt_encoder.pe_layer, frequencies),
    )
    assert os.listdir(path.parent) == [path.name]


def test_name_in_the_metadata_and_plain_safetensors(tmp_path):
    save_sam(small_sam(), tmp_path / "a.safetensors", ModelDefaults(), metadata={"alps.model": "b"})
    assert load_sam(tmp_path / "a.safetensors")[1].name == "b"
    save_file(small_sam().state_dict(), tmp_path / "plain.safetensors")
    assert load_sam(tmp_path / "plain.safetensors")[1].config == SMALL


def test_the_same_weights_give_the_same_bytes(tmp_path):
    """Metadata too stands in one order: safetensors' own is one of chance, another in each file."""
    model, notes = small_sam(), {f"note.{n}": f'"{n}" – ünïcode\n\t\x01' for n in range(12)}
    paths = [tmp_path / "a" / "m.safetensors", tmp_path / "b" / "m.safetensors"]
    for path, given in zip(paths, (notes, dict(reversed(notes.items()))), strict=True):
        save_sam(model, path, ModelDefaults(), metadata=given)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with safe_open(paths[0], "pt") as file:
        assert {key: file.metadata()[key] for key in notes} == notes
        assert list(file.keys())


def test_a_saved_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    happened = []
    fsync, replace_ = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (happened.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("replace"), replace_(a, b)))
    save_sam(small_sam(), tmp_path / "a.safetensors", ModelDefaults())
    assert happened == ["fsync", "replace", "fsync"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_sam(small_sam(), path, ModelDefaults())
    before = path.read_bytes()
    # The disk is full when the metadata is put in order.
    monkeypatch.setattr(checkpoints, "order_metadata", lambda _: os.write(-1, b""))
    with pytest.raises(RunFolderError, match=r"cannot write .*a\.safetensors"):
        save_sam(small_sam(), path, ModelDefaults())
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_save_refuses_what_float16_cannot_hold(tmp_path):
    model = small_sam()
    model.mask_decoder.iou_token.weight.data[0, 0] = 1e6
    with pytest.raises(ModelError, match="iou_token"):
        save_sam(model, tmp_path / "a.safetensors", ModelDefaults())
    with pytest.raises(ModelError, match=r"alps\.config"):
        save_sam(
            small_sam(), tmp_path / "a.safetensors", ModelDefaults(), metadata={"alps.config": ""}
        )
    assert not list(tmp_path.iterdir())


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_runs_code_is_refused(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    torch.save({"weights": RunsCode()}, path, _use_new_zipfile_serialization=zipped)
    text = refusal(path)
    assert "would run code" in text
    assert "state_dict" in text
    assert not (tmp_path / "ran").exists()


def test_whole_model_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    assert "would run code" in refusal(tmp_path / "model.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_no_checkpoints(tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    assert "cannot be read" in refusal(path)
    path.write_bytes(b"")
    assert "empty" in refusal(path)
    for content in (b"hello world, no model\n", b"\x89PNG\r\n\x1a\n" + bytes(200), bytes(50)):
        path.write_bytes(content)
        assert "get the file again" in refusal(path)
    path.unlink()
    path.mkdir()
    assert "folder" in refusal(path)


def test_name_that_no_checkpoint_has(tmp_path):
    (tmp_path / "weights.zip").write_bytes(b"PK")
    assert ".safetensors" in refusal(tmp_path / "weights.zip")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_files(pth, tmp_path, share):
    save_sam(small_sam(), tmp_path / "cut.safetensors", ModelDefaults())
    for path in (pth, tmp_path / "cut.safetensors"):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert "get the file again" in refusal(path)


def test_things_that_are_no_state_dict(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    assert "a list" in refusal(tmp_path / "list.pth")
    torch.save({"epoch": 3, "a": torch.ones(1)}, tmp_path / "mixed.pth")
    assert "epoch" in refusal(tmp_path / "mixed.pth")
    torch.save({}, tmp_path / "nothing.pth")
    assert "pos_embed is missing" in refusal(tmp_path / "nothing.pth")
    torch.save({"conv.weight": torch.ones(3)}, tmp_path / "other.pth")
    assert "pos_embed is missing" in refusal(tmp_path / "other.pth")


def damaged(stock, path, change):
    tensors = dict(stock.state_dict())
    change(tensors)
    torch.save(tensors, path)
    return refusal(path)


def test_tensors_that_do_not_fit_are_named(stock, tmp_path):
    token = "mask_decoder.iou_token.weight"

    def text(change):
        return damaged(stock, tmp_path / "bad.pth", change)

    assert f"1 tensors are missing: {token}" in text(lambda t: t.pop(token))
    assert "not SAM's: extra" in text(lambda t: t.update(extra=torch.ones(1)))
    assert f"{token} is (2, 5) and should be (1, 32)" in text(
        lambda t: t.update({token: torch.ones(2, 5)})
    )
    assert f"{token} holds NaN" in text(lambda t: t.update({token: t[token] * torch.nan}))
    assert "float one" in text(lambda t: t.update({token: t[token].to(torch.int8)}))
    assert "pos_embed has 2 axes" in text(
        lambda t: t.update({"image_encoder.pos_embed": torch.ones(2, 2)})
    )
    no_blocks = [k for k in stock.state_dict() if ".blocks." in k]
    assert "no blocks" in text(lambda t: [t.pop(k) for k in no_blocks])


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"alps.config": "{"}, "not a JSON object"),
        ({"alps.config": "[1]"}, "not a JSON object"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"moons": 2})}, "moons"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"patch_size": 0})}, "damaged"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"encoder_heads": 5})}, "damaged"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"patch_size": "big"})}, "damaged"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"encoder_width": 64})}, "another shape"),
        ({"alps.config": "[" * 9000}, "too deeply"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"encoder_depth": 10**6})}, "do not go"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"decoder_depth": 500})}, "do not go"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"iou_head_depth": 10**5})}, "do not go"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"window_size": -1})}, "do not go"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"encoder_depth": 10**40})}, "damaged|go"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"relative_positions": 3})}, "damaged"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"global_blocks": 3})}, "damaged"),
        ({"alps.config": json.dumps(SMALL.to_dict() | {"global_blocks": [0] * 99})}, "do not go"),
        ({"alps.defaults": json.dumps({"moons": 2})}, "upgrade"),
        ({"alps.defaults": json.dumps({"tile": "wide"})}, r"got str - at \$\.tile"),
        ({"alps.defaults": json.dumps({"tile": -5})}, "--tile -5"),
        ({"alps.defaults": json.dumps({"points_per_side": 10**6})}, "points-per-side"),
        ({"alps.defaults": json.dumps({"tile": 64, "overlap": 64})}, "--overlap 64"),
        ({"alps.defaults": '{"max_area": NaN}'}, "NaN is no number"),
    ],
)
def test_metadata_that_does_not_fit(tmp_path, metadata, says):
    path = tmp_path / "a.safetensors"
    save_file(small_sam().state_dict(), path, metadata=metadata)
    with pytest.raises(ModelError, match=says) as caught:
        load_sam(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_flipped_bit_gives_other_weights(pth, stock):
    """PyTorch alone reads over flips in the weights themselves."""
    whole = pth.read_bytes()
    for at in range(0, len(whole), len(whole) // 60):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        pth.write_bytes(changed)
        try:
            model, _ = load_sam(pth)
        except ModelError as error:
            assert "damaged" in str(error) and "\n" not in str(error)
        else:  # in the margins of the archive
            for key, tensor in stock.state_dict().items():
                assert torch.equal(model.state_dict()[key], tensor)


@pytest.mark.slow
def test_random_vit_b_in_the_official_layout_runs(tmp_path):
    path = tmp_path / "sam_vit_b_zeros.pth"
    with torch.device("meta"):
        official = Sam(OFFICIAL["vit_b"]).state_dict()
    nothing = {key: torch.zeros(()).expand(value.shape) for key, value in official.items()}
    torch.save(nothing, path)  # a number a tensor
    _, info = load_sam(path)
    assert (info.name, info.config, info.parameters) == ("vit_b", OFFICIAL["vit_b"], 93_735_472)
    # Its first layers, windowed ones and one that attends globally, compute.
    torch.manual_seed(0)
    first = replace(OFFICIAL["vit_b"], encoder_depth=3, global_blocks=(2,))
    path = tmp_path / "sam_vit_b_random.pth"
    torch.save(Sam(first).state_dict(), path)
    model, info = load_sam(path)
    assert info.config == first
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = MaskGenerator(
        model, points_per_side=2, pred_iou_thresh=-9.0, stability_score_thresh=0.0
    )
    segments = generator.segment(picture(90, 120))
    torch.set_num_threads(before)
    assert segments.prompted == 4
    assert len(segments) >= 1
    assert segments.embeddings.shape == (len(segments), 256)


@pytest.mark.slow
def test_loading_starts_no_compiler(tmp_path):
    """It takes PyTorch a second to import, in every command and every worker."""
    path = tmp_path / "small.safetensors"
    save_sam(small_sam(), path, ModelDefaults())
    program = (
        "import sys\nfrom alps.engine.models.checkpoints import load_sam\n"
        f"model, _ = load_sam({str(path)!r})\n"
        "assert not any(p.is_meta for p in [*model.parameters(), *model.buffers()])\n"
        "sys.exit(bool({'torch._dynamo', 'sympy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
