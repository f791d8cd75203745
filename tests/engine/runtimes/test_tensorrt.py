"""TensorRT engines, built by tensorrt_rtx without a GPU, and what is refused."""

import json
import shutil
import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from alps.engine.base.errors import ArtefactError, SettingsError
from alps.engine.models.checkpoints import load_sam
from alps.engine.models.registry import find_model
from alps.engine.runtimes.artefact import open_artefact
from alps.engine.runtimes.onnxruntime import OnnxRuntime
from alps.engine.runtimes.tensorrt import TensorRTRuntime, check_engines, tensorrt_module
from alps.engine.sam import OFFICIAL, Sam
from alps.export import onnx as onnx_files
from alps.export.graphs import graphs_of
from alps.export.job import run_engines, write_engines
from alps.export.settings import ExportSettings
from alps.export.tensorrt import Target, build_engine, check_target

tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="there is no wheel for this system")

TARGET = Target("8.6", {"batch": 2, "points": 8, "prompts": 8})


@pytest.fixture
def graphs(exported_speck, tmp_path):
    """A copy of the small model's ONNX graphs."""
    shutil.copytree(exported_speck.folder, tmp_path / "graphs")
    return tmp_path / "graphs"


@pytest.mark.slow
def test_engines_take_the_place_of_the_graphs(exported_speck, graphs, tmp_path, monkeypatch, speck):
    monkeypatch.setenv("ALPS_HOME", str(tmp_path / "home"))
    settings = ExportSettings(
        format="tensorrt", capability="8.6", max_batch=2, max_points=8, verify_tiles=0
    )
    made = write_engines(graphs, exported_speck.manifest, settings)
    (graphs / "manifest.json").write_text(made.to_json())
    assert sorted(path.name for path in graphs.iterdir()) == [
        "encoder.engine", "manifest.json", "masks.engine", "share.engine", "transform.engine",
    ]  # fmt: skip
    _, info = load_sam(speck)
    artefact = open_artefact(graphs, info)
    artefact.check_files()
    assert made.builder == "tensorrt_rtx" and made.compute_capability == "8.6"
    assert made.versions["tensorrt_rtx"] == tensorrt_rtx.__version__
    assert [made.graphs[part].limit() for part in ("encoder", "share", "transform", "masks")] == [
        2, None, 8, 8,
    ]  # fmt: skip
    # Wrong or stale engines are refused before TensorRT sees them.
    check_engines(artefact, tensorrt_rtx, "8.6")
    with pytest.raises(ArtefactError, match=r"8\.6, here it is 8\.9; rebuild .*--capability 8\.9"):
        check_engines(artefact, tensorrt_rtx, "8.9")
    stale = replace(made, versions=dict(made.versions) | {"tensorrt_rtx": "0.9"})
    with pytest.raises(ArtefactError, match=r"tensorrt_rtx 0\.9, here it is .*; rebuild them"):
        check_engines(replace(artefact, manifest=stale), tensorrt_rtx, "8.6")
    with pytest.raises(ArtefactError, match="on a GPU only, not on cpu"):
        TensorRTRuntime(artefact, "cpu")
    (graphs / "share.engine").write_bytes(b"another engine")
    with pytest.raises(ArtefactError, match=r"share\.engine: changed .*--format tensorrt"):
        artefact.check_files()
    other = json.loads(made.to_json()) | {"sha256": "1" * 64}
    (graphs / "manifest.json").write_text(json.dumps(other))
    with pytest.raises(ArtefactError, match=r"exported from speck.*--format tensorrt"):
        open_artefact(graphs, info)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_lower_precisions_build(precision, speck, tmp_path):
    sam, _ = load_sam(speck)
    masks = graphs_of(sam.requires_grad_(False), precision)[3]
    opset = onnx_files.OPSETS[precision]
    stored = onnx_files.write_graph(masks, tmp_path, opset, {}, 1 << 40)
    built = build_engine(tensorrt_rtx, tmp_path, stored, Target("8.9", TARGET.at_most))
    assert (tmp_path / built.file).stat().st_size > 1000 and built.at_most == {"prompts": 8}


def test_what_tensorrt_cannot_parse_or_build_is_told(exported_speck, graphs):
    stored = exported_speck.manifest.graphs["share"]
    (graphs / stored.file).write_bytes(b"no graph")
    with pytest.raises(ArtefactError, match=r"tensorrt_rtx .* cannot parse share\.onnx: "):
        build_engine(tensorrt_rtx, graphs, stored, TARGET)


def test_targets(monkeypatch):
    trt, capability = check_target("8.9")
    assert trt is tensorrt_rtx and capability == "8.9"
    with pytest.raises(SettingsError, match=r"--capability 5\.0: .* builds for .*8\.6"):
        check_target("5.0")
    with pytest.raises(SettingsError, match="give two numbers"):
        check_target("ampere")
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match=r"no GPU here.*--capability 8\.6"):
            check_target(None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ArtefactError, match=r"\[tensorrt-cu13\]', or .*\[tensorrt-rtx\]'"):
        check_target("8.9")
    with pytest.raises(ArtefactError, match=r"tensorrt_rtx: not installed .*\[tensorrt-rtx\]"):
        tensorrt_module("tensorrt_rtx")


@pytest.fixture
def h100(monkeypatch):
    """A GPU that TensorRT for RTX does not know."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (9, 0))


def test_tensorrt_for_rtx_is_not_asked_for_an_h100(h100, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for asked in (None, "9.0"):
        with pytest.raises(SettingsError, match=r"--capability 9\.0: .*\[tensorrt-cu13\]' there"):
            check_target(asked)
    assert check_target("8.9") == (tensorrt_rtx, "8.9")


def test_tensorrt_builds_for_the_gpu_here_and_the_other_for_others(h100, monkeypatch):
    plain = ModuleType("tensorrt")
    plain.IBuilderConfig = object
    monkeypatch.setitem(sys.modules, "tensorrt", plain)
    assert check_target(None) == check_target("9.0") == (plain, "9.0")
    assert check_target("8.9") == (tensorrt_rtx, "8.9")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(SettingsError, match=r"builds only for .* \(9\.0\); .*\[tensorrt-rtx\]"):
        check_target("8.9")


def test_engines_are_run_as_they_are_exported_where_their_gpu_is(
    exported_speck, speck, h100, monkeypatch
):
    """ONNX Runtime takes the engines' part: their code is tested where runtimes are."""
    sam, info = load_sam(speck)
    made = replace(exported_speck.manifest, compute_capability="9.0")
    artefact = replace(exported_speck, manifest=made)
    opened = OnnxRuntime(exported_speck)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "H100")
    monkeypatch.setattr("alps.export.job.TensorRTRuntime", lambda made, device: opened)
    assert run_engines(sam, info, artefact) == "computed on H100 what PyTorch does"
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("torch.cuda.get_device_capability", lambda *_: (8, 0))
        assert "not run, no GPU of compute capability 9.0" in run_engines(sam, info, artefact)
    encode = opened.encode
    monkeypatch.setattr(opened, "encode", lambda pixels: 1.1 * encode(pixels))
    with pytest.raises(ArtefactError, match="its embedding is off by"):
        run_engines(sam, info, artefact)


@pytest.mark.dear
def test_the_shipped_models_engines_are_built_for_two_gpus(tmp_path):
    sam, _ = load_sam(find_model("tiny"))
    graphs = graphs_of(sam.requires_grad_(False), "fp16")
    for graph, capability in zip(graphs, ("8.6", "8.9", "8.6", "8.9"), strict=True):
        stored = onnx_files.write_graph(graph, tmp_path, 20, {}, 1 << 40)
        built = build_engine(tensorrt_rtx, tmp_path, stored, Target(capability, TARGET.at_most))
        assert (tmp_path / built.file).stat().st_size > 10_000


@pytest.mark.slow
def test_official_dimensions_are_parsed(tmp_path):
    """ViT-B's, one layer of each kind: windows, offsets and attention in parts."""
    config = replace(OFFICIAL["vit_b"], encoder_depth=2, global_blocks=(1,))
    with torch.device("meta"):
        sam = Sam(config)
    sam.to_empty(device="cpu")
    for tensor in (*sam.parameters(), *sam.buffers()):
        tensor.data.normal_(std=0.02)
    encoder = graphs_of(sam.requires_grad_(False).eval(), "fp16")[0]
    stored = onnx_files.write_graph(encoder, tmp_path, 20, {}, 1 << 40)
    logger = tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR)
    builder = tensorrt_rtx.Builder(logger)
    typed = 1 << int(tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = tensorrt_rtx.OnnxParser(network, logger)
    assert parser.parse_from_file(str(tmp_path / stored.file))
    assert tuple(network.get_input(0).shape) == (-1, 3, 1024, 1024)
    assert tuple(network.get_output(0).shape) == (-1, 256, 64, 64)
