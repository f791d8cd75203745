"""Tables of a run folder: whole or not there, the same bytes, and errors that name the file."""

import pyarrow as pa
import pytest

from alps.engine.base.errors import RunFolderError
from alps.engine.run_folder.schemas import PLAN_SCHEMA
from alps.engine.run_folder.tables import joined, open_table, read_table, write_table

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


PLAN = pa.table(
    {
        "tile_id": [0, 1, 2],
        "source_index": [0, 0, 1],
        "source": ["a.png", "a.png", "b.png"],
        "path": ["/a.png", "/a.png", "/b.png"],
        "label": ["a.png", "a.png", "b.png"],
        "source_width": [20, 20, 0],
        "source_height": [9, 9, 0],
        "x": [0, 10, 0],
        "y": [0, 0, 0],
        "width": [10, 10, 0],
        "height": [9, 9, 0],
        "reason": ["", "", "it cannot be opened"],
    },
    schema=PLAN_SCHEMA,
)


def changed(table, name, values, kind=None):
    """The table with another column of this name."""
    at = table.schema.get_field_index(name)
    return table.set_column(at, name, pa.array(values, kind or table.schema.field(at).type))


@pytest.fixture
def inside(tmp_path):
    """A function: the path of a table in a run folder."""

    def path(room, name):
        for folder in ("journal", room):
            (tmp_path / folder).mkdir(exist_ok=True)
        return tmp_path / room / name

    return path


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (changed(PLAN, "width", ["", "", ""], pa.string()), "column width is string, not int32"),
        (changed(PLAN, "label", ["a.png", None, "b.png"]), "column label lacks values"),
        (changed(PLAN, "x", [0, None, 0]), "column x lacks values"),
        (changed(PLAN, "x", [0, -(2**31), 0]), "column x holds -2147483648"),
        (changed(PLAN, "source_index", [0, -1, 1]), "column source_index holds -1"),
        (changed(PLAN, "x", [0, 11, 0]), "a tile lies outside its source, by x and width"),
        (changed(PLAN, "height", [9, 2**31 - 1, 0]), "outside its source, by y and height"),
        (changed(PLAN, "tile_id", [0, 1, 1]), "not numbered one after the other"),
        (pa.concat_tables([PLAN, PLAN]), "not numbered one after the other"),
        (PLAN.drop_columns(["path"]), "it has no column path"),
    ],
)
def test_a_plan_that_cannot_be(inside, table, said):
    path = inside("journal", "plan.parquet")
    write_table(table, path)  # its checksum is right
    with pytest.raises(RunFolderError, match=rf"cannot read .*plan\.parquet: .*{said}"):
        read_table(path)


def test_some_rows_of_a_plan(inside):
    path = inside("journal", "plan.parquet")
    write_table(PLAN, path)
    assert read_table(path).equals(PLAN)
    assert read_table(path, where=("source_index", [1])).equals(PLAN.slice(2))
    found = read_table(path, ["x"], where=("tile_id", [1, 2]))
    assert found.to_pydict() == {"x": [10, 0]}


def test_a_table_read_in_parts_has_its_columns_and_all_values(inside):
    path = inside("clusters", "part-00000.parquet")
    for table, said in (
        (pa.table({"cluster": pa.array([1, None], pa.int32())}), "cluster lacks values"),
        (pa.table({"cluster": ["1", "2"]}), "cluster is string, not int32"),
    ):
        write_table(table, path)
        with pytest.raises(RunFolderError, match=said), open_table(path):
            pytest.fail("opened")
    write_table(pa.table({"cluster": pa.array([1, 2], pa.int32())}), path)
    with pytest.raises(RunFolderError, match=r"margin.*does not exist"), open_table(path) as file:
        next(file.iter_batches(columns=["cluster"]))["margin"]
    with pytest.raises(KeyError, match="of the caller"), open_table(path):
        raise KeyError("of the caller")


def test_names_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(pa.table({"name": ["abcdefgh" * 4]}), path)
    content = path.read_bytes().replace(b"abcdefgh", b"\xff\xfe\xfdabcde")
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"cannot read .*a\.parquet"):
        read_table(path)


def test_a_table_of_another_kind_is_named_as_it_is_opened(tmp_path):
    write_table(TABLE, tmp_path / "part-00000.parquet")
    with open_table(tmp_path / "part-00000.parquet", ["a"]) as file:
        assert file.read().equals(TABLE)
    with pytest.raises(RunFolderError, match=r"part-00000\.parquet: it has no column tile_id"):
        open_table(tmp_path / "part-00000.parquet", ["a", "tile_id"]).__enter__()


def test_tables_that_differ_in_their_columns_are_not_joined():
    one = pa.table({"a": [1], "b": [2]})
    assert joined([one, one]).num_rows == 2
    with pytest.raises(RunFolderError, match="should have the same columns"):
        joined([one, one.drop_columns("b")])
