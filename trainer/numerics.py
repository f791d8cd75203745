"""In which precision a network computes, and how its gradients add up the same way each time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from alps.engine.base.errors import SettingsError


def autocast_for(device: torch.device, precision: str) -> Callable[[], torch.autocast]:
    """A function that opens the precision of one pass through a network."""
    on = precision == "bfloat16"
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=on)


def choose_precision(device: torch.device, asked: str) -> str:
    """``auto`` is bfloat16 where the device computes in it, else float32.

    Raises:
        SettingsError: bfloat16 was asked of a GPU that has none.
    """
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        if asked == "bfloat16" and not has:
            raise SettingsError(
                "--precision bfloat16: this GPU does not compute in it; give float32"
            )
    elif device.type == "mps":
        has = False  # it runs; what of it is fast differs from chip to chip
    else:
        # oneDNN runs bfloat16 on any CPU with AVX-512; only this makes it fast.
        capabilities: Callable[[], dict[str, bool]] = getattr(torch.cpu, "get_capabilities", dict)
        has = bool(capabilities().get("avx512_bf16"))
    return asked if asked != "auto" else "bfloat16" if has else "float32"


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """On the CPU, add up gradients of indexed tables (relative positions) in one order.

    PyTorch's parallel sum of them depends on the threads' timing otherwise
    (torch.use_deterministic_algorithms, ``Tensor.__getitem__``).
    """
    if device.type != "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    setting: Any = torch.utils.deterministic
    fill = setting.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    setting.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        setting.fill_uninitialized_memory = fill
