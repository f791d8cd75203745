"""Tensors as Numba's CUDA kernels take them, in PyTorch's memory and on PyTorch's stream."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Numba's kernels count bits: they have to see words without a sign.
WORDS = torch.uint32


def shown(tensor: Tensor) -> Any:
    """A tensor for a kernel, which reads and writes it in place: not copied, not waited for.

    One on the CPU is for Numba's simulator.
    """
    from alps.kernels.base.numba_cuda import cuda, in_simulator

    if tensor.device.type != "cuda":
        return in_simulator(tensor.numpy())
    if tensor.dtype == WORDS:  # which not all versions of PyTorch hand out
        return cuda.as_cuda_array(tensor.view(torch.int32), sync=False).view(np.uint32)
    return cuda.as_cuda_array(tensor, sync=False)


def stream_of(device: torch.device) -> Any:
    """The current stream of PyTorch, for a kernel to be put in."""
    if device.type != "cuda":
        return 0
    from alps.kernels.base.numba_cuda import cuda

    return cuda.external_stream(torch.cuda.current_stream(device).cuda_stream)


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Within, this thread's kernels run on a device: Numba takes the one that is current."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
