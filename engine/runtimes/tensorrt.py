"""Engines of TensorRT, or of TensorRT for RTX, run on PyTorch's tensors.

Engines are built by ``alps export --format tensorrt`` for one kind of GPU and one version of the
builder; both are checked before an engine is opened. All engines of a runtime run in one stream,
not the default one, in which TensorRT would wait for the GPU at every call; so they never run at
once, and share what memory they need for their own values.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import torch
from torch import Tensor

from alps.engine.base.errors import ArtefactError
from alps.engine.runtimes.artefact import PARTS, Artefact, StoredGraph
from alps.engine.runtimes.exported import GraphRuntime, empty_outputs

MODULES = ("tensorrt", "tensorrt_rtx")


class TensorRTRuntime(GraphRuntime):
    """SAM in TensorRT.

    Args:
        artefact: of kind tensorrt.
        device: a GPU.
        parts: which engines to load.

    Raises:
        ArtefactError: TensorRT is not installed, or the engines are for another version of it or
            another GPU.
    """

    def __init__(
        self, artefact: Artefact, device: torch.device | str, *, parts: Sequence[str] = PARTS
    ) -> None:
        device = torch.device(device)
        if artefact.manifest.kind != "tensorrt":
            raise ArtefactError(
                f"{artefact.folder}: holds ONNX graphs, not TensorRT engines; build them: "
                f"alps export {artefact.manifest.model} --format tensorrt"
            )
        trt = tensorrt_module(artefact.manifest.builder)
        capability = gpu_capability(device)
        check_engines(artefact, trt, capability)
        artefact.check_files(parts)
        logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(logger)  # engines need it for as long as they live
        with torch.cuda.device(device):
            engines = {part: _open_engine(self._runtime, artefact.path(part)) for part in parts}
            place = _Place.for_engines(device, engines.values())
            graphs = {
                part: _TrtGraph(
                    _open_context(trt, engine, artefact.path(part), place),
                    artefact.manifest.graphs[part],
                    place,
                )
                for part, engine in engines.items()
            }
        self._engines = engines  # contexts do not keep them alive
        super().__init__(artefact, graphs, device)


def tensorrt_module(wanted: str | None = None) -> ModuleType:
    """TensorRT's Python API, by whichever name it is installed.

    wanted: the one that engines were built with; None: any.

    Raises:
        ArtefactError: it is not installed; names the extra.
    """
    from importlib import import_module

    for name in (wanted,) if wanted else MODULES:
        try:
            return import_module(name)
        except ImportError:
            continue
    missing = wanted or " and ".join(MODULES)
    extras = {
        "tensorrt": "'alps-engine[tensorrt-cu13]', or [tensorrt-cu12] for a driver of CUDA 12",
        "tensorrt_rtx": "'alps-engine[tensorrt-rtx]'",
    }
    other = "" if wanted else "; 'alps-engine[tensorrt-rtx]' for a GeForce or RTX card"
    raise ArtefactError(
        f"{missing}: not installed here; pip install {extras[wanted or MODULES[0]]}{other}"
    )


def gpu_capability(device: torch.device) -> str:
    """Compute capability of a GPU, ``8.6`` say.

    Raises:
        ArtefactError: it is no GPU.
    """
    if device.type != "cuda":
        raise ArtefactError(
            f"TensorRT engines run on a GPU only, not on {device}; give --device cuda, or "
            "--runtime auto"
        )
    major, minor = torch.cuda.get_device_capability(device)
    return f"{major}.{minor}"


def check_engines(artefact: Artefact, trt: ModuleType, capability: str) -> None:
    """Refuse engines of another version or GPU.

    capability: of the GPU they shall run on.

    Raises:
        ArtefactError: says what to build again.
    """
    made = artefact.manifest
    version = made.versions.get(made.builder or "", "unknown")
    for what, was, here in (
        ("version of " + str(made.builder), version, trt.__version__),
        ("compute capability", made.compute_capability, capability),
    ):
        if was != here:
            raise ArtefactError(
                f"{artefact.folder}: engines were built for {what} {was}, here it is {here}; "
                f"rebuild them on this machine: {artefact.command()} --capability {capability}"
            )


@dataclass(frozen=True)
class _Place:
    """Where the engines of a runtime run: one after the other, in one stream."""

    device: torch.device
    stream: Any  # torch.cuda.Stream
    scratch: Tensor  # bytes, for the values inside of whichever engine runs

    @classmethod
    def for_engines(cls, device: torch.device, engines: Iterable[Any]) -> Self:
        """With room for the largest of them."""
        size = max(int(engine.device_memory_size_v2) for engine in engines)
        scratch = torch.empty(max(1, size), dtype=torch.uint8, device=device)
        return cls(device, torch.cuda.Stream(device), scratch)

    @contextmanager
    def in_stream(self, tensors: Sequence[Tensor]) -> Iterator[int]:
        """Queue work on ``tensors`` in the stream, which is handed out.

        It begins after all that was queued before in the caller's stream, and what the caller
        queues later begins after it.
        """
        callers = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(callers)
        yield int(self.stream.cuda_stream)
        callers.wait_stream(self.stream)
        for tensor in tensors:  # their memory may not be given away before the stream has used it
            tensor.record_stream(self.stream)


def _open_engine(runtime: Any, path: Path) -> Any:
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ArtefactError(
            f"{path}: TensorRT cannot open it here; build it on this machine, with the driver that "
            "it has"
        )
    return engine


def _open_context(trt: ModuleType, engine: Any, path: Path, place: _Place) -> Any:
    context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if context is None:
        raise ArtefactError(
            f"{path}: TensorRT cannot prepare it on {place.device}; free some of the GPU's memory, "
            "or build it on this machine"
        )
    context.set_device_memory(place.scratch.data_ptr(), place.scratch.numel())
    return context


class _TrtGraph:
    """An engine's context, with the ports of its graph."""

    def __init__(self, context: Any, stored: StoredGraph, place: _Place) -> None:
        self.context, self.stored, self.place = context, stored, place
        self.limit = stored.limit()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run on tensors of the GPU, in the manifest's order; in pieces where they are many."""
        sizes = [
            len(tensor)
            for port, tensor in zip(self.stored.inputs, inputs, strict=True)
            if isinstance(port.shape[0], str)
        ]
        if not sizes or self.limit is None or sizes[0] <= self.limit:
            return self._run(inputs)
        pieces = [
            tensor.split(self.limit)
            if isinstance(port.shape[0], str)
            else [tensor] * -(-sizes[0] // self.limit)
            for port, tensor in zip(self.stored.inputs, inputs, strict=True)
        ]
        parts = [self._run(some) for some in zip(*pieces, strict=True)]
        return [torch.cat(outputs) for outputs in zip(*parts, strict=True)]

    def _run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        held = [tensor.contiguous() for tensor in inputs]  # what is bound must outlive the call
        outputs = empty_outputs(self.stored, inputs, self.place.device)
        for port, tensor in zip(self.stored.inputs, held, strict=True):
            # One that is refused leaves the shape of the call before in force.
            self._accepted(
                self.context.set_input_shape(port.name, tuple(tensor.shape)),
                f"{port.name} of shape {tuple(tensor.shape)}",
            )
        ports = (*self.stored.inputs, *self.stored.outputs)
        for port, tensor in zip(ports, (*held, *outputs), strict=True):
            address = tensor.data_ptr()
            self._accepted(self.context.set_tensor_address(port.name, address), port.name)
        with self.place.in_stream((*held, *outputs)) as stream:
            self._accepted(self.context.execute_async_v3(stream), "")
        return outputs

    def _accepted(self, done: bool, what: str) -> None:
        if not done:
            raise ArtefactError(
                f"TensorRT could not {f'take {what} into' if what else 'run'} {self.stored.file} "
                f"on {self.place.device}; build it on this machine, with --max-batch and "
                "--max-points as they are wanted"
            )
