"""An export, top to bottom: trace, lower the precision, verify, build engines, appear.

The folder is written under a hidden name and gets its own when all was verified.
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alps.engine.base.digests import file_sha256
from alps.engine.base.errors import SettingsError
from alps.engine.base.progress import Progress
from alps.engine.models.checkpoints import load_network
from alps.engine.models.registry import artefact_folder, find_model, given_name
from alps.engine.runtimes.artefact import (
    FORMAT,
    MANIFEST,
    Artefact,
    Manifest,
    StoredFile,
    StoredGraph,
    open_artefact,
)
from alps.engine.runtimes.choose import Model, Reference
from alps.engine.runtimes.onnxruntime import OnnxRuntime
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.runtimes.tensorrt import TensorRTRuntime, gpu_capability
from alps.engine.sam import ModelInfo
from alps.engine.sam.model import PIXEL_MEAN, PIXEL_STD, Network, SamLike
from alps.engine.sam2 import Sam2
from alps.engine.settings import RunSettings
from alps.export import onnx as onnx_files
from alps.export.agreement import (
    BOUNDS,
    MaskAgreement,
    compare_masks,
    refuse_lost,
)
from alps.export.folder import whole_folder
from alps.export.graphs import Graph, graphs_of
from alps.export.graphs_sam2 import sam2_graphs
from alps.export.settings import ExportSettings
from alps.export.stand_in import float32_stand_in
from alps.export.tiles import pixels_of, read_tiles
from alps.export.verify import Check, check_numbers, refuse_failed

Say = Callable[[str], None]


@dataclasses.dataclass
class _Verified:
    """What an export proved."""

    checks: list[Check]
    masks: MaskAgreement | None
    by: str
    images: str
    engines: str | None = None  # where they were run; None: there are none

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {
            "by": self.by,
            "images": self.images,
            "numbers": [check.to_dict() for check in self.checks],
            "masks": None if self.masks is None else self.masks.to_dict(),
            "engines": self.engines,
        }


def export_model(
    model: str | Path,
    out: Path | None = None,
    settings: ExportSettings | None = None,
    say: Say = print,
) -> Artefact:
    """Export a model, verified, into a folder that appears whole or not at all.

    Args:
        model: a name or a checkpoint.
        out: a new folder, or an export to replace; None: where ``--runtime`` looks by itself,
            ``alps.engine.models.registry.artefact_folder``.
        settings: what is asked for.
        say: where the tables go.

    Raises:
        ModelError: no such model.
        SettingsError: a setting cannot work.
        ArtefactError: a package is missing, the folder cannot be written, or the export does not
            compute what PyTorch does.
    """
    settings = settings or ExportSettings()
    onnx_files.require_packages()
    if settings.format == "tensorrt":
        from alps.export.tensorrt import check_target

        _, capability = check_target(settings.capability)
        settings = dataclasses.replace(settings, capability=capability)
    sam, info = load_network(find_model(model), name=given_name(model))
    if settings.precision == "int8" and not isinstance(sam, SamLike):
        raise SettingsError(
            f"--precision int8 knows SAM's encoder, and {info.name} is a SAM 2; export fp32 or fp16"
        )
    sam.requires_grad_(False)
    out = out or artefact_folder(info.sha256) / default_name(settings)
    with whole_folder(out) as folder:
        manifest = write_graphs(sam, info, folder, settings)
        verified = verify(sam, info, Artefact(folder, manifest), settings)
        for line in table(verified):
            say(line)
        if settings.format == "tensorrt":
            manifest = write_engines(folder, manifest, settings)
            verified.engines = run_engines(sam, info, Artefact(folder, manifest))
            say(f"engines: {verified.engines}")
        manifest = dataclasses.replace(manifest, verified=verified.to_dict())
        _write_manifest(folder, manifest)
    return open_artefact(out, info)


def default_name(settings: ExportSettings) -> str:
    """The folder's name in the default place."""
    end = f"-sm{settings.capability.replace('.', '')}" if settings.capability else ""
    return f"{settings.format}-{settings.precision}{end}"


def write_graphs(sam: Network, info: ModelInfo, folder: Path, settings: ExportSettings) -> Manifest:
    """Trace the graphs; with int8, quantise the encoder's on calibration tiles."""
    traced = "fp32" if settings.precision == "int8" else settings.precision
    opset = onnx_files.OPSETS[settings.precision]
    fitted = "padded with zeros below and to the right"
    if isinstance(sam, Sam2):
        fitted = "stretched to the square"
    notes = {
        "alps.model": info.name,
        "alps.sha256": info.sha256,
        "alps.precision": settings.precision,
        "alps.config": json.dumps(info.config.to_dict()),
        "alps.pixel_mean": json.dumps(PIXEL_MEAN),
        "alps.pixel_std": json.dumps(PIXEL_STD),
        "alps.input": f"pixels: RGB 0…255, less pixel_mean, over pixel_std, {fitted}",
    }
    graphs: dict[str, StoredGraph] = {}
    if settings.precision == "int8":
        from alps.export.quantise import quantise, smoothed

        assert isinstance(sam, SamLike)
        tiles = calibration(info, settings)
        sam = smoothed(sam, [pixels_of(tile, info.config) for tile in tiles])
    parts = _graphs_of(sam, traced)
    with Progress(len(parts), "graphs", "tracing") as progress:
        for graph in parts:
            graphs[graph.name] = onnx_files.write_graph(
                graph, folder, opset, notes, onnx_files.EXTERNAL_BYTES
            )
            progress.advance(1)
    if settings.precision == "int8":
        quantise(folder / graphs["encoder"].file)
    manifest = Manifest(
        format=FORMAT,
        kind="onnx",
        model=info.name,
        sha256=info.sha256,
        precision=settings.precision,
        config=info.config.to_dict(),
        graphs=graphs,
        files=_files(folder),
        pixel_mean=PIXEL_MEAN,
        pixel_std=PIXEL_STD,
        opset=opset,
        versions=_versions("alps-engine", "torch", "onnx", "onnxscript", "onnxruntime"),
    )
    _write_manifest(folder, manifest)
    return manifest


def _graphs_of(network: Network, precision: str) -> list[Graph]:
    if isinstance(network, Sam2):
        return sam2_graphs(network, precision)
    assert isinstance(network, SamLike)
    return graphs_of(network, precision)


def write_engines(folder: Path, manifest: Manifest, settings: ExportSettings) -> Manifest:
    """Build an engine of each graph and remove the graphs."""
    from alps.export.tensorrt import Target, build_engine, check_target

    trt, capability = check_target(settings.capability)
    most = {
        "batch": settings.max_batch,
        "points": settings.max_points,
        "prompts": settings.max_points,
    }
    cache = artefact_folder(manifest.sha256).parent / f"{trt.__name__}-timings-{capability}.cache"
    cache.parent.mkdir(parents=True, exist_ok=True)
    graphs = {
        part: build_engine(trt, folder, graph, Target(capability, most), cache)
        for part, graph in manifest.graphs.items()
    }
    for path in [*folder.glob("*.onnx"), *folder.glob("*.onnx.data")]:
        path.unlink()
    return dataclasses.replace(
        manifest,
        kind="tensorrt",
        graphs=graphs,
        files=_files(folder),
        versions=dict(manifest.versions) | {trt.__name__: trt.__version__},
        compute_capability=capability,
        builder=trt.__name__,
    )


def run_engines(sam: Network, info: ModelInfo, artefact: Artefact) -> str:
    """Run engines beside PyTorch where the GPU that they are for is here; says where they ran.

    Raises ArtefactError where they compute something else.
    """
    built_for = artefact.manifest.compute_capability
    if not torch.cuda.is_available() or gpu_capability(torch.device("cuda")) != built_for:
        return f"not run, no GPU of compute capability {built_for} is here"
    runtime = TensorRTRuntime(artefact, "cuda")
    Reference.of(Model(sam, info, artefact.manifest.precision)).check(runtime)
    return f"computed on {torch.cuda.get_device_name()} what PyTorch does"


def verify(
    sam: Network, info: ModelInfo, artefact: Artefact, settings: ExportSettings
) -> _Verified:
    """Run the graphs in ONNX Runtime beside PyTorch, both on the CPU; raise where they differ."""
    size = info.config.image_size
    tiles = verification(info, settings)
    generator = torch.Generator().manual_seed(settings.seed)
    images = [
        ("random", torch.randn(1, 3, size, size, generator=generator)),
        ("real", pixels_of(tiles[0], info.config)),
    ]
    by = "onnxruntime"
    with tempfile.TemporaryDirectory(prefix="alps-export-") as name:
        if settings.precision == "bf16":
            artefact = float32_stand_in(artefact, Path(name))
            by = "onnxruntime, a stand-in in float32 with the same weights: it knows no bfloat16"
        runtime = OnnxRuntime(artefact)
        checks = check_numbers(sam, runtime, images, settings.seed)
        refuse_failed(checks)
        masks = None
        if settings.verify_tiles:
            masks = compare_masks(TorchRuntime(sam), runtime, tiles, info.defaults)
            if masks is not None:
                bound = BOUNDS[settings.precision]
                if settings.max_loss is not None:
                    bound = dataclasses.replace(bound, share=1 - settings.max_loss)
                refuse_lost(masks, bound)
    source = "generated scenes" if settings.tiles is None else "the user's tiles"
    return _Verified(checks, masks, by, f"{len(tiles)} of {source}")


def verification(info: ModelInfo, settings: ExportSettings) -> list[np.ndarray]:
    """Tiles to verify on."""
    return _tiles(info, settings)[: max(1, settings.verify_tiles)]


def calibration(info: ModelInfo, settings: ExportSettings) -> list[np.ndarray]:
    """Tiles to calibrate on: others than those to verify on, where there are any."""
    tiles = _tiles(info, settings)
    return tiles[max(1, settings.verify_tiles) :] or tiles


def _tiles(info: ModelInfo, settings: ExportSettings) -> list[np.ndarray]:
    count = max(1, settings.verify_tiles)
    if settings.precision == "int8":
        count += settings.calibration_tiles
    source = RunSettings().for_model(info.defaults).source
    return read_tiles(settings.tiles, count, source.tile, source.overlap, settings.seed)


def table(verified: _Verified) -> Sequence[str]:
    """What was proved, for people."""
    lines = [f"verified by {verified.by}, on {verified.images}"]
    lines += [
        f"  {check.output} of a {check.inputs} image: off by {check.own.rms:.1e} rms, "
        f"{check.own.largest:.1e} at most; PyTorch itself {check.naive.rms:.1e}, "
        f"{check.naive.largest:.1e}"
        for check in verified.checks
    ]
    if masks := verified.masks:
        found = ", ".join(f"{share:.1%} at IoU ≥ {level}" for level, share in masks.found.items())
        own = ", ".join(f"{share:.1%}" for share in masks.own.values())
        lines += [
            f"  masks: {masks.masks} of PyTorch's, found {found}; {masks.own_masks} own, {own} "
            "of them PyTorch's",
            "  seconds a tile, PyTorch and the export: encoder "
            f"{masks.encode_seconds[0]:.2f}, {masks.encode_seconds[1]:.2f}; decoder "
            f"{masks.decode_seconds[0]:.2f}, {masks.decode_seconds[1]:.2f}",
        ]
    elif verified.masks is None:
        lines.append("  masks: none were compared")
    return lines


def _files(folder: Path) -> tuple[StoredFile, ...]:
    return tuple(
        StoredFile(path.name, path.stat().st_size, file_sha256(path))
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST
    )


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def _versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
