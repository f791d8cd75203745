"""The regions of one source out of its group's tables: its own, all of them, in their order."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_run import cut_as, make_archive

from alps.engine.base.errors import RunFolderError
from alps.engine.images.windows import Window
from alps.engine.regions.tables import GroupTables
from alps.engine.run_folder.tables import note_table, read_table, write_table

# Regions of three sources in one group: four in a row, one alone, three in a row.
NUMBERS = [
    np.repeat([[0, 1, 2, 3]], 4, 0).repeat(2, axis=1),
    np.zeros((4, 8), int),
    np.repeat([[0, 0, 1, 2]], 4, 0).repeat(2, axis=1),
]
CLASSES = [[5, 6, 7, 8], [9], [1, 2, 3]]


@pytest.fixture(params=[1, 1 << 16], ids=["a row group a source", "one row group"])
def folder(request, tmp_path, monkeypatch):
    monkeypatch.setattr("alps.engine.stages.regions.ROW_GROUP", request.param)
    window = [Window(0, 0, 8, 4)]
    sources = {name: (window, [[]]) for name in ("a.png", "b.png", "c.png")}
    folder = make_archive(tmp_path / "run", sources)
    cut_as(folder, NUMBERS, CLASSES)
    return folder


def test_each_source_has_its_own_regions(folder):
    tables = GroupTables(folder, 0, ["area"], ["cluster"])
    for source, classes in enumerate(CLASSES):
        table = tables.of_source(source)
        assert len(tables.rows_of(source)) == len(classes)
        assert table["cluster"].to_pylist() == classes
        area = np.bincount(NUMBERS[source].ravel())
        assert table["area"].to_pylist() == area.tolist()
        assert tables.column(source, "area").tolist() == area.tolist()
        assert tables.class_column(source, "cluster").tolist() == classes
    assert tables.of_source(7).num_rows == len(tables.rows_of(7)) == 0
    assert len(tables.class_column(7, "cluster")) == len(tables.column(7, "area")) == 0


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_classes_are_put_together_from_row_groups(folder, rows):
    """Which begin and end where sources do not."""
    path = folder.region_classes(0)
    pq.write_table(read_table(path), path, row_group_size=rows)
    note_table(path)
    tables = GroupTables(folder, 0, ())
    for source, classes in enumerate(CLASSES):
        assert tables.class_column(source, "cluster").tolist() == classes


def test_each_source_has_its_own_borders_and_other_columns(folder):
    tables = GroupTables(folder, 0, ["area"])
    for source, count in enumerate((4, 1, 3)):
        pairs = [pair for table in tables.borders_of(source) for pair in _pairs(table)]
        assert pairs == [(n, n + 1) for n in range(count - 1)]
        x = [x for table in tables.columns_of(source, ["x"]) for x in table["x"].to_pylist()]
        first = [np.nonzero((NUMBERS[source] == n).any(0))[0][0] for n in range(count)]
        assert x == first


def test_sources_of_one_row_group_share_its_reading(folder, monkeypatch):
    reads = []
    real = pq.ParquetFile.read_row_group

    def read(self, number, columns):
        reads.append((number, tuple(columns)))
        return real(self, number, columns)

    tables = GroupTables(folder, 0, ())
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read)
    about = pq.ParquetFile(folder.regions(0)).metadata
    groups = [n for n in range(about.num_row_groups) if about.row_group(n).num_rows]
    for _ in range(2):
        for source in range(3):
            tables.column(source, "area")
    assert sorted(reads) == [(number, ("area",)) for number in groups]
    monkeypatch.setattr("alps.engine.regions.tables.KEPT_BYTES", 0)  # as of large ones
    tables = GroupTables(folder, 0, ())
    reads.clear()
    for _ in range(2):
        tables.column(0, "area")
    assert reads.count((0, ("area",))) == 2


def _pairs(table):
    return zip(table["region"].to_pylist(), table["other"].to_pylist(), strict=True)


@pytest.mark.parametrize("rows", [7, 9])
def test_classes_of_other_regions_are_refused(folder, rows):
    path = folder.region_classes(0)
    write_table(read_table(path).take(np.arange(rows) % 8), path)
    with pytest.raises(RunFolderError, match=r"part-00000.*of other regions; remove it"):
        GroupTables(folder, 0, ["area"], ["cluster"])
    with pytest.raises(RunFolderError, match=r"part-00000.*of other regions; remove it"):
        GroupTables(folder, 0, ()).class_column(1, "cluster")
