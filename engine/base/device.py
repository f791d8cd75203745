"""Which device a model runs on."""

import re

import torch

from alps.engine.base.errors import SettingsError


def choose_device(name: str) -> torch.device:
    """``auto`` is the first GPU where there is one, else the CPU; ``cuda:1`` names one.

    Raises:
        SettingsError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise SettingsError(f"--device {name}: give auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise SettingsError(
                f"--device {name}: PyTorch sees {count} GPU(s) here; give --device cpu, or install "
                "a CUDA build of torch and check nvidia-smi"
            )
        if device.index is not None:
            torch.cuda.set_device(device)  # compiled kernels run on the GPU that is current
    return device
