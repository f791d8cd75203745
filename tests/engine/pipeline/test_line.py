"""Stages that overlap: how long they take, what is alive at once, and how they end."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from alps.engine.base.stopping import Stopped, listen
from alps.engine.pipeline.line import Line, Over, Slots, Stage, raise_if_over

# Reading, to the device, its work, back, what follows: milliseconds and threads.
KNOWN = (("read", 60, 4), ("in", 4, 1), ("device", 30, 1), ("out", 4, 1), ("after", 50, 2))
AT_DEVICE = Slots("in", "out", 2)
TRIES = 5  # a machine may be busy with other things, but not five times


def sleeping(milliseconds):
    def work(item):
        time.sleep(milliseconds / 1000)
        return item

    return work


def threads_of_lines():
    return [thread for thread in threading.enumerate() if thread.name.startswith("alps-")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threads_of_lines()
    yield
    assert threads_of_lines() == before


def test_wall_time_is_the_slowest_stages():
    count, slowest = 25, 0.030
    stages = [Stage(name, sleeping(ms), threads) for name, ms, threads in KNOWN]
    fill = sum(ms for _, ms, _ in KNOWN) / 1000
    for _ in range(TRIES):
        began = time.perf_counter()
        with Line(range(count), stages, [AT_DEVICE]) as line:
            assert list(line) == list(range(count))
        took = time.perf_counter() - began
        if took <= 1.2 * slowest * count + fill:
            return
    pytest.fail(f"{count} items took {took:.2f} s at best, {took / count * 1000:.0f} ms each")


def test_results_come_in_order_and_few_are_alive():
    rng = random.Random(3)
    pauses = {(name, item): rng.random() / 200 for name, *_ in KNOWN for item in range(60)}
    alive, most, taken = set(), 0, []
    lock = threading.Lock()

    def stage(name):
        def work(item):
            nonlocal most
            with lock:
                if name == "in":
                    alive.add(item)
                    most = max(most, len(alive))
                if name == "read":
                    taken.append(item)
                    assert len(taken) - done[0] <= 30  # bounded, whoever is slow
            time.sleep(pauses[name, item])
            with lock:
                if name == "out":
                    alive.remove(item)
            return item

        return work

    done = [0]
    stages = [Stage(name, stage(name), threads) for name, _, threads in KNOWN]
    with Line(iter(range(60)), stages, [AT_DEVICE]) as line:
        for number, item in enumerate(line):
            assert item == number
            done[0] += 1
    assert done == [60] and most == 2


@pytest.mark.parametrize("bad", ["items", *(name for name, *_ in KNOWN)])
def test_an_exception_anywhere_ends_all_at_once_and_is_raised(bad):
    began = []

    def items():
        for item in range(1000):
            if bad == "items" and item == 7:
                raise RuntimeError("items 7")
            yield item

    def stage(name):
        def work(item):
            began.append(item)
            if name == bad and item == 7:
                raise RuntimeError(f"{name} 7")
            time.sleep(0.001)
            return item

        return work

    stages = [Stage(name, stage(name), threads) for name, _, threads in KNOWN]
    seen = []
    with pytest.raises(RuntimeError, match=f"{bad} 7"), Line(items(), stages) as line:
        for item in line:
            seen.append(item)
    assert seen == list(range(len(seen))) and len(seen) <= 7
    assert max(began) < 40


def test_work_that_takes_long_notices_the_end():
    noticed = []

    def endless(item):
        try:
            while True:
                raise_if_over()
                time.sleep(0.001)
        except Over:
            noticed.append(item)
            raise

    with pytest.raises(ZeroDivisionError), Line([1], [Stage("work", endless)]):
        raise ZeroDivisionError
    assert noticed == [1]
    raise_if_over()  # nothing in a thread of no line


def test_a_line_feeds_another_one():
    stage = Stage("half", sleeping(1), 2)
    with Line(range(20), [stage]) as first, Line(first, [stage]) as second:
        assert list(second) == list(range(20))
    with Line(iter(int, 1), [stage]) as first, Line(first, [stage]) as second:  # endless
        assert next(iter(second)) == 0

    def fails(item):
        raise RuntimeError("in the first")

    with (
        pytest.raises(RuntimeError, match="in the first"),
        Line([1], [Stage("fails", fails)]) as first,
        Line(first, [stage]) as second,
    ):
        list(second)


def test_nothing_to_do():
    with Line([], [Stage("work", sleeping(1), 3)]) as line:
        assert list(line) == []


@pytest.mark.usefixtures("restored_signals")
def test_a_signal_is_raised_where_it_is_iterated():
    listen()
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(Stopped), Line(iter(int, 1), [Stage("work", sleeping(1), 3)]) as line:
        for _ in line:
            pass


def test_ctrl_c_leaves_no_thread():
    code = (
        "import time, threading\n"
        "from alps.engine.base.stopping import Stopped, listen\n"
        "from alps.engine.pipeline.line import Line, Stage\n"
        "listen()\n"
        "stages = [Stage(name, lambda item: time.sleep(0.002), 3) for name in 'abc']\n"
        "try:\n"
        "    with Line(iter(int, 1), stages) as line:\n"
        "        for number, _ in enumerate(line):\n"
        "            if number == 3: print('ready', flush=True)\n"
        "except Stopped:\n"
        "    print('left', threading.active_count() - 1)\n"
    )
    for pause in (0.0, 0.013, 0.03):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "left 0\n"
        assert process.returncode == 0
