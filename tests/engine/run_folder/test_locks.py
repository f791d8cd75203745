"""Who may write to a run folder."""

import os
import threading

import pytest
from filelock import FileLock

from alps.engine.base.errors import RunFolderError
from alps.engine.run_folder import locks
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import alone, locked, settle_shares


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


# --- who it is


def test_who_holds_it_is_said(folder):
    with locked(folder), pytest.raises(RunFolderError, match=rf"process {os.getpid()} on .*since"):
        _locked_in_a_thread(folder)
    assert not list(folder.journal.glob("holder*"))


def test_who_waits_says_for_whom(folder, capsys):
    entered, leave = threading.Event(), threading.Event()

    def whole():
        with alone(folder, (0, 2)):
            entered.set()
            leave.wait(10)

    with locked(folder, (1, 2)):
        other = threading.Thread(target=whole)
        other.start()
        entered.wait(10)
        threading.Timer(0.8, leave.set).start()
        with alone(folder, (1, 2)):
            pass
        other.join()
    said = capsys.readouterr().err
    assert f"waiting for process {os.getpid()} on " in said and str(folder.root) in said
    with locked(folder, (1, 2)), alone(folder, (1, 2)):
        pass
    assert capsys.readouterr().err == ""


def test_shares_of_another_number_are_refused_while_at_work(folder, capsys):
    with locked(folder, (0, 4)), alone(folder, (0, 4)):
        folder.update_run(source="TILES")
        settle_shares(folder, (0, 4))
        assert folder.read_run()["machines"] == 4
        with locked(folder, (1, 2)), pytest.raises(RunFolderError, match=r"in 4 shares .*i/4, or"):
            settle_shares(folder, (1, 2))
        with locked(folder, (2, 4)):
            settle_shares(folder, (2, 4))
        assert folder.read_run()["machines"] == 4
    with locked(folder, (1, 2)), alone(folder, (1, 2)):  # they are gone: it may be divided anew
        settle_shares(folder, (1, 2))
    assert folder.read_run()["machines"] == 2
    assert "2 shares from now on, 4 before" in capsys.readouterr().err


def test_a_run_over_the_whole_is_refused_beside_a_share(folder):
    with locked(folder, (2, 3)), pytest.raises(RunFolderError, match="another run is writing"):
        _locked_in_a_thread(folder)


@pytest.mark.parametrize("note", [b"", b"\xff", b"[" * 9000, b'{"pid": -1}'])
def test_a_note_that_is_none_says_nothing(folder, note):
    with locked(folder):
        (folder.journal / "holder-of-lock.json").write_bytes(note)
        with pytest.raises(RunFolderError, match="did not say who"):
            _locked_in_a_thread(folder)


def _locked_in_a_thread(folder):
    """One process holds a lock once, whoever asks for it; a thread's lock is another one's."""
    caught = []

    def run():
        try:
            with locked(folder):
                pass
        except RunFolderError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if caught:
        raise caught[0]
