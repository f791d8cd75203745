"""names.json and the changes to it: what is said once holds, and contradictions are refused."""

import re

import numpy as np
import pytest

from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.base.records import BadRecordError
from alps.engine.naming import edit
from alps.engine.naming.carry import carried
from alps.engine.naming.names import (
    MOST_LETTERS,
    Named,
    Names,
    Split,
    cleaned,
    names_in,
    read_names,
    shown_classes,
)
from alps.engine.run_folder.folder import RunFolder

GREYS = np.arange(60, dtype=np.uint8)[:, None].repeat(3, axis=1)


def named(names):
    return {one.value: (one.name, one.clusters) for one in names.classes}


def test_a_file_by_hand_is_read_and_written_a_line_a_class():
    text = """{"classes": [
      {"clusters": [17], "name": "water", "colour": "#3A7bd5"},
      {"clusters": [8, 3], "name": "grass"}, {"clusters": [12], "ignore": true}],
      "splits": [{"cluster": 5, "into": [5, 46]}]}"""
    names = names_in(text)
    assert named(names) == {3: ("grass", (3, 8)), 12: ("", (12,)), 17: ("water", (17,))}
    assert names.splits == (Split(5, (5, 46)),) and names.count(46) == 47
    assert names_in(names.text()) == names
    assert '\n  {"clusters": [3, 8], "name": "grass"},\n' in names.text()
    assert names_in(Names().text()) == Names()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "JSON|Expecting"),
        ("[]", "object"),
        ('{"klasses": []}', "the key 'klasses'"),
        ('{"classes": [{"name": "water"}]}', "clusters"),
        ('{"classes": [{"clusters": []}]}', "clusters"),
        ('{"classes": [{"clusters": [-1]}]}', "clusters"),
        ('{"classes": [{"clusters": [1, 2]}, {"clusters": [2], "name": "a"}]}', "2 is named twice"),
        ('{"classes": [{"clusters": [1], "colour": "red"}]}', "'red' of class 1 is none"),
        ('{"splits": [{"cluster": 5, "into": [5]}]}', "into"),
        ('{"splits": [{"cluster": 5, "into": [6, 7]}]}', "keeps the number"),
        ('{"splits": [{"cluster": 5, "into": [5, 6, 6]}]}', "all differ"),
        ('{"clusters": "abc"}', "clusters"),
    ],
)
def test_what_is_no_names_file_is_refused(text, why, tmp_path):
    with pytest.raises(BadRecordError, match=why):
        names_in(text)
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"names\.json: .*; mend it there, or remove it"):
        read_names(RunFolder(tmp_path))


def test_a_run_without_names(tmp_path):
    assert read_names(RunFolder(tmp_path)) == Names()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("  open   water\n", "open water"),
        ("<b>x</b>&'\"", "<b>x</b>&'\""),
        ("a\x1b[31mb\x00", "a [31mb"),
        ("=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0"),
        ("abc\u202ecba", "abc cba"),
        ("\ud800x", "x"),
        ("مياه", "مياه"),
        ("\n\t ", ""),
    ],
)
def test_a_name_is_one_line_of_letters(name, shown):
    assert cleaned(name) == shown
    assert named(edit.name(Names(), [1], name)) == ({1: (shown, (1,))} if shown else {})


def test_a_long_name_is_cut():
    found = cleaned("w" * 10_000)
    assert len(found) == MOST_LETTERS and found.endswith("w…")


def test_classes_of_one_name_are_one():
    names = edit.name(Names((Named((3, 8), "grass", "#00ff00"),)), [5], " grass ")
    assert names.classes == (Named((3, 5, 8), "grass", "#00ff00"),)
    assert names_in('{"classes": [{"clusters": [9], "name": "a"}, {"clusters": [2], "name": "a"}]}')


def test_merging_and_taking_apart():
    names = edit.merge(edit.name(Names(), [8], "grass"), [3, 8])
    assert named(names) == {3: ("grass", (3, 8))}
    names = edit.name(names, [8], "meadow")
    assert named(names) == {3: ("meadow", (3, 8))}  # a cluster stands for its class
    assert named(edit.separate(names, 3)) == {8: ("meadow", (8,))}
    assert edit.separate(edit.separate(names, 3), 8) == Names()
    assert edit.name(edit.separate(names, 3), [8], "") == Names()
    merged = edit.merge(names, [3, 20])
    assert edit.name(merged, [3], "").classes == (Named((3, 8, 20)),)  # one class all the same
    with pytest.raises(SettingsError, match="two clusters or more"):
        edit.merge(names, [3, 3])


def test_colours_and_what_is_ignored():
    names = edit.ignore(edit.colour(Names(), 4, "#AABBCC"), 6)
    assert names.classes == (Named((4,), "", "#aabbcc"), Named((6,), ignore=True))
    assert edit.ignore(edit.colour(names, 4, ""), 6, is_ignored=False) == Names()


def test_splits_take_free_numbers_and_are_taken_back_with_what_came_of_them():
    names = edit.split(Names(), 5, 3, clusters=46)
    names = edit.split(names, 47, 2, clusters=46)
    names = edit.split(names, 1, 2, clusters=46)
    assert [split.into for split in names.splits] == [(5, 46, 47), (47, 48), (1, 49)]
    names = edit.name(edit.name(names, [48, 5], "trees"), [46], "shade")
    back = edit.unsplit(names, 5)
    assert [split.into for split in back.splits] == [(1, 49)]
    assert named(back) == {5: ("trees", (5,))}
    assert edit.split(back, 5, 2, clusters=46).splits[-1].into == (5, 50)
    with pytest.raises(SettingsError, match="not split"):
        edit.unsplit(back, 5)
    for parts in (1, 65):
        with pytest.raises(SettingsError, match="2 to 64 parts"):
            edit.split(names, 5, parts, clusters=46)


@pytest.mark.parametrize(
    "names",
    [
        Names((Named((46,), "a"),)),
        Names((Named((47,), "a"),), (Split(5, (5, 46)),)),
        Names((), (Split(46, (46, 47)),)),
        Names((), (Split(5, (5, 6)),)),
        Names((), (Split(5, (5, 46)), Split(6, (6, 46)))),
    ],
)
def test_numbers_that_no_cluster_has_are_refused(names):
    with pytest.raises(SettingsError, match=r"46|there is no"):
        names.refuse_unknown(46)


def test_what_is_shown():
    names = names_in(
        '{"classes": [{"clusters": [3, 8], "name": "grass"}, {"clusters": [5, 9], "ignore": true},'
        '{"clusters": [7], "colour": "#102030"}]}'
    )
    shown = shown_classes(names, GREYS[:10])
    assert shown.values.tolist() == [0, 1, 2, 3, 4, -1, 6, 7, 3, -1]
    assert (
        shown.names[8] == "grass"
        and shown.names[9] == "cluster 5"
        and shown.names[0] == "cluster 0"
    )
    assert shown.colours[[3, 8, 7, 1]].tolist() == [[3] * 3, [3] * 3, [16, 32, 48], [1] * 3]
    assert np.flatnonzero(shown.ignored).tolist() == [5, 9]


def test_what_decides_label_maps_is_told_apart():
    names = Names((Named((3,), "grass"),))
    others = [edit.name(names, [3], "a"), edit.ignore(names, 3), edit.colour(names, 3, "#000001")]
    assert len({names.sha256, *(other.sha256 for other in others)}) == 4
    assert Names((Named((3,), "grass", carried=0.5),)).sha256 == names.sha256


def test_names_follow_what_they_name():
    names = Names((Named((0, 1), "water"), Named((2,), "grass", "#00ff00"), Named((4,), "pier")))
    shared = np.zeros((5, 5))
    shared[0] = [0, 0, 90, 10, 0]  # grass, but for a little that nobody named
    shared[1] = [30, 20, 0, 45, 5]  # water, though the most of one cluster is unnamed
    shared[2] = [0, 10, 0, 90, 0]  # nobody's
    shared[3] = [100, 0, 0, 0, 0]
    found = carried(names, shared)  # the last has no pixel
    assert [(one.name, one.clusters, one.carried) for one in found.names.classes] == [
        ("grass", (0,), 0.9),
        ("water", (1, 3), 0.75),
    ]
    assert found.names.classes[0].colour == "#00ff00" and found.lost == (names.classes[2],)
    assert found.words() == ["pier: no cluster is mostly of it"]
    same = carried(names, np.diag([5, 6, 7, 8, 9]))
    assert same.names == names and same.words() == []
    doubtful = carried(names, np.array([[0, 0, 60, 40, 0]])).words()
    assert doubtful[0] == "grass: 60% of it had that name before"


def test_naming_by_hand_ends_a_doubt():
    names = Names((Named((3,), "grass", carried=0.5),))
    assert edit.name(names, [3], "grass").classes[0].carried is None
    assert edit.colour(names, 3, "#00ff00").classes[0].carried == 0.5


def test_the_form_of_a_colour_is_said():
    with pytest.raises(SettingsError, match=re.escape("write #rrggbb")):
        edit.colour(Names(), 3, "#12345")
