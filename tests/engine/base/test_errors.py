"""What reaches a terminal of the names of files."""

import pytest

from alps.engine.base.errors import AlpsError, RunFolderError, printable

ODD = {
    "\x1b[31mred": r"\x1b[31mred",
    "a\nb\rc\td": r"a\x0ab\x0dc\x09d",
    "title\x1b]0;gone\x07": r"title\x1b]0;gone\x07",
    "\x9b2J": r"\x9b2J",
    "gnp.\u202egpj": r"gnp.\u202egpj",
    "\udcff\udc80.png": r"\xff\x80.png",
    "\ud800": r"\ud800",
}
PLAIN = ["a.png", "north/ü 地图 (1).tif", "x\\y", "\N{SATELLITE}", "~$*'\"`"]


@pytest.mark.parametrize("name", ODD)
def test_what_a_terminal_obeys_is_escaped(name):
    assert printable(name) == ODD[name] == printable(printable(name))
    str(ODD[name]).encode()


@pytest.mark.parametrize("name", PLAIN)
def test_all_other_names_are_shown_as_they_are(name):
    assert printable(name) == name == str(AlpsError(name))


def test_errors_may_have_lines_but_no_codes():
    assert str(RunFolderError("a\nb\t\x1b[2Jc\udcff")) == "a\nb\t\\x1b[2Jc\\xff"
    assert RunFolderError(3).args == (3,)
