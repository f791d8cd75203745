"""Checksums in the journal: what is relied on is what was written, or is said not to be."""

import json
import os

import pyarrow as pa
import pytest

from alps.engine.base.errors import RunFolderError
from alps.engine.run_folder import sums
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.schemas import CLASS_SCHEMA
from alps.engine.run_folder.tables import open_table, read_table, write_table

TABLE = pa.table({"cluster": list(range(1000)), "margin": [0.25] * 1000}, schema=CLASS_SCHEMA)


@pytest.fixture
def folder(tmp_path):
    """A run folder with one table, of shard 3."""
    run = RunFolder(tmp_path / "run")
    for path in (run.journal, run.region_classes(0).parent):
        path.mkdir(parents=True)
    write_table(TABLE, run.region_classes(3))
    return run


def flip(path, at, bit=1):
    content = bytearray(path.read_bytes())
    content[at] ^= bit
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))


def test_a_table_has_a_line_in_the_journal_of_its_shard(folder):
    (line,) = folder.sums(3).read_text().splitlines()
    found = json.loads(line)
    assert found["file"] == "clusters/part-00003.parquet"
    assert found["bytes"] == folder.region_classes(3).stat().st_size and len(found["sha256"]) == 64
    assert read_table(folder.region_classes(3)).equals(TABLE)
    assert sums.is_whole(folder, folder.region_classes(3)) and sums.is_right(
        folder, folder.region_classes(3)
    )


def test_every_flipped_bit_is_seen_before_anything_is_read(folder):
    """Also those that Parquet itself reads over: in statistics, offsets, names of columns."""
    path = folder.region_classes(3)
    size = path.stat().st_size
    for at in range(0, size, 7):
        flip(path, at)
        for read in (read_table, lambda path: open_table(path).__enter__()):
            with pytest.raises(RunFolderError, match=r"-00003\.parquet is damaged: .*remove it"):
                read(path)
        assert sums.is_whole(folder, path) and not sums.is_right(folder, path)
        flip(path, at)
    assert read_table(path).equals(TABLE)


def test_what_was_cut_short_is_not_whole(folder):
    path = folder.region_classes(3)
    path.write_bytes(path.read_bytes()[:-1])
    assert not sums.is_whole(folder, path)
    with pytest.raises(RunFolderError, match=r"is damaged: it has \d+ bytes, not \d+; remove it"):
        read_table(path)
    path.unlink()
    assert not sums.is_whole(folder, path) and not sums.is_right(folder, path)
    with pytest.raises(RunFolderError, match="cannot read"):
        read_table(path)


def test_the_last_line_of_a_file_counts(folder):
    write_table(TABLE.slice(5), folder.region_classes(3))
    assert read_table(folder.region_classes(3)).num_rows == 995
    write_table(TABLE, folder.region_classes(3))
    assert read_table(folder.region_classes(3)).num_rows == 1000


def test_files_of_older_versions_are_taken_as_they_are(folder):
    folder.sums(3).unlink()
    assert sums.is_whole(folder, folder.region_classes(3)) and sums.is_right(
        folder, folder.region_classes(3)
    )
    assert read_table(folder.region_classes(3)).equals(TABLE)
    folder.region_classes(3).write_bytes(b"")
    assert not sums.is_whole(folder, folder.region_classes(3))


@pytest.mark.parametrize(
    "junk", [b"\xff\xfe\n", b"{}\n", b'{"file": 3}\n', b"[" * 5000, b"\0" * 99]
)
def test_lines_of_a_damaged_journal_count_as_not_there(folder, junk):
    journal = folder.sums(3)
    journal.write_bytes(junk + journal.read_bytes())
    assert read_table(folder.region_classes(3)).equals(TABLE)
    write_table(TABLE, folder.region_classes(3))  # a torn end does not swallow the next line
    assert sums.known_sums(folder, 3).keys() >= {"clusters/part-00003.parquet"}


def test_a_line_of_which_a_bit_was_flipped_does_not_count(folder):
    whole = folder.sums(3).read_bytes()
    for at in range(len(whole) - 1):
        flip(folder.sums(3), at)
        known = sums.known_sums(folder, 3)
        assert set(known) <= {"clusters/part-00003.parquet"} or at < 30
        assert read_table(folder.region_classes(3)).equals(TABLE), at
        flip(folder.sums(3), at)


def test_a_file_is_hashed_once(folder, monkeypatch):
    calls = []
    real = sums.file_sha256
    monkeypatch.setattr(sums, "file_sha256", lambda path: calls.append(path) or real(path))
    for _ in range(3):
        read_table(folder.region_classes(3))
    assert calls == []  # it was when it was written
    os.utime(folder.region_classes(3), ns=(1, 1))
    for _ in range(3):
        read_table(folder.region_classes(3))
    assert calls == [folder.region_classes(3)]


def test_tables_elsewhere_have_none(tmp_path):
    write_table(TABLE, tmp_path / "plan.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.parquet"]
