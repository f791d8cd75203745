"""Running out of memory, as a dozen libraries say it, and as we do: what to lower, how to go on."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from alps.engine.base.errors import AlpsError, OutOfMemoryError

# In small letters. None of these libraries has a class for it that all of its errors share.
TEXTS = (
    "allocate memory",  # PyTorch on the CPU; onnxruntime; the system's own text
    "could not create a primitive",  # oneDNN, whose kernels want room for their code
    "could not create a memory",
    "unable to mmap",
    "failed to map segment",  # a shared library
    "insufficient memory",  # OpenCV
    "bad_alloc",
    "bad allocation",
    "out of memory",  # CUDA, GDAL, Arrow
    "out_of_memory",  # CUDA's driver, as Numba and CuPy name what it said
    "memoryallocation",  # cudaErrorMemoryAllocation, of CUDA's runtime
    "failed to allocate",
    "unable to allocate",
    "can't start new thread",  # there is no room for its stack
    "alloc_failed",  # cuBLAS
)
CLASSES = ("MemoryError", "OutOfMemoryError", "CPLE_OutOfMemoryError")
MOST_CHARACTERS = 160  # of a library's own text


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, whichever library says so; also where that caused ``error``."""
    return _short_of_memory(error) is not None


def _short_of_memory(error: BaseException) -> BaseException | None:
    """The first of ``error`` and what caused it that is about memory."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:  # an error may have caused itself
        seen.add(id(cause))
        if (
            any(cls.__name__ in CLASSES for cls in type(cause).__mro__)
            or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM)
            or (not isinstance(cause, AlpsError) and _says_so(str(cause)))
        ):
            return cause
        cause = cause.__cause__
    return None


def _says_so(text: str) -> bool:
    small = text.lower()
    return any(words in small for words in TEXTS)


def out_of_memory(error: BaseException, doing: str = "", lower: str = "") -> OutOfMemoryError:
    """The error that a person reads instead of ``error``.

    Args:
        error: what a library raised.
        doing: what was being done, "segmenting" say.
        lower: what takes less of it, in the imperative.
    """
    where = f" while {doing}" if doing else ""
    lower = lower or "give the command less at once (a smaller --tile, --batch or model)"
    cause = _short_of_memory(error) or error
    reason = " ".join(str(cause).split()) or type(cause).__name__
    if len(reason) > MOST_CHARACTERS:
        reason = reason[:MOST_CHARACTERS].rstrip() + " …"
    return OutOfMemoryError(
        f"out of memory{where}: free some, or {lower}; then run the same command again, and it "
        f"goes on ({reason})"
    )


@contextmanager
def memory_named(doing: str, lower: str) -> Iterator[None]:
    """Raise OutOfMemoryError where memory runs out in here; words as in ``out_of_memory``."""
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, doing, lower) from error
