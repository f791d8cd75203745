"""Zip archives: what is none is refused before it is waited for, or trusted."""

import os

import numpy as np
import pytest

from alps.engine.base.records import BadRecordError
from alps.engine.base.zips import read_arrays, refuse_damaged_zip


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize("read", [read_arrays, refuse_damaged_zip])
def test_a_pipe_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadRecordError, match="it is no file"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize("read", [read_arrays, refuse_damaged_zip])
def test_a_folder_is_no_archive(tmp_path, read):
    with pytest.raises(BadRecordError, match="directory"):
        read(tmp_path)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, values=np.arange(100))
    np.testing.assert_array_equal(read_arrays(path)["values"], np.arange(100))
    refuse_damaged_zip(path)
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    for read in (read_arrays, refuse_damaged_zip):
        with pytest.raises(BadRecordError, match=r"CRC|checksum"):
            read(path)
