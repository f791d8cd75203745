"""Runtimes and precisions side by side: what `alps bench runtimes` exports, runs and prints."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from alps.bench.everything.compare import (
    OUR_BUILDER,
    Comparison,
    Say,
    Setup,
    prepared,
    run_rows,
)
from alps.bench.everything.options import EverythingOptions
from alps.bench.everything.sides import Job
from alps.engine.base.errors import ArtefactError, SettingsError
from alps.engine.models.checkpoints import load_network
from alps.engine.runtimes.artefact import find_artefacts
from alps.export.job import export_model
from alps.export.settings import PRECISIONS, ExportSettings

CALIBRATION_TILES = 16


def compare_runtimes(
    images: Sequence[str],
    options: EverythingOptions,
    precisions: Sequence[str],
    *,
    artefacts: Path | None = None,
    target: Path | None = None,
    say: Say = print,
) -> Comparison:
    """Run every runtime and precision that works here; print the tables.

    artefacts: exports to run; None: they are made for it, and deleted afterwards.

    Raises:
        AlpsError: a row failed that was thought to work; the tables are printed nevertheless.
        SettingsError: no such precision.
    """
    unknown = sorted(set(precisions) - set(PRECISIONS))
    if unknown:
        raise SettingsError(f"--precisions {','.join(unknown)}: give {','.join(PRECISIONS)}")
    with (
        prepared(images, options, say) as setup,
        tempfile.TemporaryDirectory(prefix="alps-bench-exports-") as name,
    ):
        folder = artefacts or Path(name)
        if artefacts is None:
            _export(setup, images, precisions, folder, options.seed, say)
        jobs = rows(setup, precisions, folder)
        return run_rows(setup, jobs, target=target, say=say)


def rows(setup: Setup, precisions: Sequence[str], folder: Path) -> list[Job]:
    """PyTorch in fp32 first, then all else; on a CPU also each encoder with PyTorch's decoder."""
    on_cpu = torch.device(setup.device).type == "cpu"
    _, info = load_network(setup.checkpoint)
    found = {
        (artefact.manifest.kind, artefact.manifest.precision): artefact.folder
        for artefact in find_artefacts(folder, info)
    }
    jobs = [setup.job("torch fp32", OUR_BUILDER, precision="fp32")]
    for precision in precisions:
        if precision in ("fp16", "bf16"):
            jobs.append(setup.job(f"torch {precision}", OUR_BUILDER, precision=precision))
        for runtime, kind in (("onnxruntime", "onnx"), ("tensorrt", "tensorrt")):
            place = found.get((kind, precision))
            if place is None or (on_cpu and (kind == "tensorrt" or precision == "bf16")):
                continue  # nothing computes bfloat16 graphs on a CPU
            names = [runtime]
            if on_cpu and precision in ("fp32", "int8"):
                names.append(f"{runtime}+torch")
            for name in names:
                jobs.append(
                    setup.job(
                        f"{name} {precision}",
                        OUR_BUILDER,
                        precision=precision,
                        runtime=name,
                        artefacts=str(place),
                    )
                )
    return jobs


def _export(
    setup: Setup,
    images: Sequence[str],
    precisions: Sequence[str],
    folder: Path,
    seed: int,
    say: Say,
) -> None:
    on_cpu = torch.device(setup.device).type == "cpu"
    kinds = [("onnx", p) for p in precisions if not (on_cpu and p == "bf16")]
    if not on_cpu:
        kinds += [("tensorrt", p) for p in precisions if p != "int8"]
    for kind, precision in kinds:
        settings = ExportSettings(
            format=kind,
            precision=precision,
            tiles=images[0] if images else None,
            verify_tiles=0,  # the comparison itself shows what masks it costs
            calibration_tiles=CALIBRATION_TILES,
            seed=seed,
        )
        say(f"exporting {kind} {precision}")
        try:
            export_model(setup.checkpoint, folder / f"{kind}-{precision}", settings, say)
        except ArtefactError as error:  # a package that is not here, say
            say(f"{kind} {precision} left out: {error}")
