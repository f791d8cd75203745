"""Exported graphs in ONNX Runtime: on the CPU, or through its CUDA and TensorRT providers.

Inputs and outputs are bound by their addresses: nothing is copied, on a GPU not through the host
either.
"""

from collections.abc import Sequence
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

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_BFLOAT16 = 16  # as onnx.TensorProto numbers it; NumPy has no such type
_BOUND_AS = {"float32": np.float32, "float16": np.float16, "bfloat16": _BFLOAT16}


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
        providers = providers_for(
            self.provider, device, cache or artefact.folder / f"engines-{device.type}"
        )
        graphs = {
            part: _OrtGraph(artefact.path(part), artefact.manifest.graphs[part], providers, device)
            for part in parts
        }
        super().__init__(artefact, graphs, device)


def onnxruntime_module() -> ModuleType:
    """The package, or an error that names the extra to install."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ArtefactError(
            f"onnxruntime is not installed ({error}): pip install 'alps-engine[onnx]', or "
            "'alps-engine[onnx-gpu]' on a machine with a GPU"
        ) from error
    return onnxruntime


def providers_for(provider: str, device: torch.device, cache: Path) -> list[Any]:
    """What an inference session is to try, in order, with options.

    Raises:
        SettingsError: this onnxruntime has no such provider.
    """
    ort = onnxruntime_module()
    if provider not in PROVIDERS:
        raise SettingsError(f"provider {provider!r}: give one of {', '.join(PROVIDERS)}")
    if PROVIDERS[provider] not in ort.get_available_providers():
        raise SettingsError(
            f"this onnxruntime has no {PROVIDERS[provider]}: pip uninstall onnxruntime, then "
            "pip install 'alps-engine[onnx-gpu]'"
        )
    if provider == "cpu":
        return [PROVIDERS["cpu"]]
    number = device.index or 0
    # On PyTorch's own stream: what it wrote is there before the graph reads it, and the reverse.
    stream = str(torch.cuda.current_stream(device).cuda_stream)
    common = {"device_id": str(number), "user_compute_stream": stream}
    cuda = (PROVIDERS["cuda"], common | {"do_copy_in_default_stream": "1", "use_tf32": "0"})
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


class _OrtGraph:
    """A graph in an inference session."""

    limit = None

    def __init__(
        self, path: Path, stored: StoredGraph, providers: list[Any], device: torch.device
    ) -> None:
        ort = onnxruntime_module()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads()
        options.log_severity_level = 3
        # Waiting threads would burn the CPUs that the compiled kernels use meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime raises a dozen kinds of its own
            raise ArtefactError(
                f"{path}: onnxruntime {ort.__version__} cannot run it here "
                f"({' '.join(str(error).split())[:300]})"
            ) from error
        wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
        if wanted not in self.session.get_providers():
            raise ArtefactError(
                f"{path}: onnxruntime fell back from {wanted} to the CPU; check that the CUDA and "
                "cuDNN libraries it was built for are installed"
            )
        self.path, self.stored, self.device = path, stored, device

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run on tensors of the device, in the manifest's order."""
        binding = self.session.io_binding()
        place = (self.device.type, self.device.index or 0)
        held = []  # what is bound must outlive the call
        for port, tensor in zip(self.stored.inputs, inputs, strict=True):
            held.append(tensor.contiguous())
            binding.bind_input(
                port.name, *place, _BOUND_AS[port.dtype], tuple(tensor.shape), held[-1].data_ptr()
            )
        outputs = empty_outputs(self.stored, inputs, self.device)
        for port, tensor in zip(self.stored.outputs, outputs, strict=True):
            binding.bind_output(
                port.name, *place, _BOUND_AS[port.dtype], tuple(tensor.shape), tensor.data_ptr()
            )
        if self.device.type == "cuda":
            # Whoever made the inputs may have queued them on another stream than the session's;
            # the session itself waits for its outputs.
            torch.cuda.current_stream(self.device).synchronize()
        self.session.run_with_iobinding(binding)
        return outputs
