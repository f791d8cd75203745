"""Engines of TensorRT, or of TensorRT for RTX, run on PyTorch's tensors and stream.

Engines are built by ``alps export --format tensorrt`` for one kind of GPU and one version of the
builder; both are checked before an engine is opened.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

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
        graphs = {
            part: _TrtGraph(
                self._runtime, artefact.path(part), artefact.manifest.graphs[part], device
            )
            for part in parts
        }
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
    extra = "tensorrt-rtx" if wanted == "tensorrt_rtx" else "tensorrt"
    raise ArtefactError(
        f"{missing}: not installed here; pip install 'alps-engine[{extra}]'"
        + ("" if wanted else ", or 'alps-engine[tensorrt-rtx]' for a GeForce or RTX card")
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


class _TrtGraph:
    """An engine with its context."""

    def __init__(self, runtime: Any, path: Any, stored: StoredGraph, device: torch.device) -> None:
        self.engine = runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise ArtefactError(
                f"{path}: TensorRT cannot open it here; build it on this machine, with the driver "
                "it has"
            )
        self.context = self.engine.create_execution_context()
        self.stored, self.device, self.limit = stored, device, stored.limit()

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
        held = []  # what is bound must outlive the call
        for port, tensor in zip(self.stored.inputs, inputs, strict=True):
            held.append(tensor.contiguous())
            self.context.set_input_shape(port.name, tuple(tensor.shape))
            self.context.set_tensor_address(port.name, held[-1].data_ptr())
        outputs = empty_outputs(self.stored, inputs, self.device)
        for port, tensor in zip(self.stored.outputs, outputs, strict=True):
            self.context.set_tensor_address(port.name, tensor.data_ptr())
        if not self.context.execute_async_v3(_stream(self.device)):
            raise ArtefactError(
                f"TensorRT could not run {self.stored.file} on {self.device}; build it on this "
                "machine"
            )
        return outputs


def _stream(device: torch.device) -> int:
    """PyTorch's own stream: what it queued before is done before, and the reverse."""
    return torch.cuda.current_stream(device).cuda_stream
