"""ONNX graphs as TensorRT engines, through the Python API of tensorrt or tensorrt_rtx.

An engine fits one kind of GPU and one version of its builder. tensorrt_rtx builds for any kind that
it knows, without a GPU; tensorrt builds for the GPU that is there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from alps.engine.base.errors import ArtefactError, SettingsError
from alps.engine.base.progress import Progress
from alps.engine.runtimes.artefact import StoredGraph
from alps.engine.runtimes.tensorrt import tensorrt_module


@dataclass(frozen=True)
class Target:
    """What engines are built for."""

    capability: str  # of the GPU, 8.6 say
    # The most of each dynamic axis in one call; engines are tuned for it.
    at_most: Mapping[str, int]


def check_target(capability: str | None) -> tuple[ModuleType, str]:
    """TensorRT's module and the compute capability to build for, before any work is done.

    capability: 8.6 say; None: that of the GPU here.

    Raises:
        SettingsError: it cannot be built for.
        ArtefactError: TensorRT is not installed.
    """
    trt = tensorrt_module()
    here = None
    if torch.cuda.is_available():
        here = "{}.{}".format(*torch.cuda.get_device_capability())
    wanted = capability or here
    if wanted is None:
        raise SettingsError(
            "there is no GPU here to build for; name one by its compute capability, "
            "--capability 8.6 say"
        )
    if not re.fullmatch(r"\d+\.\d", wanted):
        raise SettingsError(f"--capability {wanted}: give two numbers with a point, 8.6 say")
    # It builds for those that it names, of which the GPU here need be none.
    if trt.__name__ == "tensorrt" and wanted != here and find_spec("tensorrt_rtx") is not None:
        trt = tensorrt_module("tensorrt_rtx")
    if not _knows_capabilities(trt):
        if wanted == here:
            return trt, wanted
        raise SettingsError(
            f"--capability {wanted}: {trt.__name__} builds only for the GPU that is there "
            f"({here or 'none'}); pip install 'alps-engine[tensorrt-rtx]' builds for others"
        )
    if _named(trt, wanted) is None:
        known = sorted(
            (f"{name[2:-1]}.{name[-1]}" for name in dir(trt.ComputeCapability) if name[:2] == "SM"),
            key=float,
        )
        raise SettingsError(
            f"--capability {wanted}: {trt.__name__} {trt.__version__} builds for "
            f"{', '.join(known)}; for another GPU pip install 'alps-engine[tensorrt-cu13]' there, "
            "and export on it"
        )
    return trt, wanted


def build_engine(
    trt: ModuleType, folder: Path, stored: StoredGraph, target: Target, cache: Path | None = None
) -> StoredGraph:
    """Build the engine of an ONNX file beside it, and return what the manifest says of it.

    cache: a file of timings, read where it is there and written where this TensorRT keeps any.

    Raises:
        ArtefactError: TensorRT cannot parse or build the graph; with its own first message.
    """
    logger = _logger_of(trt)
    builder = trt.Builder(logger)
    # Each product in the precision that the graph says, and no other.
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    source = folder / stored.file
    if not parser.parse_from_file(str(source)):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise _failed(trt, source, "parse", [*errors, *logger.errors])
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # of float32 only ten bits would be left
    if _knows_capabilities(trt):
        config.num_compute_capabilities = 1
        config.set_compute_capability(_named(trt, target.capability), 0)
    at_most = {
        port.shape[0]: target.at_most[port.shape[0]]
        for port in stored.inputs
        if isinstance(port.shape[0], str)
    }
    if at_most:
        profile = builder.create_optimization_profile()
        for port in stored.inputs:
            if isinstance(port.shape[0], str):
                most, rest = at_most[port.shape[0]], port.shape[1:]
                profile.set_shape(port.name, (1, *rest), (most, *rest), (most, *rest))
        config.add_optimization_profile(profile)
    timings = _timing_cache(trt, config, cache)
    with Progress(None, "steps", f"building {source.stem} for {target.capability}") as progress:
        config.progress_monitor = _monitor_of(trt, progress)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise _failed(trt, source, "build", logger.errors)
    if timings is not None and cache is not None:
        cache.write_bytes(bytes(timings.serialize()))
    name = f"{source.stem}.engine"
    (folder / name).write_bytes(bytes(plan))
    return replace(stored, file=name, at_most=at_most)


def _failed(trt: ModuleType, source: Path, verb: str, errors: list[str]) -> ArtefactError:
    first = " ".join((errors or ["it gives no reason"])[0].split())[:300]
    return ArtefactError(
        f"{trt.__name__} {trt.__version__} cannot {verb} {source.name}: {first}; nothing was "
        "written. Try another --precision or another version of it"
    )


def _knows_capabilities(trt: ModuleType) -> bool:
    return hasattr(trt.IBuilderConfig, "set_compute_capability")


def _named(trt: ModuleType, capability: str) -> Any:
    return getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}", None)


def _timing_cache(trt: ModuleType, config: Any, cache: Path | None) -> Any:
    """Timings of earlier builds, handed to the builder; None where none are kept."""
    if cache is None or trt.__name__ == "tensorrt_rtx":  # which times kernels where they run
        return None
    known = cache.read_bytes() if cache.is_file() else b""
    timings = config.create_timing_cache(known)
    if timings is None and known:  # of another version
        timings = config.create_timing_cache(b"")
    if timings is not None:
        config.set_timing_cache(timings, ignore_mismatch=False)
    return timings


def _logger_of(trt: ModuleType) -> Any:
    base: Any = trt.ILogger

    class Logger(base):
        """Keeps what goes wrong; TensorRT prints it otherwise."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(text)

    return Logger()


def _monitor_of(trt: ModuleType, progress: Progress) -> Any:
    base: Any = trt.IProgressMonitor

    class Monitor(base):
        """Counts the steps of the outermost phase, layers mostly."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.outermost: str | None = None

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self.outermost = phase
                progress.expect(steps)
                progress.move_to(0)

        def step_complete(self, phase: str, step: int) -> bool:
            if phase == self.outermost:
                progress.move_to(step + 1)
            return True  # False would stop the build

        def phase_finish(self, phase: str) -> None:
            pass

    return Monitor()
