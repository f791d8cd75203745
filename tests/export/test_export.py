"""Exports to ONNX: what is in them, how they prove themselves, and that they appear whole."""

import copy
import json
import os
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from speck import save_speck

from alps.engine.base.errors import ArtefactError, ModelError, SettingsError
from alps.engine.images.raster import RasterReader
from alps.engine.images.sources import find_sources
from alps.engine.images.windows import Window
from alps.engine.models.checkpoints import load_sam
from alps.engine.models.registry import find_model
from alps.engine.runtimes.artefact import find_artefacts, open_artefact
from alps.engine.runtimes.onnxruntime import OnnxRuntime
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam import Sam, SamConfig
from alps.export import onnx as onnx_files
from alps.export.agreement import (
    BOUNDS,
    MaskAgreement,
    refuse_lost,
)
from alps.export.commands import export
from alps.export.folder import whole_folder
from alps.export.graphs import (
    PARTS,
    Encode,
    Masks,
    attend_in_parts,
    graphs_of,
)
from alps.export.job import export_model, verify
from alps.export.precision import Products
from alps.export.quantise import quantise, smoothed
from alps.export.settings import ExportSettings
from alps.export.stand_in import float32_stand_in
from alps.export.tiles import read_tiles
from alps.export.verify import (
    Check,
    Deviation,
    check_numbers,
    refuse_failed,
)

# --- the graphs


def test_names_and_axes_are_those_of_the_documentation(exported_speck):
    manifest = exported_speck.manifest
    assert set(manifest.graphs) == set(PARTS)
    shapes = {
        part: {port.name: port.shape for port in (*graph.inputs, *graph.outputs)}
        for part, graph in manifest.graphs.items()
    }
    assert shapes == {
        "encoder": {"pixels": ("batch", 3, 128, 128), "embedding": ("batch", 16, 8, 8)},
        "share": {
            "embedding": (16, 8, 8), "tokens": (64, 16), "keys": (2, 64, 4), "values": (2, 64, 4),
            "queries": (8, 64),
        },
        "transform": {
            "tokens": (64, 16), "keys": (2, 64, 4), "values": (2, 64, 4), "queries": (8, 64),
            "points": ("points", 2), "mask_tokens": ("points", 3, 16),
            "image_tokens": ("points", 64, 16), "predicted_iou": ("points", 3),
        },
        "masks": {
            "image_tokens": ("prompts", 64, 16), "mask_tokens": ("prompts", 3, 16),
            "logits": ("prompts", 3, 32, 32),
        },
    }  # fmt: skip


def test_a_file_says_what_it_is_and_nothing_of_this_machine(exported_speck, speck):
    _, info = load_sam(speck)
    for part in PARTS:
        model = onnx.load(str(exported_speck.path(part)))
        notes = {prop.key: prop.value for prop in model.metadata_props}
        assert notes["alps.sha256"] == info.sha256 and notes["alps.precision"] == "fp32"
        assert json.loads(notes["alps.pixel_mean"])[0] == pytest.approx(123.675)
        assert model.opset_import[0].version == exported_speck.manifest.opset == 20
        text = model.SerializeToString()
        assert b".py" not in text and str(speck.parent).encode() not in text


def test_the_manifest_tells_what_was_verified(exported_speck):
    verified = open_artefact(exported_speck.folder).manifest.verified
    assert {(check["inputs"], check["output"]) for check in verified["numbers"]} == {
        (inputs, output)
        for inputs in ("random", "real")
        for output in ("embedding", "predicted IoU", "logits")
    }
    assert verified["masks"]["found"]["0.99"] >= 0.95


def test_windows_positions_and_parts_of_attention_change_nothing(monkeypatch):
    """The encoder that is traced, with all that official models have, beside the ordinary one."""
    config = SamConfig(
        image_size=160, encoder_width=32, encoder_depth=3, encoder_heads=2, window_size=4,
        global_blocks=(1,), embedding_channels=16, decoder_heads=2, decoder_hidden=32,
    )  # fmt: skip
    torch.manual_seed(2)
    sam = Sam(config).eval()
    for parameter in sam.parameters():
        parameter.data.normal_(std=0.2)
    pixels = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        expected = sam.encode(pixels)
        monkeypatch.setattr("alps.export.graphs._PAIRS_AT_ONCE", 30 * 100 * 2)
        found = Encode(sam, torch.float32)(pixels)
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
        calls = []
        monkeypatch.setattr(
            "alps.export.graphs.attend_at_once",
            lambda query, *_: (calls.append(query.shape[2]), query)[1],
        )
        heads = torch.zeros(1, 2, 100, 16)
        attend_in_parts(config)(heads, heads, heads, torch.zeros(1, 2, 100, 10), heads[..., :10])
        assert calls == [25] * 4  # equal parts that fit


def test_masks_as_products_are_those_of_the_convolutions(speck):
    sam, _ = load_sam(speck)
    generator = torch.Generator().manual_seed(1)
    image, tokens = torch.randn(3, 64, 16, generator=generator), torch.randn(3, 4, 16)
    with torch.no_grad():
        expected = sam.mask_decoder.masks(tokens, image)[:, 1:]
        found = Masks(sam, torch.float32)(image, tokens[:, 1:])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# --- lower precisions


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_only_products_are_computed_in_a_lower_precision(dtype):
    x = torch.randn(4, 8)
    norm, linear = torch.nn.LayerNorm(8), torch.nn.Linear(8, 8)
    with Products(dtype):
        assert linear(x).dtype == dtype and (x @ x.mT).dtype == dtype
        assert norm(x.to(dtype)).dtype == x.to(dtype).softmax(-1).dtype == torch.float32
        huge = torch.full((1, 1, 2, 64), 100.0)  # unscaled logits of 640 000 overflow float16
        seen = torch.nn.functional.scaled_dot_product_attention(huge, huge, huge)
    assert seen.isfinite().all()
    assert linear(x).dtype == torch.float32


@pytest.mark.slow
def test_a_half_precision_graph_keeps_halves_and_its_norms_in_float32(speck, tmp_path):
    sam, _ = load_sam(speck)
    encoder = graphs_of(sam.requires_grad_(False), "fp16")[0]
    stored = onnx_files.write_graph(encoder, tmp_path, 20, {}, 1 << 40)
    model = onnx.load(str(tmp_path / stored.file))
    kinds = {value.name: value.data_type for value in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            assert kinds[node.input[1]] == onnx.TensorProto.FLOAT
        if node.op_type == "MatMul" and node.input[1] in kinds:
            assert kinds[node.input[1]] == onnx.TensorProto.FLOAT16
    assert {port.dtype for port in (*stored.inputs, *stored.outputs)} == {"float32"}
    assert next(sam.parameters()).dtype == torch.float32  # the network itself is as it was


@pytest.mark.slow
def test_external_weights_and_a_stand_in_for_bfloat16(speck, exported_speck, tmp_path):
    sam, _ = load_sam(speck)
    encoder = graphs_of(sam.requires_grad_(False), "bf16")[0]
    stored = onnx_files.write_graph(encoder, tmp_path, onnx_files.OPSETS["bf16"], {}, 1000)
    assert (tmp_path / "encoder.onnx.data").stat().st_size > (tmp_path / stored.file).stat().st_size
    manifest = replace(exported_speck.manifest, graphs={"encoder": stored}, precision="bf16")
    other = tmp_path / "float32"
    other.mkdir()
    runtime = OnnxRuntime(
        float32_stand_in(replace(exported_speck, folder=tmp_path, manifest=manifest), other),
        parts=("encoder",),
    )
    pixels = torch.randn(1, 3, 128, 128)
    expected = sam.encode(pixels)
    off = (runtime.encode(pixels) - expected).abs().mean() / expected.abs().mean()
    assert 1e-4 < off < 2e-2  # weights are rounded, nothing else


@pytest.mark.slow
def test_int8_is_close_and_smoothing_changes_nothing(speck, exported_speck, tmp_path):
    sam, _ = load_sam(speck)
    sam.requires_grad_(False)
    # One channel far larger than the rest, as trained ViTs have.
    block = sam.image_encoder.blocks[0]
    block.norm1.weight[3] *= 60
    for norm in (block.norm1, block.norm2):  # a speck's are 0, a trained network's are not
        norm.bias += torch.linspace(-1, 1, len(norm.bias))
    pixels = [torch.randn(1, 3, 128, 128) for _ in range(2)]
    changed = smoothed(sam, pixels)
    expected = sam.encode(pixels[0])
    assert (changed.encode(pixels[0]) - expected).abs().max() < 1e-3 * expected.abs().max()
    assert changed.image_encoder.blocks[0].norm1.weight[3] < block.norm1.weight[3] / 3
    off = []
    for number, network in enumerate((sam, changed)):
        folder = tmp_path / str(number)
        folder.mkdir()
        stored = onnx_files.write_graph(graphs_of(network, "fp32")[0], folder, 20, {}, 1 << 40)
        quantise(folder / stored.file)
        kinds = [node.op_type for node in onnx.load(str(folder / stored.file)).graph.node]
        assert "MatMulInteger" in kinds
        session = onnx_session(folder / stored.file)
        found = session.run(None, {"pixels": pixels[0].numpy()})[0]
        off.append(np.abs(found - expected.numpy()).mean() / expected.abs().mean().item())
    assert off[1] < off[0] and off[1] < 0.1


def onnx_session(path):
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


# --- the proof


def test_another_networks_graphs_fail_the_proof(exported_speck, speck):
    sam, info = load_sam(speck)
    other = copy.deepcopy(sam)
    other.requires_grad_(False)
    other.image_encoder.blocks[0].mlp.lin1.weight.mul_(1.01)
    with pytest.raises(ArtefactError, match=r"embedding of a .* image is off by"):
        verify(other, info, exported_speck, ExportSettings(verify_tiles=0))
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    verify(sam, info, exported_speck, ExportSettings(verify_tiles=0))
    for name, value in sam.state_dict().items():  # float64 and back
        assert value.dtype == torch.float32 and torch.equal(value, before[name])


def test_errors_are_held_against_the_naive_run(exported_speck, speck):
    sam, _ = load_sam(speck)
    checks = check_numbers(
        sam.requires_grad_(False),
        OnnxRuntime(exported_speck),
        [("random", torch.randn(1, 3, 128, 128))],
    )
    assert len(checks) == 3 and all(check.passed and check.naive.rms > 0 for check in checks)
    worse = replace(checks[0], own=Deviation(1e-3, 1e-2), naive=Deviation(3e-4, 1e-3))
    assert not worse.passed and replace(worse, naive=Deviation(6e-4, 1e-3)).passed
    lost = Check(
        "real", "logits", Deviation.of(torch.tensor([float("nan")]), torch.ones(1)), worse.naive
    )
    with pytest.raises(ArtefactError, match="logits of a real image is off by inf"):
        refuse_failed([*checks, lost])


def test_lost_masks_are_refused_past_the_bound():
    shares = {"0.99": 0.97, "0.9": 0.97, "0.75": 1.0}
    agreement = MaskAgreement(4, 200, 200, shares, shares, 0.98, (1.0, 1.0), (1.0, 1.0))
    with pytest.raises(ArtefactError, match=r"loses 6 of 200 masks .* --max-loss 0\.03"):
        refuse_lost(agreement, BOUNDS["fp32"])
    refuse_lost(agreement, BOUNDS["fp16"])
    refuse_lost(agreement, replace(BOUNDS["fp32"], share=0.97))  # six of 200
    with pytest.raises(ArtefactError, match="more than 5 are allowed"):
        refuse_lost(agreement, replace(BOUNDS["fp32"], share=0.975))


def test_tiles_come_from_different_images_first(archive):
    tiles = read_tiles(str(archive), 4, 96, 16, 0)
    assert len(tiles) == 4 and all(tile.dtype == np.uint8 for tile in tiles)
    corners = []
    for source in find_sources(archive):
        with RasterReader(source.path) as reader:
            corners.append(reader.read(Window(0, 0, 96, 96)).rgb.tobytes())
    assert [tile.tobytes() for tile in tiles] == corners[:4]
    assert len(read_tiles(None, 3, 32, 0, 0)) == 3


# --- it appears whole or not at all


def test_a_folder_appears_when_all_went_well(tmp_path):
    out = tmp_path / "deep" / "out"
    with whole_folder(out) as part:
        (part / "a").write_text("1")
        assert not out.exists()
    assert (out / "a").read_text() == "1"
    (out / "manifest.json").write_text("{}")
    with pytest.raises(ArtefactError, match="broke"), whole_folder(out) as part:
        (part / "a").write_text("2")
        raise ArtefactError("broke")
    assert (out / "a").read_text() == "1" and not list(out.parent.glob(".out.part"))
    with whole_folder(out) as part:
        (part / "a").write_text("3")
    assert [path.name for path in out.iterdir()] == ["a"] and (out / "a").read_text() == "3"


def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    happened = []
    fsync, replace_ = os.fsync, os.replace

    def synced(handle):
        happened.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("named"), replace_(a, b)))
    with whole_folder(tmp_path / "out") as part:
        (part / "below").mkdir()
        (part / "below" / "one").write_text("1")
        (part / "two").write_text("2")
    before, after = happened[: happened.index("named")], happened[happened.index("named") :]
    assert set(before) == {"one", "two", "below", ".out.part"}
    assert after == ["named", tmp_path.name]


def test_somebody_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(ArtefactError, match=r"not empty.*photo\.jpg"), whole_folder(tmp_path):
        pass
    with pytest.raises(ArtefactError, match="a file"), whole_folder(tmp_path / "photo.jpg"):
        pass


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_killed_at_any_point_nothing_half_written_is_taken(tmp_path, renames, exported_speck):
    """Killed while writing, between the two renames of a replacement, and after them."""
    out = tmp_path / "out"
    out.mkdir()
    for path in exported_speck.folder.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    code = f"""
import os, signal
from pathlib import Path
from alps.export import folder
left = {renames}
real = os.replace
def rename(a, b):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    real(a, b)
os.replace = rename
with folder.whole_folder(Path({str(out)!r})) as part:
    (part / "manifest.json").write_text("new")
    (part / "half").write_text("w")
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
folder.os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    if renames < 2:
        if renames == 0:
            assert open_artefact(out).manifest == exported_speck.manifest
        else:
            with pytest.raises(ArtefactError, match="no exported model"):
                open_artefact(out)
        with pytest.raises(ZeroDivisionError), whole_folder(out):
            assert not (out.parent / ".out.part" / "half").exists()
            1 / 0  # noqa: B018
        assert open_artefact(out).manifest == exported_speck.manifest  # the old one is back
    else:
        assert (out / "half").exists()
    with whole_folder(out) as part:
        (part / "done").write_text("")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", "out"]


def test_a_half_written_artefact_is_never_found(exported_speck, speck, tmp_path):
    _, info = load_sam(speck)
    for name in (".onnx-fp32.part", "onnx-fp32"):
        folder = tmp_path / name
        folder.mkdir()
        for path in exported_speck.folder.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    assert [one.folder.name for one in find_artefacts(tmp_path, info)] == ["onnx-fp32"]


# --- what is refused


def run_export(*arguments):
    return CliRunner().invoke(export, [str(argument) for argument in arguments])


def test_wrong_requests_are_one_line_that_says_what_to_give(speck, tmp_path):
    for arguments, kind, text in (
        (["nobody"], ModelError, "no such model"),
        (["vit_x"], ModelError, "Did you mean"),
        ([speck, "--precision", "fp8"], SettingsError, "give fp32, fp16, bf16, int8"),
        ([speck, "--format", "openvino"], SettingsError, "give onnx, tensorrt"),
        ([speck, "--format", "tensorrt", "--precision", "int8"], SettingsError, "fp16"),
        ([speck, "--max-loss", "2"], SettingsError, "between 0 and 1"),
        ([speck, "--max-batch", "0"], SettingsError, "at least 1"),
        ([speck, "--format", "tensorrt"], SettingsError, "--capability 8.6"),
    ):
        done = run_export(*arguments, *(["--tiles", tmp_path] if "x" in arguments else []))
        assert isinstance(done.exception, kind) and text in str(done.exception)
        assert "\n" not in str(done.exception)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(package, speck, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ArtefactError, match=rf"{package}.*pip install 'alps-engine\[onnx\]'"):
        export_model(speck, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_export_leaves_nothing(speck, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("alps.export.job.onnx_files.write_graph", stop)
    with pytest.raises(KeyboardInterrupt):
        export_model(speck, tmp_path / "out", say=lambda text: None)
    assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]


# --- the shipped model


@pytest.mark.slow
def test_the_shipped_models_encoder_is_the_same_in_onnx_runtime(tmp_path, exported_speck):
    sam, info = load_sam(find_model("tiny"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = graphs_of(sam.requires_grad_(False), "fp32")[0]
        stored = onnx_files.write_graph(encoder, tmp_path, 20, {}, 1 << 40)
    session = onnx_session(tmp_path / stored.file)
    pixels = torch.randn(1, 3, 512, 512)
    found = torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])
    expected = TorchRuntime(sam).encode(pixels)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert info.name == "tiny"


def test_two_specks_have_two_places(tmp_path, exported_speck, speck):
    other = save_speck(tmp_path / "other.safetensors", seed=6)
    _, info = load_sam(other)
    with pytest.raises(ArtefactError, match=r"exported from speck.*alps export other"):
        open_artefact(exported_speck.folder, info)
    assert list(find_artefacts(exported_speck.folder.parent, info)) == []
