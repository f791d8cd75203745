"""Exported graphs in ONNX Runtime: on the CPU, or through its CUDA and TensorRT providers.

Inputs and outputs are bound by their addresses: nothing is copied, on a GPU not through the host
either. There all graphs of a runtime run in one stream of their own: ONNX Runtime takes the default
stream, whose number is 0, for none at all.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alps.engine.base.errors import ArtefactError, SettingsError
from alps.engine.runtimes.artefact import PARTS, Artefact, StoredGraph
from alps.engine.runtimes.exported import GraphRuntime, empty_outputs
from alps.kernels.base.threads import threads

_log = logging.getLogger(__name__)

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_BFLOAT16 = 16  # as onnx.TensorProto numbers it; NumPy has no such type
_BOUND_AS = {"float32": np.float32, "float16": np.float16, "bfloat16": _BFLOAT16}
# Of a GPU's memory, for the values of one graph: PyTorch and the masks need theirs beside it.
_SHARE_OF_MEMORY = 0.5


class OnnxRuntime(GraphRuntime):
    """SAM in ONNX Runtime.

    Args:
        artefact: of kind onnx.
        device: cpu, or a GPU.
        provider: cpu, cuda or tensorrt; None: that of the device. TensorRT's builds engines on
            its first calls and keeps them in ``cache``.
        parts: which graphs to load.
        cache: a folder for the engines; by default one beside the graphs.

    Raises:
        ArtefactError: onnxruntime is not installed, or cannot run these graphs here.
        SettingsError: this onnxruntime has no such provider.
    """

    def __init__(
        self,
        artefact: Artefact,
        device: torch.device | str = "cpu",
        *,
        provider: str | None = None,
        parts: Sequence[str] = PARTS,
        cache: Path | None = None,
    ) -> None:
        device = torch.device(device)
        if artefact.manifest.kind != "onnx":
            raise ArtefactError(
                f"{artefact.folder}: holds {artefact.manifest.kind} engines, not ONNX graphs; "
                f"export them: alps export {artefact.manifest.model} --format onnx"
            )
        artefact.check_files(parts)
        self.provider = provider or device.type
        check_provider(self.provider)
        # Sessions have no more than its number: it must outlive them.
        self._stream = None if self.provider == "cpu" else torch.cuda.Stream(device)
        cache = cache or artefact.folder / f"engines-{device.type}"
        place = _Place(device, self._stream, providers_for(self.provider, self._stream, cache))
        graphs = {
            part: _OrtGraph(artefact.path(part), artefact.manifest.graphs[part], place)
            for part in parts
        }
        super().__init__(artefact, graphs, device)


def onnxruntime_module() -> ModuleType:
    """The package, or an error that names the extra to install."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ArtefactError(
            f"onnxruntime is not installed ({error}): pip install 'alps-engine[onnx]', or on a "
            "machine with a GPU 'alps-engine[onnx-gpu-cu13]', [onnx-gpu-cu12] for a driver of "
            "CUDA 12"
        ) from error
    return onnxruntime


def check_provider(provider: str) -> None:
    """Refuse a provider that onnxruntime has not here.

    Raises:
        SettingsError: says which there are, or what to install.
    """
    ort = onnxruntime_module()
    if provider not in PROVIDERS:
        raise SettingsError(f"provider {provider!r}: give one of {', '.join(PROVIDERS)}")
    if PROVIDERS[provider] not in ort.get_available_providers():
        raise SettingsError(
            f"this onnxruntime has no {PROVIDERS[provider]}: pip uninstall onnxruntime, then "
            "pip install 'alps-engine[onnx-gpu-cu13]', [onnx-gpu-cu12] for a driver of CUDA 12"
        )


def providers_for(provider: str, stream: torch.cuda.Stream | None, cache: Path) -> list[Any]:
    """What an inference session is to try, in order, with options.

    Args:
        provider: one that is here.
        stream: of the GPU, not its default one; None on a CPU.
        cache: a folder for engines of TensorRT's provider.
    """
    ort = onnxruntime_module()
    if stream is None:
        return [PROVIDERS["cpu"]]
    if hasattr(ort, "preload_dlls"):  # since 1.21: CUDA's libraries as pip installed them
        ort.preload_dlls()
    memory = torch.cuda.get_device_properties(stream.device).total_memory
    common = {
        "device_id": str(stream.device.index or 0),
        "user_compute_stream": str(stream.cuda_stream),
    }
    options = {
        "do_copy_in_default_stream": "1",
        "use_tf32": "0",
        # Grown by what is asked for, not doubled: the rest is PyTorch's.
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": str(int(memory * _SHARE_OF_MEMORY)),
    }
    cuda = (PROVIDERS["cuda"], common | options)
    if provider == "cuda":
        return [cuda, PROVIDERS["cpu"]]
    cache.mkdir(parents=True, exist_ok=True)
    kept = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
    }
    return [(PROVIDERS["tensorrt"], common | kept), cuda, PROVIDERS["cpu"]]


@dataclass(frozen=True)
class _Place:
    """Where the graphs of a runtime run."""

    device: torch.device
    stream: torch.cuda.Stream | None  # None on a CPU
    providers: list[Any]


class _OrtGraph:
    """A graph in an inference session."""

    limit = None

    def __init__(self, path: Path, stored: StoredGraph, place: _Place) -> None:
        ort = onnxruntime_module()
        options = ort.SessionOptions()
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        options.intra_op_num_threads = threads()
        options.log_severity_level = 3
        # Waiting threads would burn the CPUs that the compiled kernels use meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = ort.InferenceSession(str(path), options, providers=place.providers)
        except Exception as error:  # onnxruntime raises a dozen kinds of its own
            raise ArtefactError(
                f"{path}: onnxruntime {ort.__version__} cannot run it here "
                f"({' '.join(str(error).split())[:300]})"
            ) from error
        first = place.providers[0]
        wanted = first if isinstance(first, str) else first[0]
        if wanted not in self.session.get_providers():
            raise ArtefactError(
                f"{path}: onnxruntime fell back from {wanted} to the CPU; check that the CUDA and "
                "cuDNN libraries it was built for are installed"
            )
        self.path, self.stored, self.place = path, stored, place
        if fell := self._on_the_cpu():
            kinds = ", ".join(sorted(set(fell)))
            _log.warning(
                "%s: %d of its nodes run on the CPU, each a way there and back (%s)",
                path,
                len(fell),
                kinds,
            )

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run on tensors of the device, in the manifest's order."""
        binding = self.session.io_binding()
        device, stream = self.place.device, self.place.stream
        place = (device.type, device.index or 0)
        held = []  # what is bound must outlive the call
        for port, tensor in zip(self.stored.inputs, inputs, strict=True):
            held.append(tensor.contiguous())
            binding.bind_input(
                port.name, *place, _BOUND_AS[port.dtype], tuple(tensor.shape), held[-1].data_ptr()
            )
        outputs = empty_outputs(self.stored, inputs, device)
        for port, tensor in zip(self.stored.outputs, outputs, strict=True):
            binding.bind_output(
                port.name, *place, _BOUND_AS[port.dtype], tuple(tensor.shape), tensor.data_ptr()
            )
        if stream is not None:  # what was queued for the inputs is done before
            stream.wait_stream(torch.cuda.current_stream(device))
        self.session.run_with_iobinding(binding)  # which waits for its outputs
        return outputs

    def _on_the_cpu(self) -> list[str]:
        """Kinds of the nodes that a GPU's providers did not take, one a node.

        None where this onnxruntime is older than 1.24, which does not tell.
        """
        if self.place.stream is None or not hasattr(
            self.session, "get_provider_graph_assignment_info"
        ):
            return []
        return [
            node.op_type
            for part in self.session.get_provider_graph_assignment_info()
            if part.ep_name == PROVIDERS["cpu"]
            for node in part.get_nodes()
        ]
