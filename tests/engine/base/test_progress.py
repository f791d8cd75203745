"""Progress: what it prints where there is no terminal, and that a terminal gets a bar."""

import io
import os
import threading

import pytest

from alps.engine.base.progress import Progress, format_bytes, format_seconds, watched


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def out():
    return io.StringIO()


def test_a_line_every_ten_seconds_and_one_at_the_end(clock, out):
    with Progress(100, "tiles", "segment", stream=out, clock=clock) as progress:
        for _ in range(100):
            clock.now += 0.25
            progress.advance()
    assert out.getvalue().splitlines() == [
        "segment: 40 % (40 of 100 tiles, 4 tiles/s), 0:15 left",
        "segment: 80 % (80 of 100 tiles, 4 tiles/s), 0:05 left",
        "segment: 100 of 100 tiles in 0:25",
    ]


def test_work_done_earlier_counts_as_done_but_not_as_speed(clock, out):
    with Progress(100, "tiles", "segment", initial=50, stream=out, clock=clock) as progress:
        clock.now += 10
        progress.advance(10)
    assert "60 % (60 of 100 tiles, 1 tiles/s), 0:40 left" in out.getvalue()


def test_time_left_forgets_a_slow_start(clock, out):
    with Progress(1000, "tiles", "segment", stream=out, clock=clock) as progress:
        clock.now += 600  # the first tile waits for a compiler
        progress.advance()
        for _ in range(80):
            clock.now += 1
            progress.advance(10)
    # 10 tiles a second lately, 191 tiles to go at the last line
    assert "0:20 left" in out.getvalue().splitlines()[-2]


def test_bytes_are_scaled(clock, out):
    with Progress(375_042_383, "B", "vit_b", stream=out, clock=clock) as progress:
        clock.now += 10
        progress.advance(20_000_000)
    assert out.getvalue().splitlines()[0] == ("vit_b: 5 % (20.0 of 375.0 MB, 2 MB/s), 2:58 left")


def test_unknown_total(clock, out):
    with Progress(None, "files", "look", stream=out, clock=clock) as progress:
        clock.now += 20
        progress.advance(5)
    assert out.getvalue().splitlines() == ["look: 5 files, 0.25 files/s", "look: 5 files in 0:20"]


def test_a_total_that_becomes_known(clock, out, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for stream in (out, Terminal()):
        with Progress(None, "files", "look", stream=stream, clock=clock) as progress:
            progress.expect(8)
            progress.advance(8)
        assert "8 of 8 files" in stream.getvalue() or "8/8" in stream.getvalue()


def test_nothing_to_do_and_more_than_expected(clock, out):
    with Progress(0, "tiles", "empty", stream=out, clock=clock) as progress:
        clock.now += 10
        progress.advance(0)
        clock.now += 10
        progress.advance(3)
    assert out.getvalue().splitlines() == [
        "empty: 100 % (0 of 0 tiles, 0 tiles/s), time left unknown",
        "empty: 100 % (3 of 0 tiles, 0.15 tiles/s), 0:00 left",
        "empty: 3 of 0 tiles in 0:20",
    ]


def test_starting_over(clock, out):
    with Progress(100, "B", "file", stream=out, clock=clock) as progress:
        clock.now += 5
        progress.advance(90)
        progress.move_to(0)
        clock.now += 5
        progress.advance(10)
    assert out.getvalue().splitlines()[0] == "file: 10 % (10 of 100 B, 2 B/s), 0:45 left"


def test_an_exception_says_where_it_stopped(clock, out):
    with (
        pytest.raises(KeyError),
        Progress(9, "tiles", "segment", stream=out, clock=clock) as progress,
    ):
        progress.advance(4)
        clock.now += 3
        raise KeyError
    assert out.getvalue() == "segment: stopped at 4 of 9 tiles after 0:03\n"


def test_notes_are_lines_of_their_own(clock, out):
    with Progress(1, "tiles", "segment", stream=out, clock=clock) as progress:
        progress.note("tile 7: truncated")
    assert out.getvalue().splitlines()[0] == "tile 7: truncated"


def test_threads_lose_no_count(out):
    with Progress(4000, "tiles", "segment", stream=out) as progress:

        def work():
            for _ in range(1000):
                progress.advance()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert progress.done == 4000


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    with Progress(10, "tiles", "segment", initial=2, stream=out) as progress:
        progress.note("tile 7: truncated")
        progress.advance(8)
    assert "segment: 100%" in out.getvalue()
    assert "10/10" in out.getvalue()
    assert "tile 7: truncated\n" in out.getvalue()


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    with Progress(10, "tiles", "segment", stream=out) as progress:
        progress.advance(10)
    assert out.getvalue() == "segment: 10 of 10 tiles in 0:00\n"


@pytest.mark.parametrize(("size", "bar"), [((24, 80), True), ((24, 0), False), ((0, 80), False)])
def test_a_terminal_without_a_size_gets_lines(monkeypatch, size, bar):
    pty = pytest.importorskip("pty")
    termios = pytest.importorskip("termios")
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, size)
    text = ""
    with open(theirs, "w") as out:
        with Progress(10, "tiles", "segment", stream=out) as progress:
            progress.advance(10)
        out.write("the end")
        out.flush()
        while "the end" not in text:  # a terminal hands out what it has, whole or not
            text += os.read(ours, 10_000).decode()
    os.close(ours)
    assert ("10/10" in text) == bar
    assert ("segment: 10 of 10 tiles in" in text) != bar


def test_durations_and_sizes():
    assert [format_seconds(s) for s in (0, 59.6, 3599, 3661)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:01:01",
    ]
    assert [format_bytes(n) for n in (12, 9_500, 375_042_383, 2_564_550_879)] == [
        "12 B",
        "9.5 kB",
        "375.0 MB",
        "2.6 GB",
    ]


def test_others_may_watch_all_progress_for_a_while():
    seen = []

    def see(what, done, total):
        seen.append((what, done, total))

    with Progress(3, "tiles", "segmenting", stream=io.StringIO()) as progress:
        progress.advance()
        with watched(see):
            progress.advance()
            with Progress(None, "B", "reading", stream=io.StringIO()) as other:
                other.advance(7)
        progress.advance()
    assert seen == [("segmenting", 2, 3), ("reading", 0, None), ("reading", 7, None)]
