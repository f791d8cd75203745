"""The index of an archive's sources: sorted, each once, and named as a list of them would be."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alps.engine.base.errors import RunFolderError
from alps.engine.images.sources import Source, label_names
from alps.engine.planning import index as indexing
from alps.engine.planning.index import IndexedSource, SourceIndex, Texts

PARTS = st.sampled_from(["a", "A", "b", "a.jpg", "B.png", "a.tif", "x.jpg.png"])
NAMES = st.lists(st.lists(PARTS, min_size=1, max_size=3).map("/".join), unique=True, max_size=12)


@pytest.fixture
def index(tmp_path):
    with SourceIndex(tmp_path / "index") as found:
        yield found


@given(names=NAMES, placed=st.sets(st.integers(0, 11)))
def test_label_maps_are_named_as_those_of_a_list(tmp_path_factory, names, placed):
    names = sorted(names)
    is_placed = {names[i] for i in placed if i < len(names)}
    with SourceIndex(tmp_path_factory.mktemp("index") / "index") as index:
        index.add(Source(name, name) for name in reversed(names))
        index.note(IndexedSource(one.source, is_placed=one.source.name in is_placed)
                   for one in index.all())  # fmt: skip
        index.name_labels()
        found = [(one.source.name, one.source.label_name) for one in index.all()]
    labels = label_names(names, is_placed)
    assert found == list(zip(names, labels, strict=True))
    assert len({label.casefold() for label in labels}) == len(labels)


def test_sources_come_by_name_each_once(index, monkeypatch):
    monkeypatch.setattr(indexing, "AT_ONCE", 2)
    names = ["b/2.png", "a.png", "ü.png", "b/10.png", "Z.png", "\U0001f600.png", "\uffff.png"]
    index.add(Source(Path("/x", name), name) for name in [*names, *names])
    assert [one.source.name for one in index.all()] == sorted(names) and len(index) == 7
    # Of one name but two files, as where a name that is no UTF-8 is shown like another one's.
    index.add([Source(Path("/y/a.png"), "a.png")])
    assert [os.fspath(one.source.path) for one in index.all()][1:3] == ["/x/a.png", "/y/a.png"]


def test_paths_stay_what_they_are(index):
    paths = [Path(os.fsdecode(b"/x/\xff.png")), "/vsis3/bucket/ü.png", Path("/x/ü.png")]
    index.add(Source(path, str(number)) for number, path in enumerate(paths))
    assert [one.source.path for one in index.all()] == paths


def test_what_opening_showed_is_kept_while_sources_are_walked(index, monkeypatch):
    monkeypatch.setattr(indexing, "AT_ONCE", 3)
    index.add(Source(name, name) for name in "abcdefgh")
    index.note(
        IndexedSource(one.source, 5, 6, 7, True, "", "even" if number % 2 == 0 else None)
        if number != 3
        else IndexedSource(one.source, reason="no image")
        for number, one in enumerate(index.all())
    )
    assert index.tiles == 7 * 7 + 1 and index.readable == 7
    found = list(index.all())
    assert (found[3].reason, found[3].tiles) == ("no image", 1)
    assert (found[0].width, found[0].height, found[0].is_placed) == (5, 6, True)
    assert {name: list(paths) for name, paths in index.alike().items()} == {"even": list("aceg")}


def test_texts_of_one_set_are_not_of_another(index):
    one, other = Texts(index, "one"), Texts(index, "other")
    one.add("a")
    one.add("a")
    assert "a" in one and "a" not in other and "b" not in one


def test_the_file_is_gone_afterwards_and_what_a_kill_left_is_no_part_of_the_next(tmp_path):
    path = tmp_path / "index"
    with SourceIndex(path) as index:
        index.add([Source("a", "a")])
        left = path.read_bytes()
    assert not path.exists()
    path.write_bytes(left)
    with SourceIndex(path) as index:
        assert len(index) == 0


def test_a_folder_that_is_not_there_is_an_error_of_the_run(tmp_path):
    with (
        pytest.raises(RunFolderError, match=r"cannot write .*gone"),
        SourceIndex(tmp_path / "gone" / "index"),
    ):
        pass
