"""Who may write to a run folder."""

import threading

import pytest
from filelock import FileLock

from alps.engine.base.errors import RunFolderError
from alps.engine.run_folder import locks
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import alone, locked


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """So that a lock which is never let go fails a test instead of holding it up."""
    monkeypatch.setattr(locks, "PLANNING_SECONDS", 5)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "out")


def is_held(folder, name):
    lock = FileLock(folder.journal / name)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return True
    lock.release()
    return False


def test_what_is_held_and_let_go(folder):
    with locked(folder):
        assert is_held(folder, "lock") and (folder.root / "segments").is_dir()
    assert not is_held(folder, "lock")
    with locked(folder, (1, 3)):
        assert is_held(folder, "lock-2-of-3") and not is_held(folder, "lock")
        with alone(folder, (1, 3)):
            assert is_held(folder, "lock")
        assert not is_held(folder, "lock")
    assert not is_held(folder, "lock-2-of-3")


def test_one_machine_holds_the_whole_anyway(folder):
    with locked(folder), alone(folder, (0, 1)):
        assert is_held(folder, "lock")


def test_machines_are_alone_one_after_the_other(folder):
    """The second waits until the first has planned."""
    events, entered = [], threading.Event()

    def second():
        with locked(folder, (1, 2)):
            entered.wait(10)
            with alone(folder, (1, 2)):
                events.append("second")

    with locked(folder, (0, 2)):
        thread = threading.Thread(target=second)
        thread.start()
        with alone(folder, (0, 2)):
            entered.set()
            thread.join(0.3)
            events.append("first")
    thread.join(10)
    assert events == ["first", "second"]


def test_waiting_for_another_machine_has_an_end(folder, monkeypatch):
    monkeypatch.setattr(locks, "PLANNING_SECONDS", 0.05)
    with (
        locked(folder),
        pytest.raises(RunFolderError, match="as a whole"),
        alone(folder, (0, 2)),
    ):
        pytest.fail("held twice")


def test_a_share_keeps_out_the_whole_and_others_of_its_name(folder):
    with locked(folder, (0, 2)):
        with pytest.raises(RunFolderError, match="another run"), locked(folder):
            pytest.fail("held twice")
        with locked(folder, (0, 3)):  # of another division
            pass
