"""Signals that end a command, wherever the main thread happens to be."""

import _thread
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from alps.engine.base import stopping
from alps.engine.base.progress import Progress
from alps.engine.base.stopping import Stopped, children_without_ctrl_c, listen, raise_if_stopped

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _as_before(restored_signals):
    """Handlers are the process's; other tests have theirs."""


@pytest.fixture
def _ends_with_an_exception(monkeypatch):
    """Where the process would end at once, SystemExit is raised."""
    monkeypatch.setattr(os, "_exit", sys.exit)


@pytest.mark.parametrize("number", ALL)
def test_a_signal_is_raised_and_noted(number):
    signals = listen()
    with pytest.raises(Stopped):
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert signals.received == number and signals.exit_code == 128 + number
    assert "run the same command again" in signals.text


def test_nothing_came():
    signals = listen()
    raise_if_stopped()
    assert signals.received is None and signals.exit_code == 0


def test_in_a_compiled_kernel_too():
    from alps.kernels.masks.algebra import place
    from alps.kernels.masks.runs import Runs

    pixels = 100 * 100
    runs = Runs((100, 100), np.ones(32 * pixels, np.int32), np.arange(0, 33 * pixels, pixels))
    place(runs, (101, 101), 0, 0)  # two arrays, boxed by a callback that takes no exception

    def interrupt_soon():
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    for _ in range(8):
        listen()
        with pytest.raises(Stopped):
            # Not a threading.Timer: on a busy machine the signal comes before its start is over.
            _thread.start_new_thread(interrupt_soon, ())
            while True:  # as work is counted: what is raised in a callback of gc is lost
                place(runs, (101, 101), 0, 0)
                raise_if_stopped()
        time.sleep(0.05)  # one that was put off is sent again, and is no news by now


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_is_lost_in_a_finaliser_ends_the_work_at_the_next_count():
    class Leaves:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    listen()
    Leaves()
    with pytest.raises(Stopped), Progress(3, "tiles", "segmenting") as progress:
        progress.advance()


def test_another_thread_counts_on():
    listen()
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGINT)
    failures = []

    def count():
        try:
            raise_if_stopped()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
    assert not failures


def test_under_nohup_it_stays_alive():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    listen()
    signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_torchruns_processes_end_at_once():
    before = signal.getsignal(signal.SIGTERM)
    listen(at_once=True)
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("_ends_with_an_exception")
def test_the_same_signal_twice_in_a_row_is_one():
    listen()
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)  # to the group, as `timeout` does


@pytest.mark.usefixtures("_ends_with_an_exception")
def test_whoever_presses_again_later_wants_the_end(monkeypatch, capfd):
    listen()
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr(stopping, "PATIENCE_SECONDS", 0.0)
    time.sleep(0.001)
    with pytest.raises(SystemExit, match="130"):
        signal.raise_signal(signal.SIGTERM)
    assert "interrupted" in capfd.readouterr().err


@pytest.mark.usefixtures("_ends_with_an_exception")
def test_after_the_end_it_is_silent(capfd):
    listen().over()
    with pytest.raises(SystemExit, match="129"):
        signal.raise_signal(signal.SIGHUP)
    assert capfd.readouterr().err == ""


def test_a_fork_ends_as_forks_do():
    listen()
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_children_leave_ctrl_c_to_their_parent():
    kills_itself = ["sh", "-c", "kill -INT $$; echo alive"]
    listen()
    with children_without_ctrl_c():
        said = subprocess.run(kills_itself, capture_output=True, text=True, check=False).stdout
    assert said == "alive\n"
    assert subprocess.run(kills_itself, capture_output=True, check=False).stdout == b""


def test_ctrl_c_while_children_start_is_not_lost():
    listen()
    with pytest.raises(Stopped), children_without_ctrl_c():
        os.kill(os.getpid(), signal.SIGINT)
