"""Where a worker computes: its device and its share of the cores."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What each library reads for its number of threads, when it is loaded.
THREADS_OF = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
VISIBLE = "CUDA_VISIBLE_DEVICES"
CORES_OF_A_WORKER = 8  # with more, what of Python runs one thread at a time keeps some waiting


@dataclass(frozen=True)
class Place:
    """What one worker has for itself."""

    threads: int
    gpu: str | None = None  # as CUDA_VISIBLE_DEVICES names it; None: a CPU

    @property
    def device(self) -> str:
        """As ``--device`` names it, in the worker."""
        return "cpu" if self.gpu is None else "cuda"

    def environment(self) -> dict[str, str]:
        """Variables of a worker's process, to be set before torch is imported in it."""
        found = dict.fromkeys(THREADS_OF, str(self.threads))
        found["OMP_WAIT_POLICY"] = "PASSIVE"  # see alps.engine.cli.main
        if self.gpu is not None:
            found[VISIBLE] = self.gpu
        return found

    def settle(self) -> None:
        """Let the kernels of this process keep to its share of the cores."""
        import cv2

        from alps.kernels.base.threads import set_threads

        cv2.setNumThreads(self.threads)
        set_threads(self.threads)


def places(workers: int, cores: int, gpus: Sequence[str]) -> list[Place]:
    """Places of so many workers on a machine: cores are shared out, GPUs taken in turn."""
    return [
        Place(
            max(1, cores // workers + (number < cores % workers)),
            gpus[number % len(gpus)] if gpus else None,
        )
        for number in range(workers)
    ]


def workers_for(cores: int, gpus: int) -> int:
    """How many workers suit a machine: one a GPU, or one for each eight cores of a CPU.

    Threads of one process wait for each other wherever Python itself runs, the longer the more
    there are; processes do not, but each holds a model of its own.
    """
    return gpus or max(1, cores // CORES_OF_A_WORKER)


def visible_gpus(numbers: Sequence[int], environment: Mapping[str, str] = os.environ) -> list[str]:
    """GPUs by the numbers that PyTorch has for them, as CUDA_VISIBLE_DEVICES names them."""
    known = environment.get(VISIBLE)
    names = known.split(",") if known else None
    return [names[number].strip() if names else str(number) for number in numbers]
