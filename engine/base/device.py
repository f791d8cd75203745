"""Which device a model runs on, and on how many threads of a CPU."""

import re

import torch

from alps.engine.base.errors import SettingsError


def gpus_named(name: str) -> list[int]:
    """Numbers of the GPUs that a name stands for; none for a CPU.

    ``cuda`` is all there are, ``cuda:0,2`` these, ``auto`` the first where there is one. ``mps``
    has no number.

    Raises:
        SettingsError: no such device here.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+(,\d+)*)?", name):
        raise SettingsError(
            f"--device {name}: give auto, cpu, cuda for all GPUs, cuda:N, several, cuda:0,2 say, "
            "or mps for an Apple GPU"
        )
    if name == "mps":
        _refuse_without_mps()
    if name in ("cpu", "mps") or (name == "auto" and not torch.cuda.is_available()):
        return []
    if name == "auto":
        return [0]
    there = torch.cuda.device_count()
    numbers = [int(text) for text in name[5:].split(",")] if ":" in name else list(range(there))
    if not numbers or max(numbers) >= there or len(set(numbers)) < len(numbers):
        raise SettingsError(
            f"--device {name}: PyTorch sees {there} GPU(s) here; give --device cpu, or install "
            "a CUDA build of torch and check nvidia-smi"
        )
    return numbers


def choose_device(name: str) -> torch.device:
    """``auto`` is the first GPU where there is one, else the CPU; ``cuda:1`` names one.

    ``mps``, an Apple GPU, is taken only where it is asked for: PyTorch alone runs on it.

    Raises:
        SettingsError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise SettingsError(f"--device {name}: give auto, cpu, cuda, cuda:N or mps")
    if name == "mps":
        _refuse_without_mps()
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


def require_gpu_kernels(device: torch.device) -> None:
    """Refuse a GPU where what follows a network's answers could not run on it.

    Raises:
        SettingsError: names what to install.
    """
    if device.type != "cuda":
        return
    try:
        import alps.kernels.base.numba_cuda  # noqa: F401
    except ImportError as error:
        raise SettingsError(f"--device {device}: {error}; or give --device cpu") from error


def sum_type(device: torch.device) -> torch.dtype:
    """In what long sums are taken on a device: float64, but for Apple GPUs, which have none."""
    return torch.float32 if device.type == "mps" else torch.float64


def _refuse_without_mps() -> None:
    if not torch.backends.mps.is_available():
        raise SettingsError(
            "--device mps: PyTorch sees no Apple GPU here; give --device cpu, or auto"
        )


def on_one_thread() -> int:
    """Let PyTorch keep to the thread that calls this; return how many threads it had before.

    PyTorch rounds products otherwise on other numbers of threads. ``set_num_threads`` holds for
    the thread that calls it, but one that has computed nothing yet takes over what any thread set
    last, at its first product, whatever it was told before: so it is asked first.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    return before
