"""The journal of painted sources: what counts as done, and what classes.json sums up."""

import json

import numpy as np
import pytest

from alps.engine.labels.journal import Counted, PaintedJournal
from alps.engine.labels.palette import palette
from alps.engine.naming.names import Names, shown_classes
from alps.engine.run_folder.folder import RunFolder

CLUSTERS = 2


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "journal").mkdir()
    return RunFolder(tmp_path)


def counted(pixels, regions=(1, 1), nodata=0):
    return Counted(*(np.array(values, np.int64) for values in (pixels, regions, [nodata])))


def write(folder, *entries, of="one"):
    with PaintedJournal(folder, CLUSTERS, of) as journal:
        for source, *rest in entries:
            journal.add(source, *rest)


def done(folder, of="one"):
    with PaintedJournal(folder, CLUSTERS, of) as journal:
        return set(journal.done)


def classes(folder, of="one"):
    with PaintedJournal(folder, CLUSTERS, of) as journal:
        journal.write_classes(shown_classes(Names(), palette(2)))
    content = json.loads(folder.classes.read_text())
    pixels, regions = ([c[n] for c in content["classes"]] for n in ("pixels", "regions"))
    return pixels, regions, content["unlabelled_pixels"]


def test_what_was_painted_under_other_clusters_does_not_count(folder):
    write(folder, (0, counted([1, 2, 3])), (1, counted([4, 5, 6])))
    assert done(folder) == {0, 1} and done(folder, "two") == set()
    write(folder, (0, counted([7, 0, 0])), of="two")
    assert done(folder, "two") == {0}
    assert done(folder) == {1}  # source 0 shows the others now


def test_a_source_that_was_painted_twice_counts_once(folder):
    write(folder, (0, counted([1, 2, 3])), (1, counted([10, 20, 30], [3, 4])))
    write(folder, (0, counted([5, 5, 5], [7, 7])))
    assert classes(folder) == ([15, 25], [10, 11], 35)
    assert classes(folder, "two") == ([0, 0], [0, 0], 0)


def test_pixels_without_data_are_counted_apart(folder):
    write(folder, (0, counted([1, 2, 30], nodata=20)), (1, counted([0, 0, 5], nodata=5)))
    classes(folder)
    content = json.loads(folder.classes.read_text())
    assert (content["unlabelled_pixels"], content["nodata_pixels"]) == (35, 25)


def test_a_line_is_on_the_disk_once_its_source_is_painted(folder):
    with PaintedJournal(folder, CLUSTERS, "one") as journal:
        journal.add(0, counted([1, 2, 3]))
        assert folder.painted.read_text().endswith("}\n")
        journal.add(1, counted([1, 2, 3]))
        assert len(folder.painted.read_text().splitlines()) == 2


def test_a_torn_last_line_spoils_neither_itself_nor_the_next(folder):
    write(folder, (0, counted([1, 2, 3])), (1, counted([10, 20, 30])))
    whole = folder.painted.read_bytes()
    folder.painted.write_bytes(whole[:-15])
    assert done(folder) == {0}
    write(folder, (1, counted([2, 2, 2])), (2, counted([3, 3, 3])))
    assert done(folder) == {0, 1, 2}
    assert classes(folder)[0] == [6, 7]


def test_refusals_are_kept_until_the_source_is_painted(folder):
    write(folder, (3, Counted.of(CLUSTERS), "it has changed"))
    with PaintedJournal(folder, CLUSTERS, "one") as journal:
        assert journal.refused == {3: "it has changed"} and not list(journal.done)
        journal.add(3, counted([1, 0, 0]))
        assert journal.refused == {} and set(journal.done) == {3}
    assert done(folder) == {3}


def test_a_journal_is_written_only_while_it_is_open(folder):
    with pytest.raises(ValueError, match="not open"):
        PaintedJournal(folder, CLUSTERS, "one").add(0, counted([1, 2, 3]))


def test_lines_of_a_version_that_counted_no_regions_are_painted_anew(folder):
    write(folder, (0, counted([1, 2, 3])), (1, counted([10, 20, 30])))
    lines = folder.painted.read_text().splitlines()
    folder.painted.write_text(lines[0].replace('"regions"', '"segments"') + f"\n{lines[1]}\n")
    assert done(folder) == {1}
    assert classes(folder)[0] == [10, 20]
