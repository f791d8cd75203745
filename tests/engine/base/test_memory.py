"""Memory that ran out, in the words of the libraries that say so."""

import errno
import os

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from alps.engine.base.errors import AlpsError, ModelError, OutOfMemoryError, RunFolderError
from alps.engine.base.memory import is_out_of_memory, memory_named, out_of_memory

TOO_MUCH = 1 << 50  # bytes; no system promises as many


@pytest.mark.parametrize(
    "ask",
    [
        lambda: np.zeros(TOO_MUCH, np.uint8),
        lambda: bytearray(TOO_MUCH),
        lambda: torch.empty(TOO_MUCH, dtype=torch.uint8),
        lambda: pa.allocate_buffer(TOO_MUCH),
    ],
    ids=["numpy", "python", "torch", "pyarrow"],
)
def test_what_libraries_raise(ask):
    with pytest.raises(OutOfMemoryError, match="while trying"), memory_named("trying", "ask less"):
        ask()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("could not create a primitive"),
        RuntimeError("unable to mmap 4000 bytes from file </m.pth>: Cannot allocate memory (12)"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"),  # Numba
        RuntimeError("cudaErrorMemoryAllocation"),  # CuPy
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        cv2.error("(-4:Insufficient memory) Failed to allocate 1724976 bytes"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
    ids=str,
)
def test_what_libraries_say(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("operands could not be broadcast together"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RunFolderError("cannot read out of memory.parquet"),  # a file may have any name
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_what_is_something_else(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as raised, memory_named("trying", "ask less"):
        raise error
    assert raised.value is error


def test_an_error_that_it_caused_is_one():
    try:
        raise ModelError("not a checkpoint, or damaged") from MemoryError()
    except AlpsError as error:
        assert is_out_of_memory(error)


def test_an_error_may_be_its_own_cause():
    error = ValueError("no")
    error.__cause__ = error
    assert not is_out_of_memory(error)


def test_it_says_what_where_and_how_to_mend_it():
    text = str(out_of_memory(MemoryError("asked for\n9 GB" + 300 * "!"), "cutting", "lower --x 3"))
    assert text.startswith("out of memory while cutting: free some, or lower --x 3; then run")
    assert "(asked for 9 GB!!" in text and text.endswith(" …)") and len(text) < 320
    assert "(MemoryError)" in str(out_of_memory(MemoryError()))


def test_it_is_named_once():
    inside = pytest.raises(OutOfMemoryError, match="while inside")
    with inside, memory_named("outside", "x"), memory_named("inside", "y"):
        raise MemoryError
