"""Which share of a CPU's cores a thread computes on: PyTorch's and kernels' threads, BLAS, OpenCV.

PyTorch rounds products otherwise on other numbers of threads, so what must not depend on the
machine is computed on one of its threads; the compiled kernels give the same bits on any number.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch

from alps.engine.base.device import on_one_thread
from alps.kernels.base.blas import one_blas_thread
from alps.kernels.base.threads import at_most


@contextmanager
def cores_shared_out() -> Iterator[None]:
    """Meanwhile BLAS and OpenCV keep to the thread that calls them, in all threads."""
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        with one_blas_thread():
            yield
    finally:
        cv2.setNumThreads(before)


@contextmanager
def kernel_threads(number: int) -> Iterator[None]:
    """Meanwhile this thread's kernels use so many threads, and its PyTorch one."""
    before = on_one_thread()
    try:
        with at_most(number):
            yield
    finally:
        torch.set_num_threads(before)
