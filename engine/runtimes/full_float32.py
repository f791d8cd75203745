"""Products and convolutions of float32 without TF32, whatever the caller lets PyTorch round.

PyTorch keeps two switches for them, for matrix products and for cuDNN's convolutions, each of the
whole process; one that says ``none`` follows the wider ones, ``torch.backends.fp32_precision`` say.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_EXACT, _INHERITED = "ieee", "none"

# PyTorch's stubs know no parts of it.
_cudnn: Any = torch.backends.cudnn
_lock = threading.Lock()
_inside = 0  # blocks that compute now, in whichever threads
_before = ("", "")


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 on a GPU with all of its bits in here; then the switches are as before.

    Threads may be in here at once: the first sets the switches, the last sets them back. Only the
    newer names are used, as the older ones raise RuntimeError once a caller has set a newer one.
    """
    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = _as_set()
            _set(_EXACT, _EXACT)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _set(*_before)


def _as_set() -> tuple[str, str]:
    """Of products and convolutions: what to set so that they are as now, and follow what they do.

    PyTorch tells only what holds, not whether it was set there or on a wider switch.
    """
    wider = _cudnn.fp32_precision
    products = torch.backends.cuda.matmul.fp32_precision
    convolutions = _cudnn.conv.fp32_precision
    return (
        _INHERITED if products == wider else products,
        _INHERITED if convolutions == wider else convolutions,
    )


def _set(products: str, convolutions: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = products
    _cudnn.conv.fp32_precision = convolutions
