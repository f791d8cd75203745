"""MobileSAM: its encoder against a plain one and its authors' figures, its files, its masks."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from plain_tiny_vit import plain_tiny_vit
from small_mobile_sam import SMALL_T, with_counted_weights
from stock_sam import picture

from alps.bench.proofs.mobile_sam import POINTS, patches
from alps.engine.base.errors import ModelError
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.checkpoints import load_network, load_sam, save_sam
from alps.engine.models.convert import convert_model
from alps.engine.models.layouts import mobile_sam
from alps.engine.models.layouts.base import Contents, Stored
from alps.engine.sam import ModelDefaults
from alps.engine.sam.config import VIT_T
from alps.engine.sam.empty import empty_sam
from alps.engine.sam.model import MobileSam


@pytest.fixture(scope="module")
def small():
    return with_counted_weights(SMALL_T)


@pytest.fixture(scope="module")
def checkpoint(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("mobile") / "small-t.safetensors"
    save_sam(small, path, ModelDefaults(points_per_side=4), dtype=torch.float32)
    return path


def relative(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_the_encoder_is_a_tiny_vit(small):
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = small.encode(pixels)
        expected = plain_tiny_vit(small.image_encoder.state_dict(), pixels)
        tokens = small.image_encoder.tokens(pixels)
    assert found.shape == (2, 32, 6, 6) and tokens.shape == (2, 6, 6, 24)
    assert relative(found, expected) < 1e-5


# What MobileSAM's own code gives for these weights and pixels (bench/proofs/mobile_sam.py).
EMBEDDING = [
    [0.25048, 0.28357, 0.28093, -0.37333, -0.24183, -1.76689, -1.7661, -1.36687],
    [-0.24046, -1.76829, -1.76898, -1.37221, -0.69751, -1.94185, -1.94852, -1.04257],
]
PREDICTED_IOU = [[1.00078, 1.139079, 0.19295], [1.001933, 1.137826, 0.191533]]
LOGITS = [[-5.01298, -4.1593, -8.72463, -8.55917], [-1.24141, -4.65524, -7.05153, -3.98617]]


@pytest.mark.slow
def test_at_its_true_size_it_computes_what_its_authors_code_does():
    network = with_counted_weights(VIT_T)
    with torch.inference_mode():
        embedding = network.encode(patches())
        found = network.decode_points(embedding, POINTS[None, :2])
        logits = network.mask_decoder.masks(found.mask_tokens[0], found.image_tokens[0])[:, 1:]
    some = embedding[0, 0, ::21, ::21].flatten()
    near = {"rtol": 0, "atol": 5e-5}
    torch.testing.assert_close(some, torch.tensor(EMBEDDING).flatten(), **near)
    torch.testing.assert_close(found.predicted_iou[0, :, 1:], torch.tensor(PREDICTED_IOU), **near)
    some = logits[0, :2, 37::150, 11::150].flatten(1)
    torch.testing.assert_close(some, torch.tensor(LOGITS), **near)


def official(network, config=VIT_T):
    """The state dict of its authors' network with these weights."""
    return dict(
        mobile_sam.LAYOUT.write(Contents(config, network.state_dict(), ModelDefaults())).tensors
    )


def test_its_true_size_is_recognised():
    state = empty_sam(VIT_T).state_dict()
    assert mobile_sam.LAYOUT.read(Stored(Path("x.pt"), state, {})).config == VIT_T
    assert sum(t.numel() for name, t in state.items() if "running" not in name) == 9_808_452 + 256


def test_its_authors_checkpoints_open_and_are_written(tmp_path):
    config = replace(SMALL_T, image_size=1024)  # which is not in the file, but taken for granted
    network = with_counted_weights(config)
    tensors = official(network, config)
    # As trained, with a classifier and counts of batches that nothing reads.
    tensors["image_encoder.head.weight"].normal_()
    tensors["image_encoder.layers.0.blocks.0.conv1.bn.num_batches_tracked"].fill_(7)
    torch.save(tensors, tmp_path / "mobile_sam.pt")
    loaded, info = load_network(tmp_path / "mobile_sam.pt")
    assert isinstance(loaded, MobileSam)
    assert (info.name, info.config) == ("mobile_sam", config)
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    done = convert_model(tmp_path / "mobile_sam.pt", tmp_path / "a.safetensors")
    done = convert_model(done.path, tmp_path / "b.pt")
    back = torch.load(done.path, weights_only=True)
    assert done.layout == "MobileSAM" and back.keys() == tensors.keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(back[name], tensor)
    with pytest.raises(ModelError, match="no layout of that kind"):
        convert_model(done.path, tmp_path / "folder")
    with pytest.raises(ModelError, match="a MobileSam; here a SAM with a ViT"):
        load_sam(done.path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("image_encoder.layers.1.blocks.0.attn.attention_biases"), "is missing"),
        (lambda t: t.pop("image_encoder.layers.3.blocks.1.mlp.fc1.bias"), "1 tensors are missing"),
        (lambda t: t.update(more=torch.ones(1)), "not SAM's: more"),
        (
            lambda t: t.update({"image_encoder.layers.2.blocks.1.attn.proj.bias": torch.ones(3)}),
            "another shape",
        ),
    ],
)
def test_checkpoints_that_are_damaged_are_named(small, tmp_path, change, says):
    tensors = official(small, SMALL_T)
    change(tensors)
    torch.save(tensors, tmp_path / "bad.pt")
    with pytest.raises(ModelError, match=says):
        load_network(tmp_path / "bad.pt")


@pytest.mark.parametrize(
    "changes",
    [
        {"stage_widths": (8, 16, 20)},
        {"stage_heads": (2, 4, 7, 3)},
        {"window_sizes": (7, 5, 0, 3)},
        {"patch_size": 32},
        {"stage_blocks": (1, 2, 10**5, 2)},
    ],
)
def test_dimensions_that_do_not_go_together(small, checkpoint, tmp_path, changes, monkeypatch):
    config = replace(SMALL_T, **changes)
    monkeypatch.setattr(small, "config", config)
    save_sam(small, tmp_path / "a.safetensors", ModelDefaults())
    with pytest.raises(ModelError, match="do not go together"):
        load_network(tmp_path / "a.safetensors")


def test_everything_mode(checkpoint):
    network, info = load_network(checkpoint)
    assert (info.config, info.defaults.points_per_side) == (SMALL_T, 4)
    settings = {"points_per_side": 3, "pred_iou_thresh": -9.0, "stability_score_thresh": 0.0}
    segments = MaskGenerator(network, **settings).segment(picture(60, 96))
    assert segments.prompted == 9 and len(segments) >= 1
    assert segments.embeddings.shape == (len(segments), 32)


@pytest.mark.slow  # traces graphs: of int8 those of fp32, and makes its encoder's smaller
@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.dear), "int8"])
def test_it_is_exported(checkpoint, tmp_path, precision):
    from alps.export.job import export_model
    from alps.export.settings import ExportSettings

    settings = ExportSettings(precision=precision, verify_tiles=0, calibration_tiles=2)
    said = []
    made = export_model(checkpoint, tmp_path / "out", settings, say=said.append)
    assert made.config == SMALL_T
    assert any("embedding of a real image" in line for line in said)
