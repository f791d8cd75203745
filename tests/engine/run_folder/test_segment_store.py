"""Segments of single tiles: their own, in their order; no shard is read twice in vain."""

import numpy as np
import pytest
from made_run import make_run

from alps.engine.base.errors import RunFolderError
from alps.engine.images.windows import Window
from alps.engine.run_folder import segment_store
from alps.engine.run_folder.segment_store import SegmentStore

COUNTS = (2, 0, 3, 1, 0, 0, 4, 1)  # segments of each tile, two tiles a shard


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Eight tiles in four shards; each segment's embedding says which one it is."""
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 2)
    segments = [
        [{"embedding": [tile, n, 0, 0], "area": 10 * tile + n} for n in range(count)]
        for tile, count in enumerate(COUNTS)
    ]
    return make_run(tmp_path / "run", [Window(8 * x, 0, 8, 8) for x in range(8)], segments)


@pytest.fixture
def reads(monkeypatch):
    """Names of the tables that are read, in order."""
    names = []
    real = segment_store.read_table

    def read(path, columns):
        names.append(path.name)
        return real(path, columns)

    monkeypatch.setattr(segment_store, "read_table", read)
    return names


def test_each_tile_has_its_own_segments(folder):
    store = SegmentStore(folder, ["area", "embedding"], kept=1)
    for tile in (*range(8), 0, 7, 3):
        table = store.of_tile(tile)
        assert table.column_names == ["tile_id", "area", "embedding"]
        assert table["tile_id"].to_pylist() == [tile] * COUNTS[tile]
        assert table["area"].to_pylist() == [10 * tile + n for n in range(COUNTS[tile])]
        embeddings = np.array(table["embedding"].to_pylist()).reshape(-1, 4)
        assert (embeddings[:, 1] == np.arange(COUNTS[tile])).all()


def test_the_shards_used_last_stay_in_memory(folder, reads):
    store = SegmentStore(folder, ["area"], kept=2)
    for tile in (0, 1, 2, 0, 3, 1):  # two shards in turn, as where a row of windows crosses them
        store.of_tile(tile)
    assert reads == ["part-00000.parquet", "part-00001.parquet"]
    store.of_tile(4)  # the first was used after the second, which has to go
    store.of_tile(0)
    assert reads[2:] == ["part-00002.parquet"]
    store.of_tile(2)
    assert reads[3:] == ["part-00001.parquet"]


def test_no_more_shards_stay_than_were_asked_for(folder, reads):
    store = SegmentStore(folder, ["area"], kept=1)
    for tile in (0, 2, 0):
        store.of_tile(tile)
    assert len(reads) == 3


def test_a_shard_that_is_missing_is_named(folder):
    folder.segments(1).unlink()
    store = SegmentStore(folder, ["area"])
    assert store.of_tile(0).num_rows == 2
    with pytest.raises(RunFolderError, match=r"part-00001\.parquet"):
        store.of_tile(2)
