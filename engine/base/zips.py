"""Files that are zip archives inside: checkpoints of PyTorch, arrays of NumPy.

Every entry has a CRC-32. PyTorch never looks at it, and NumPy makes room for what a header claims
before a byte is read; here both come first.
"""

import math
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from alps.engine.base.records import BadRecordError, one_line, regular_file

MOST_ENTRIES = 4096  # of a file of arrays
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def refuse_damaged_zip(path: Path) -> None:
    """Raise BadRecordError where an entry is not what was written. Reads all of the file."""
    try:
        with regular_file(path) as file, zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
    except Exception as error:  # a damaged file makes zipfile raise almost anything
        raise _not_whole(error) from error
    if bad is not None:
        raise BadRecordError(f"the checksum of {bad} in it is wrong")


def read_arrays(path: str | Path, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file as ``numpy.savez`` writes it, by name; read only.

    only: names of those that are wanted; None: all.

    Raises BadRecordError where one is damaged, compressed, of Python objects, or not as large as
    its header says; FileNotFoundError.
    """
    try:
        with regular_file(path) as whole, zipfile.ZipFile(whole) as archive:
            size, entries = os.stat(path).st_size, archive.infolist()
            if len(entries) > MOST_ENTRIES:
                raise BadRecordError(f"it holds {len(entries)} entries")
            found = {}
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if only is not None and name not in only:
                    continue
                if entry.comment:  # a length that is wrong makes one of the entries behind it
                    raise BadRecordError(f"{name} in it has a comment")
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
                    raise BadRecordError(f"{name} in it is compressed")
                with archive.open(entry) as file:
                    found[name] = _array(file, name)
    except (BadRecordError, FileNotFoundError):
        raise
    except Exception as error:
        raise _not_whole(error) from error
    if missing := sorted(set(only or ()) - found.keys()):
        raise BadRecordError(f"it lacks {missing[0]}")
    return found


def _array(file: IO[bytes], name: str) -> np.ndarray:
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise BadRecordError(f"{name} in it is of a format that is not known")
    shape, is_fortran, dtype = _HEADERS[version](file)
    values = file.read()  # to the end, where the CRC-32 is compared
    if dtype.hasobject or len(values) != math.prod(shape) * dtype.itemsize:
        raise BadRecordError(f"{name} in it is not the array that its header says")
    return np.frombuffer(values, dtype).reshape(shape, order="F" if is_fortran else "C")


def _not_whole(error: Exception) -> BadRecordError:
    return BadRecordError(one_line(error) or type(error).__name__)
