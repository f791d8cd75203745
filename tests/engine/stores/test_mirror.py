"""A folder that is a prefix of a store too: order, failures, and who may write."""

import json
import multiprocessing
import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from s3_server import Rule

from alps.engine.base.atomic import move_folder, remove, remove_folder, write_text
from alps.engine.base.errors import RunFolderError, SettingsError, StoreError
from alps.engine.base.lines import append_line, open_journal
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.stores import client, lease, mirror
from alps.engine.stores.out import address_of, attached, following, opened, places, shown


@pytest.fixture
def out(s3, prefix, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "RETRIES", 0)
    monkeypatch.setenv("ALPS_HOME", str(tmp_path / "home"))
    return f"s3://bucket/{prefix}"


def stored(s3, out):
    start = out.removeprefix("s3://bucket/") + "/"
    return {key.removeprefix(start): s3.get(key) for key in s3.keys(start)}


def puts(s3):
    """Names of files that were put since the log was taken last, in order, without the lease."""
    found = [r.path for r in s3.take_log() if r.method == "PUT" and r.status == 200]
    names = [re.sub(r"^/bucket/[^/]+/", "", path) for path in found]
    return [name for name in names if "lease" not in name]


def test_what_is_done_in_the_folder_is_done_in_the_store(s3, out):
    with opened(out, writes=True) as root:
        write_text(root / "run.json", "{}")
        for room in ("labels/a", "named", "regions", "journal"):
            (root / room).mkdir(parents=True)
        write_text(root / "labels/a/odd #%?[1] é\\.png", "map")
        write_text(root / "labels/lock.png", "a source may be called so")
        write_text(root / "labels/.hidden.png", "and so")
        write_text(root / "labels/gone.png", "map")
        remove(root / "labels/gone.png")
        write_text(root / "regions/part-00000.parquet", "r")
        move_folder(root / "regions", root / "journal/named")
        write_text(root / "named/x", "x")
        remove_folder(root / "named")
        (root / "by_others.txt").write_text("not told")
        for name in ("labels/.maps.old/a.png", "journal/holder-of-lock.json", "labels/.a.png.part"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text("of this machine")
        assert shown(root / "labels") == f"{out}/labels" and str(address_of(root)) == out
        assert "journal/lease.json" in stored(s3, out)
    expected = {
        "run.json": b"{}",
        "labels/a/odd #%?[1] é\\.png": b"map",
        "journal/named/part-00000.parquet": b"r",
        "by_others.txt": b"not told",
        "labels/lock.png": b"a source may be called so",
        "labels/.hidden.png": b"and so",
    }
    assert stored(s3, out) == expected
    with opened(out, writes=True):
        assert (root / "labels/lock.png").exists() and (root / "labels/.hidden.png").exists()
    assert stored(s3, out) == expected
    assert not places() and address_of(root) is None


def test_the_store_is_what_counts(s3, out, tmp_path):
    with opened(out, writes=True) as root:
        write_text(root / "run.json", "{}")
        write_text(root / "a", "first")
        write_text(root / "b", "kept")
    s3.put(out.removeprefix("s3://bucket/") + "/a", b"changed elsewhere")
    (root / "left.txt").write_text("of a killed run, never put")
    s3.take_log()
    with opened(out, writes=False) as again:
        assert again == root and (root / "a").read_text() == "changed elsewhere"
        assert not (root / "left.txt").exists() and (root / "b").read_text() == "kept"
    requests = s3.take_log()
    assert sum("list-type" in request.path for request in requests) == 1
    # `a` is fetched, `b` is known to be the same.
    assert [r.path[-2:] for r in requests if r.method == "GET" and "list" not in r.path] == ["/a"]
    with opened(out, writes=False, scratch=tmp_path / "elsewhere") as other:
        assert other != root and (other / "b").read_text() == "kept"
    for honest in (False, True):
        s3.misbehave(Rule(r"\d/b$", "GET", bytes_sent=2, honest=honest, times=1))
        with opened(out, writes=False, scratch=tmp_path / f"cut-{honest}") as other:
            assert (other / "b").read_text() == "kept"
        s3.misbehave(Rule(r"\d/b$", "GET", bytes_sent=2, honest=honest))
        with pytest.raises(StoreError, match=f"cannot read {out}/b: "):
            opened(out, writes=False, scratch=tmp_path / f"cut-again-{honest}").__enter__()
        s3.misbehave()
    (root.parent / "index.sqlite").write_bytes(b"torn" * 4000)
    with opened(out, writes=False):
        assert (root / "b").read_text() == "kept"


def test_a_journal_says_only_what_is_there(s3, out):
    """Where a file could not be put, nothing that counts on it is."""
    with opened(out, writes=True) as root:
        for room in ("labels", "journal", "segments"):
            (root / room).mkdir(exist_ok=True)
        s3.misbehave(Rule("segments", "PUT", status=500, times=2))
        write_text(root / "segments/part-00000.parquet", "s")
        with pytest.raises(StoreError, match="answers 500"):
            write_text(root / "journal/tiles-00000.parquet", "t")
        assert not (root / "journal/tiles-00000.parquet").exists()
        assert "journal/tiles-00000.parquet" not in stored(s3, out)
        write_text(root / "journal/tiles-00000.parquet", "t")  # the store is well again
        assert puts(s3) == ["segments/part-00000.parquet", "journal/tiles-00000.parquet"]


def test_journals_that_grow_are_put_now_and_then(s3, out, monkeypatch):
    monkeypatch.setattr(mirror, "JOURNAL_SECONDS", 3600.0)  # however slow the machine is
    with opened(out, writes=True) as root:
        (root / "labels").mkdir()
        (root / "journal").mkdir()
        with open_journal(root / "journal/painted.jsonl") as journal:
            for number in range(20):
                write_text(root / f"labels/{number:02d}.png", "map")
                append_line(journal, {"number": number})
            before = puts(s3)
            assert before.count("journal/painted.jsonl") == 1
            monkeypatch.setattr(mirror, "JOURNAL_SECONDS", 0.0)
            ends = time.monotonic() + 60  # the thread that renews the lease looks each second
            while "journal/painted.jsonl" not in puts(s3):
                assert time.monotonic() < ends, "a journal that grew was not put"
                time.sleep(0.1)
            assert stored(s3, out)["journal/painted.jsonl"].count(b"\n") == 20
            append_line(journal, {"number": 20})
            append_line(journal, {"number": 21})
    assert stored(s3, out)["journal/painted.jsonl"].count(b"\n") == 22


def test_signs_of_life_are_seen_elsewhere(s3, out, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "SIGN_SECONDS", 0.2)
    with opened(out, writes=True) as root:
        write_text(root / "run.json", "{}")
        (root / "journal").mkdir(exist_ok=True)
        sign = root / "journal" / "alive-here-1.json"
        sign.write_text("1")
        time.sleep(1.5)
        sign.write_text("22")
        time.sleep(1.5)
        with opened(out, writes=False, scratch=tmp_path / "two", only=("journal/",)) as other:
            assert (other / "journal" / sign.name).read_text() == "22"
        sign.unlink()
    assert set(stored(s3, out)) == {"run.json"}


def test_two_on_one_out(s3, out, tmp_path):
    with opened(out, writes=True, scratch=tmp_path / "one") as root:
        write_text(root / "run.json", "{}")
        with pytest.raises(RunFolderError, match=rf"process {os.getpid()} on .* wait for it"):
            opened(out, writes=True, scratch=tmp_path / "two").__enter__()
        with opened(out, writes=False, scratch=tmp_path / "two") as other:
            assert (other / "run.json").exists()  # may be read
        with opened(out, writes=True, scratch=tmp_path / "one") as again:  # by a caller of its own
            assert again == root
    with opened(out, writes=True, scratch=tmp_path / "two"):
        pass


def test_a_holder_that_lost_its_lease_writes_no_more(s3, out, monkeypatch):
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.1)
    key = out.removeprefix("s3://bucket/") + "/journal/lease.json"
    with pytest.raises(StoreError, match="now held by process 7 on there"):  # noqa: SIM117
        with opened(out, writes=True) as root:
            write_text(root / "run.json", "{}")
            taken = lease.Lease("x", "y", "there", 7, "then", "2100-01-01T00:00:00+00:00")
            s3.put(key, json.dumps(vars(taken)).encode())
            time.sleep(2.5)
            write_text(root / "other.json", "{}")
    assert "other.json" not in stored(s3, out) and not (root / "other.json").exists()
    assert b"there" in stored(s3, out)["journal/lease.json"]  # not ours to remove


def put_lease(s3, out, seconds):
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    held = lease.Lease("x", "elsewhere", "there", 7, "then", until.isoformat(timespec="seconds"))
    key = out.removeprefix("s3://bucket/") + "/journal/lease.json"
    s3.put(key, json.dumps(vars(held)).encode())


def test_a_lease_of_another_machine(s3, out, monkeypatch, capsys):
    monkeypatch.setattr(lease, "SECONDS", 1.0)
    monkeypatch.setattr(lease, "MARGIN", 0.1)
    monkeypatch.setattr(lease, "LOOK", 0.1)
    put_lease(s3, out, 100)
    with pytest.raises(RunFolderError, match=r"process 7 on there.*its lease ends at 20"):
        opened(out, writes=True).__enter__()
    put_lease(s3, out, -30)  # ran out: watched, and then taken
    with opened(out, writes=True):
        assert "waiting 1 s to see whether process 7 on there" in capsys.readouterr().err
    put_lease(s3, out, -3600)  # long ago
    with opened(out, writes=True):
        assert "waiting" not in capsys.readouterr().err


def test_a_lease_that_ran_out_by_a_wrong_clock_is_not_taken(s3, out, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 3.0)
    monkeypatch.setattr(lease, "LOOK", 0.05)
    put_lease(s3, out, -30)
    looks = []
    monkeypatch.setattr(lease.time, "sleep", lambda _: looks.append(put_lease(s3, out, -20)))
    with pytest.raises(RunFolderError, match="process 7 on there"):
        opened(out, writes=True).__enter__()
    assert looks


def test_a_lease_whose_answer_was_lost_is_ones_own(s3, out, monkeypatch):
    monkeypatch.setattr(client, "RETRIES", 2)
    s3.misbehave(Rule("lease.json", "PUT", status=500, after=True, times=1))
    with opened(out, writes=True) as root:
        write_text(root / "run.json", "{}")
    assert stored(s3, out) == {"run.json": b"{}"}


def test_the_word_of_a_killed_run_is_known_again(s3, out):
    with opened(out, writes=True) as root:
        word = (root.parent / "word").read_text()
    until = (datetime.now(UTC) + timedelta(seconds=50)).isoformat(timespec="seconds")
    held = lease.Lease("x", word, "here", 7, "then", until)
    s3.put(out.removeprefix("s3://bucket/") + "/journal/lease.json",
           json.dumps(vars(held)).encode())  # fmt: skip
    with opened(out, writes=True):
        pass


def work(how, place):
    """What a process does that works for the one that holds OUT."""
    with how(place):
        root = place if isinstance(place, Path) else place.root
        (root / "labels").mkdir(exist_ok=True)
        write_text(root / "labels" / "of_a_worker", "w")
        os._exit(0)  # it may be killed at any moment


def test_processes_that_work_for_the_holder(s3, out, tmp_path):
    with opened(out, writes=True) as root:
        (place,) = places()
        for how, where in ((attached, place), (following, root)):
            context = multiprocessing.get_context("spawn")
            process = context.Process(target=work, args=(how, where))
            process.start()
            process.join()
            assert process.exitcode == 0
            assert stored(s3, out)["labels/of_a_worker"] == b"w"
            remove(root / "labels" / "of_a_worker")
            assert "labels/of_a_worker" not in stored(s3, out)
    with pytest.raises(StoreError, match="does not hold its OUT any more"), following(root):
        write_text(root / "late", "w")
    assert not stored(s3, out)
    with following(tmp_path), following(None):
        write_text(tmp_path / "on_disk", "w")


def test_a_prefix_of_something_else_is_left_alone(s3, out, tmp_path):
    s3.put(out.removeprefix("s3://bucket/") + "/photos/a.png", b"x" * 1000)
    s3.take_log()
    for writes in (True, False):
        with pytest.raises(RunFolderError, match=r"no run folder \(it holds photos/a.png\)"):
            opened(out, writes=writes).__enter__()
    assert not [r for r in s3.take_log() if r.path.endswith("a.png")]
    assert set(stored(s3, out)) == {"photos/a.png"}


def test_what_cannot_be(s3, out, tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="cannot be written to"):
        opened("https://host/out", writes=True).__enter__()
    for given in (out, Path(out)):
        with pytest.raises(SettingsError, match="lies in a store"):
            RunFolder(given)
    with opened(out, writes=True) as root:
        with pytest.raises(SettingsError, match="--shard"), locked(RunFolder(root), (0, 2)):
            pass
        # As another process would find it.
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("alps.engine.stores.out._open", {})
            with pytest.raises(RunFolderError, match="another command of this machine"):
                opened(out, writes=True).__enter__()
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="--scratch"):
        opened(out, writes=True, scratch=tmp_path / "file").__enter__()
    with opened(tmp_path / "plain", writes=True) as plain:
        assert plain == tmp_path / "plain"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    with pytest.raises(StoreError, match="refuses it"):
        opened(out, writes=True).__enter__()
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        opened(out, writes=True).__enter__()
