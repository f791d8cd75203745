"""Tables of a run folder: whole or not there, the same bytes, and errors that name the file."""

import pyarrow as pa
import pytest

from alps.engine.base.errors import RunFolderError
from alps.engine.run_folder.tables import open_table, read_table, write_table

TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})


def test_there_and_back_in_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_table(TABLE, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_table(tmp_path / "one").equals(TABLE)
    assert read_table(tmp_path / "one", ["b"]).column_names == ["b"]
    with open_table(tmp_path / "one") as file:
        assert file.read().equals(TABLE)


def test_a_table_is_not_under_its_name_before_it_is_whole(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    def stopped(table, where, **options):
        where.write_bytes(b"PAR1 half")
        raise KeyboardInterrupt

    write_table(TABLE, tmp_path / "a.parquet")
    monkeypatch.setattr(pq, "write_table", stopped)
    for name in ("a.parquet", "b.parquet"):
        with pytest.raises(KeyboardInterrupt):
            write_table(TABLE, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    assert read_table(tmp_path / "a.parquet").equals(TABLE)


def test_names_of_folders_are_no_columns(tmp_path):
    (tmp_path / "year=2024").mkdir()
    write_table(TABLE, tmp_path / "year=2024" / "a.parquet")
    assert read_table(tmp_path / "year=2024" / "a.parquet").column_names == ["a", "b"]


@pytest.mark.parametrize("damage", ["missing", "cut", "text"])
def test_what_cannot_be_read_is_named(tmp_path, damage):
    path = tmp_path / "part-00000.parquet"
    write_table(TABLE, path)
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"cut": content[:-9], "text": b"no table"}[damage])
    with pytest.raises(RunFolderError, match=r"cannot read .*part-00000\.parquet"):
        read_table(path)
    with pytest.raises(RunFolderError, match=r"part-00000\.parquet"), open_table(path):
        pytest.fail("opened")
