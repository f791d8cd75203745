"""Work spread over threads."""

import threading
import time

import pytest

from alps.kernels.base.threads import at_most, set_threads, spread, threads


@pytest.fixture(autouse=True)
def as_many_as_cpus():
    yield
    set_threads(None)


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("grain", [1, 3, 100])
def test_every_item_once(number, grain):
    set_threads(number)
    for count in (0, 1, 2, 10, 37):
        done = [0] * count
        pieces = []

        def work(first, last, done=done, pieces=pieces):
            pieces.append(last - first)
            for item in range(first, last):
                done[item] += 1

        spread(work, count, grain)
        assert done == [1] * count
        assert number == 1 or all(0 < piece <= grain for piece in pieces)


def test_number_of_threads():
    assert threads() >= 1
    set_threads(3)
    assert threads() == 3
    together = threading.Barrier(3, timeout=30)
    seen = set()

    def work(first, last):
        together.wait()  # passes only if three threads work at the same time
        seen.add(threading.get_ident())

    spread(work, 3)
    assert len(seen) == 3
    assert threading.get_ident() in seen
    set_threads(1)
    seen.clear()
    spread(lambda first, last: seen.add(threading.get_ident()), 5)
    assert seen == {threading.get_ident()}
    set_threads(None)
    assert threads() >= 1


@pytest.mark.parametrize("number", [0, -1])
def test_no_threads(number):
    with pytest.raises(ValueError, match="at least 1"):
        set_threads(number)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("bad", [0, 7, 19])
def test_exceptions_are_raised(number, bad):
    set_threads(number)

    def work(first, last):
        if first <= bad < last:
            raise RuntimeError(f"item {bad}")

    with pytest.raises(RuntimeError, match=f"item {bad}"):
        spread(work, 20)
    done = []
    spread(lambda first, last: done.append(first), 1)  # and the threads go on living
    assert done == [0]


def test_no_new_piece_after_an_exception():
    set_threads(2)
    begun = []

    def work(first, last):
        begun.append(first)
        if first == 0:
            raise RuntimeError("stop")
        time.sleep(0.001)

    with pytest.raises(RuntimeError, match="stop"):
        spread(work, 10_000)
    assert len(begun) < 10_000


def test_work_that_spreads_its_own_work():
    """More callers than threads, each waiting for pieces that none but itself may be free to do."""
    set_threads(2)
    done = []

    def inner(first, last):
        time.sleep(0.001)
        done.extend(range(first, last))

    def outer(first, last):
        spread(inner, 4)

    callers = [threading.Thread(target=spread, args=(outer, 4), daemon=True) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
        assert not caller.is_alive()
    assert len(done) == 4 * 4 * 4


def test_where_no_thread_can_be_started_fewer_do_it_all(monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    set_threads(3)
    monkeypatch.setattr("threading.Thread.start", refuse)
    done = []
    spread(lambda first, last: done.append((first, last)), 5)
    assert done == [(item, item + 1) for item in range(5)]


def test_a_thread_that_keeps_to_itself():
    set_threads(3)
    seen = []
    with at_most(1):
        with at_most(2):
            assert threads() == 2
        assert threads() == 1
        spread(lambda first, last: seen.append((first, last, threading.get_ident())), 5)
        other = threading.Thread(target=lambda: seen.append(threads()))  # it has a say of its own
        other.start()
        other.join()
    assert seen == [(0, 5, threading.get_ident()), 3]
    assert threads() == 3


def test_threads_of_a_pool_that_began_in_one_that_keeps_to_itself():
    set_threads(3)
    with at_most(2):
        spread(lambda first, last: None, 5)
    together = threading.Barrier(3, timeout=30)
    spread(lambda first, last: together.wait(), 3)  # passes only on three threads
