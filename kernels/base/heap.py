"""What glibc does with memory that is free again.

By default the largest arrays go back to the system. A step of training on the CPU makes and drops
some hundred arrays of 1 to 100 MB, the same ones each time. Above M_MMAP_THRESHOLD each is a
mapping of its own: the kernel hands it out page by page, zeroes every page, and takes it back. That
was a quarter of a step with 48 classes (SegFormer of the smallest size, crops of 128 px, by CPU
time), and more on a machine with other work.

Smaller ones stay with the process, and with the thread that made them: what one stage of a job
took, the next one takes beside it, unless it is handed back between them.
"""

import ctypes
import sys

# <malloc.h> of glibc. Their values are C's int, and glibc takes no threshold above half its heap's
# largest: 2 GiB - 1 is for M_TRIM_THRESHOLD alone.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = (1 << 31) - 1
LARGEST_ARRAY = 1 << 30


def keep_freed_memory() -> bool:
    """Let this process keep the memory of arrays below 1 GiB that are freed, for the next ones.

    Its resident memory then stays at its peak. Returns whether the C library could be told: only
    glibc has this. For a process that does one thing; it cannot be taken back.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    told = mallopt(M_MMAP_THRESHOLD, LARGEST_ARRAY), mallopt(M_TRIM_THRESHOLD, LARGEST)
    return all(told)


def return_freed_memory() -> bool:
    """Hand the memory that is free in this process back to the system: other things come now.

    Takes milliseconds. Returns whether the C library could be told: only glibc has this.
    """
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))
