"""Journals: lines of JSON that are whole, or count as not there."""

import json
import os
from dataclasses import dataclass

import pytest

from alps.engine.base.lines import append_line, open_journal, read_lines

GOOD = [{"index": 1, "word": "füße"}, {"index": 2, "word": ', "sum": "0123456789abcdef"}'}]


@dataclass(frozen=True)
class Line:
    index: int
    word: str = ""


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    with open_journal(path) as file:
        for values in GOOD:
            append_line(file, values)
    return path


def numbers(path):
    return [line and line.index for line in read_lines(path, Line)]


def test_there_and_back(journal, tmp_path):
    assert list(read_lines(journal, Line)) == [Line(**values) for values in GOOD]
    assert [json.loads(text)["index"] for text in journal.read_text().splitlines()] == [1, 2]
    assert numbers(tmp_path / "none.jsonl") == []


def test_a_line_is_on_its_way_to_the_disk_once_it_is_added(tmp_path):
    with open_journal(tmp_path / "a") as file:
        append_line(file, GOOD[0])
        assert numbers(tmp_path / "a") == [1]


def test_a_torn_line_spoils_neither_itself_nor_the_next(journal):
    whole = journal.read_bytes()
    for cut in range(1, 20):
        journal.write_bytes(whole[:-cut])
        with open_journal(journal) as file:
            append_line(file, {"index": 3})
        found = numbers(journal)
        assert found == ([1, 2, 3] if cut == 1 else [1, None, 3])


def test_no_flipped_bit_gives_other_values(journal):
    whole = journal.read_bytes()
    for at in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            journal.write_bytes(changed)
            for line in read_lines(journal, Line):
                assert line is None or line in [Line(**values) for values in GOOD]


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"[" * 100_000, b"null", b'{"index": "1"}', b"\0" * 50, b"", b'{"a": 1}']
)
def test_what_is_no_line_is_told_apart_from_the_others(journal, text):
    journal.write_bytes(text + b"\n" + journal.read_bytes())
    assert numbers(journal) == [None, 1, 2]


def test_lines_of_older_versions_have_no_checksum(tmp_path):
    (tmp_path / "old").write_text('{"index": 7, "more": [1]}\n{"index": 8}\n')
    assert numbers(tmp_path / "old") == [7, 8]


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "lines.jsonl"
    os.mkfifo(path)
    for ask in (lambda: list(read_lines(path, dict)), lambda: open_journal(path)):
        with pytest.raises(OSError, match="no file"):
            ask()
