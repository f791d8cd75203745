"""SAM 2 as graphs: the same numbers, traced or not."""

import dataclasses

import pytest
import torch
from small_sam2 import SMALL

from alps.engine.base.errors import SettingsError
from alps.engine.models.checkpoints import load_network, save_sam
from alps.engine.runtimes.onnxruntime import OnnxRuntime
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam2 import SAM2_DEFAULTS, Sam2
from alps.export.graphs_sam2 import sam2_graphs
from alps.export.job import export_model
from alps.export.settings import ExportSettings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def speck2(tmp_path_factory):
    """A checkpoint of a SAM 2 of one block a stage."""
    torch.manual_seed(4)
    network = Sam2(dataclasses.replace(SMALL, stage_blocks=(1, 1, 1, 1), global_blocks=(2,)))
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 and parameter.abs().max() == 0:
            parameter.data.normal_(std=0.2)
        if name.startswith("mask_decoder") and parameter.ndim > 1:
            parameter.data.mul_(2.5)
    path = tmp_path_factory.mktemp("speck2") / "speck2.safetensors"
    save_sam(network, path, SAM2_DEFAULTS, dtype=torch.float32)
    return path


def relative(found, expected):
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


def assert_same(network, encode, decode):
    pixels = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    points = torch.rand(5, 2, generator=torch.Generator().manual_seed(1)) * 128
    runtime = TorchRuntime(network, decoder="plain")
    embeddings = runtime.encode(pixels)
    assert relative(encode(pixels), embeddings) < 1e-5
    (expected,) = runtime.decode(embeddings[1], points, 0.0, 64)
    iou, logits = decode(embeddings[1], points)
    assert relative(iou.reshape(-1), expected.predicted_iou) < 1e-5
    assert relative(logits.flatten(0, -3), expected.logits) < 1e-4


def test_what_is_traced_computes_what_the_network_does(speck2):
    network, _ = load_network(speck2)
    network.requires_grad_(False)
    encoder, share, transform, masks = sam2_graphs(network, "fp32")

    def decode(embedding, points):
        shared = share.module(embedding)
        *image, first, second = shared
        tokens, image_tokens, iou = transform.module(*image, points)
        return iou, masks.module(image_tokens, tokens, first, second)

    assert_same(network, encoder.module, decode)
    for graph in (encoder, share, transform, masks):  # what is traced with fits
        graph.module(*graph.example.values())


@pytest.mark.slow
def test_an_export_is_verified_and_runs(speck2, tmp_path):
    said = []
    settings = ExportSettings(verify_tiles=1)
    artefact = export_model(str(speck2), tmp_path / "onnx", settings, said.append)
    assert any("finer features of a real image" in line for line in said)
    network, info = load_network(speck2)
    assert artefact.config == info.config
    runtime = OnnxRuntime(artefact)

    def decode(embedding, points):
        (found,) = runtime.decode(embedding, points, 0.0, 64)
        return found.predicted_iou, found.logits

    assert_same(network, runtime.encode, decode)


def test_eight_bits_are_of_the_other_encoder(speck2, tmp_path):
    with pytest.raises(SettingsError, match="int8 knows SAM's encoder, and speck2 is a SAM 2"):
        export_model(str(speck2), tmp_path / "onnx", ExportSettings(precision="int8"))
