"""How far a run is, told from its folder alone."""

import io
import json
import os
import socket
import threading
import time
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from small_runs import draw

from alps.engine.base.errors import RunFolderError
from alps.engine.base.progress import watched
from alps.engine.cli.status import status as command
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.run_folder.plan import SHARD_KEY
from alps.engine.run_folder.schemas import PLAN_SCHEMA
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages import label as label_stage
from alps.engine.stages import single
from alps.engine.stages.label import label_archive
from alps.engine.stages.one_pass import OnePass
from alps.engine.stages.opening import RunOptions
from alps.engine.status import contents, words
from alps.engine.status.processes import ALIVE, DEAD, ENDED, SILENT, Clock, processes_of
from alps.engine.status.survey import FINISHED, QUIET, RUNNING, STOPPED, status_of
from alps.engine.telemetry import heartbeat
from alps.engine.telemetry.heartbeat import Heartbeat

SETTINGS = RunSettings(cluster=ClusterSettings(clusters=3))

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports", "shards_of_two")


@pytest.fixture
def shards_of_two(monkeypatch):
    monkeypatch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 2)


@pytest.fixture
def options(speck):
    return RunOptions(model=str(speck), device="cpu", max_failed=1.0)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(4):
        draw(folder / f"{seed}.png", seed)
    (folder / "x.png").write_bytes(b"junk")
    return folder


def state(folder):
    """All that lies in a folder, and when it changed."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if not path.name.startswith(("alive-", ".alive-"))
    }


def seen_during(run, out, monkeypatch):
    """What ``status_of`` tells at every step of a run, and at its end."""
    monkeypatch.setattr(heartbeat, "EVERY_SECONDS", 0.002)
    found = []

    def look(*progress):
        if (out / "journal").is_dir():
            time.sleep(0.02)
            found.append(status_of(RunFolder(out)))

    with watched(look):
        run()
    return found, status_of(RunFolder(out))


def test_a_run_is_followed_from_its_plan_to_its_end(images, tmp_path, options, monkeypatch):
    out = tmp_path / "out"
    found, last = seen_during(
        lambda: label_archive(images, out, SETTINGS, options), out, monkeypatch
    )
    assert all(one.state == RUNNING and one.next == () for one in found)
    stages = list(dict.fromkeys(one.stage for one in found))
    assert stages == ["plan", "segment", "regions", "cluster", "paint"]
    segmenting = [one.tiles.done for one in found if one.stage == "segment"]
    # Two threads with a tile each may be done between two looks.
    assert sorted(segmenting) == segmenting and len({1, 2, 3, 4} & set(segmenting)) > 1
    assert all(one.tiles.planned == 5 for one in found if one.stage != "plan")
    cut = [one.groups.cut for one in found if one.stage == "regions"]
    assert set(cut) >= {0, 1} and all(one.groups.planned == 3 for one in found if one.tiles)
    painted = [one.sources.painted for one in found if one.stage == "paint"]
    assert sorted(painted) == painted and {1, 2, 3, 4} <= set(painted)
    assert last.state == FINISHED and last.stage == "" and last.next == () and not last.concerns
    assert (last.tiles.done, last.tiles.left, last.tiles.failed) == (5, 0, 1)
    ((reason, count),) = last.tiles.failed_reasons.items()
    assert count == 1 and "a file" in reason
    assert last.groups.cut == last.groups.clustered == 3
    assert (last.sources.planned, last.sources.painted) == (5, 4) and last.processes == ()


def test_one_pass_is_followed_too(images, tmp_path, options, monkeypatch):
    label_archive(images, tmp_path / "two", SETTINGS, options)
    out, one_pass = tmp_path / "one", OnePass(tmp_path / "two" / "clusters.npz")
    found, last = seen_during(
        lambda: label_archive(images, out, None, options, one_pass), out, monkeypatch
    )
    assert list(dict.fromkeys(one.stage for one in found)) == ["plan", "segment"]
    assert max(one.sources.painted for one in found if one.tiles) >= 2
    assert last.state == FINISHED and last.groups is None and last.sources.painted == 4
    assert last.tiles.failed == 1 and not last.concerns


def test_what_to_run_next(images, tmp_path, options, monkeypatch):
    out = tmp_path / "out"
    shares = [replace(options, share=(index, 2)) for index in range(2)]
    single.segment(images, out, SETTINGS, shares[1])
    found = status_of(RunFolder(out))
    assert found.state == STOPPED and found.stage == "segment" and found.tiles.done == 2
    assert found.next == (f"alps segment {images} {out} --shard 1/2, with its options",)
    single.segment(images, out, SETTINGS, shares[0])
    found = status_of(RunFolder(out))
    assert (found.stage, found.tiles.left, found.tiles.failed) == ("regions", 0, 1)
    assert found.next == (f"alps cluster {out}", f"alps paint {out}")
    single.cluster(out, SETTINGS.cluster)
    found = status_of(RunFolder(out))
    assert (found.stage, found.next) == ("paint", (f"alps paint {out}",))
    assert found.sources.painted == 0
    single.paint(out, max_failed=1)
    assert status_of(RunFolder(out)).state == FINISHED
    single.cluster(out, ClusterSettings(clusters=2))
    found = status_of(RunFolder(out))  # label maps are of clusters that are no more
    assert (found.stage, found.sources.painted) == ("paint", 0)


def test_a_run_that_was_stopped_says_why_and_how_to_go_on(images, tmp_path, options, monkeypatch):
    out = tmp_path / "out"

    def stop(*given, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(label_stage, "cluster_archive", stop)
        patch.setattr(heartbeat.recorder, "command", "alps label images out --clusters 3")
        with pytest.raises(KeyboardInterrupt):
            label_archive(images, out, SETTINGS, options)
    found = status_of(RunFolder(out))
    assert found.state == STOPPED and found.stage == "cluster"
    assert found.next == ("alps label images out --clusters 3",)
    ((ended,),) = [found.processes]
    assert ended.state == ENDED and ended.beat.ended == "interrupted"
    assert "interrupted" in words.as_text(found) and "next      alps label" in words.as_text(found)
    label_archive(images, out, SETTINGS, options)
    assert status_of(RunFolder(out)).processes == ()


def test_what_is_missing_is_said_as_far_as_names_tell(images, tmp_path, options):
    out = tmp_path / "out"
    label_archive(images, out, SETTINGS, options)
    (out / "segments" / "part-00001.parquet").unlink()
    (out / "clusters.npz").unlink()
    found = status_of(RunFolder(out))
    assert found.concerns == ("segments of 1 shards are missing", f"{out}/clusters.npz is missing")
    assert f"alps verify {out}" in words.as_text(found)
    (out / "journal" / "plan.parquet").write_bytes(b"PAR1junk")
    assert "plan.parquet cannot be read" in status_of(RunFolder(out)).concerns[0]
    (out / "journal" / "plan.parquet").unlink()
    assert "plan.parquet is missing" in status_of(RunFolder(out)).concerns[0]
    (out / "run.json").write_text("{")
    with pytest.raises(RunFolderError, match="cannot read"):
        status_of(RunFolder(out))
    with pytest.raises(RunFolderError, match="not a run folder"):
        status_of(RunFolder(images))


def test_nothing_is_written_and_a_lock_is_no_hindrance(images, tmp_path, options):
    out = tmp_path / "out"
    label_archive(images, out, SETTINGS, options)
    before = state(out)
    with locked(RunFolder(out)):
        held = state(out)
        for path in (out / "journal", out):
            path.chmod(0o555)
        assert status_of(RunFolder(out)).state == RUNNING
        assert state(out) == held
        for path in (out / "journal", out):
            path.chmod(0o755)
    assert status_of(RunFolder(out)).state == FINISHED
    assert {path: found for path, found in state(out).items() if path.is_file()} == {
        path: found for path, found in before.items() if path.is_file()
    }


def test_no_table_of_the_archive_is_read(tmp_path, monkeypatch):
    """Of a run in progress: its plan's last rows and numbers of sources; names of files."""
    folder, tiles = RunFolder(tmp_path / "out"), 300_000
    folder.journal.mkdir(parents=True)
    with pq.ParquetWriter(folder.plan, PLAN_SCHEMA) as writer:
        ids = np.arange(tiles)
        columns = {name: pa.array(ids // 3, pa.int32()) for name in ("source_index",)}
        columns |= {"tile_id": pa.array(ids)}
        for field in PLAN_SCHEMA:
            if field.name not in columns:
                value = pa.scalar("" if field.type == pa.string() else 7, field.type)
                columns[field.name] = pa.repeat(value, tiles)
        writer.write_table(pa.table(columns, schema=PLAN_SCHEMA), row_group_size=1 << 15)
    folder.update_run(config_hash="", settings={}, done={}, stages={}, source="x", kind="label")
    for shard in range(2000):
        folder.shard_tiles(shard).touch()  # empty: who reads one fails
    found = status_of(folder)
    assert (found.tiles.planned, found.tiles.done, found.stage) == (300_000, 4000, "segment")
    assert found.groups.planned == len(np.unique(np.arange(0, tiles, 3) // 2))
    assert found.sources.planned == 100_000


def test_a_shard_that_is_larger_is_counted_as_it_is(tmp_path):
    folder = RunFolder(tmp_path)
    folder.journal.mkdir()
    schema = PLAN_SCHEMA.with_metadata({SHARD_KEY: b"64"})
    empty = {
        field.name: pa.array([0] * 130 if field.type != pa.string() else [""] * 130, field.type)
        for field in PLAN_SCHEMA
    }
    pq.write_table(pa.table(empty, schema=schema), folder.plan)
    plan = contents.plan_facts(folder)
    assert plan.shards == 3
    assert plan.tiles_of(np.array([True, False, True])) == 66


# --- who is alive


class FileServer:
    """A journal whose files have times by another clock than this machine's."""

    def __init__(self, journal, ahead=0.0):
        self.journal, self.ahead, self.now = journal, ahead, 1_000_000.0
        self.working = []
        journal.mkdir(parents=True, exist_ok=True)

    def beat(self, name, age=0.0, **values):
        path = self.journal / f"alive-{name}.json"
        known = {"host": name, "pid": 7, "place": "elsewhere", "beat": 1, "started": "then"}
        path.write_text(json.dumps(known | values))
        time_of = self.now - age + self.ahead
        os.utime(path, (time_of, time_of))

    def sleep(self, seconds):
        self.now += seconds
        for name in self.working:
            self.beat(name, beat=int(self.now))

    def look(self, **how):
        found = processes_of(self.journal, Clock(lambda: self.now, self.sleep), **how)
        return {one.beat.host: one.state for one in found}


def test_on_another_machine_recent_is_alive_and_old_is_silent(tmp_path):
    server = FileServer(tmp_path)
    server.beat("new", age=10)
    server.beat("old", age=300)
    server.beat("done", age=300, ended="interrupted")
    began = server.now
    assert server.look() == {"new": ALIVE, "old": SILENT, "done": ENDED}
    assert server.now == began  # the clocks agree: nothing to wait for


@pytest.mark.parametrize("ahead", [3600.0, -3600.0, 120.0])
def test_a_clock_that_is_wrong_does_not_kill_nor_revive(tmp_path, ahead):
    server = FileServer(tmp_path, ahead)
    server.beat("works")
    server.beat("died", age=4000)
    server.working = ["works"]
    assert server.look()["works"] == ALIVE and server.look()["died"] == SILENT
    server.working = []
    server.beat("works")
    assert server.look() == {"works": SILENT, "died": SILENT}
    began = server.now
    assert server.look(is_patient=False)["works"] == SILENT and server.now == began


def test_what_is_silent_for_days_is_not_waited_for(tmp_path):
    server = FileServer(tmp_path)
    server.beat("old", age=3 * 86400)
    began = server.now
    assert server.look() == {"old": SILENT} and server.now == began


def test_on_this_machine_the_system_knows(tmp_path):
    server = FileServer(tmp_path)
    here = {"host": socket.gethostname(), "place": heartbeat._place()}
    born = heartbeat._born(os.getpid())
    server.beat("a", age=900, **here | {"host": "a", "pid": os.getpid(), "born": born})
    server.beat("b", age=1, **here | {"host": "b", "pid": os.getpid(), "born": "1"})
    assert server.look() == {"a": ALIVE, "b": DEAD}


def made_up(out, tiles=100):
    """A folder of a run in progress, in shares, that nobody here works on."""
    folder = RunFolder(out)
    folder.journal.mkdir(parents=True)
    columns = {
        field.name: pa.array(
            [""] * tiles if field.type == pa.string() else range(tiles), field.type
        )
        for field in PLAN_SCHEMA
    }
    pq.write_table(pa.table(columns, schema=PLAN_SCHEMA), folder.plan)
    folder.update_run(config_hash="", settings={}, done={}, stages={}, source="x", kind="label")
    return folder


def write_beat(folder, name, **values):
    beat = asdict(Heartbeat(host=name, pid=7, place="elsewhere", started="then"))
    (folder.journal / f"alive-{name}.json").write_text(json.dumps(beat | values))


def test_shares_and_workers_are_summed(tmp_path):
    folder = made_up(tmp_path / "out")
    for shard in range(10):  # of two tiles
        folder.shard_tiles(shard).touch()
    work = {"stage": "segment", "work": "segmenting", "total": 50}
    write_beat(folder, "a", share=[1, 2], done=30, rate=1.0, **work)
    write_beat(folder, "b", share=[2, 2], done=10, rate=4.0, **work)
    made = {"pending": {"ok": 3, "failed": 1}, "pending_failed": {"away": 1}}
    made |= {"made": {"ok": 3, "failed": 3}, "tiles": {"failed": 2}, "failed": {"bad": 2}}
    write_beat(folder, "w", role="worker", parent=7, **made)
    found = status_of(folder)
    assert found.state == RUNNING and found.rate == 5.0 and found.unit == "tiles"
    assert found.seconds_left == 20.0  # of the slower share
    assert found.tiles.done == 24 and found.tiles.failed == 3
    assert found.tiles.failed_reasons == {"bad": 2, "away": 1}
    assert "share 1/2" in words.as_text(found) and "5 tiles a second, 0:20 left" in words.as_text(
        found
    )
    assert "worker 7 on w, since then: 6 tiles; last sign of life" in words.as_text(found)
    os.utime(folder.journal / "alive-a.json", (1, 1))
    found = status_of(folder)
    assert found.seconds_left == 10.0 and "silent" in words.as_text(found)


def test_tiles_that_are_made_again_are_left_although_their_shards_are_there(tmp_path):
    folder = made_up(tmp_path / "out")
    for shard in range(50):
        folder.shard_tiles(shard).touch()
    assert status_of(folder).tiles.done == 100
    write_beat(folder, "a", stage="segment", work="segmenting", done=90, total=100)
    assert status_of(folder).tiles.done == 90


def test_who_is_silent_is_not_called_dead(tmp_path):
    folder = made_up(tmp_path / "out")
    write_beat(folder, "a", command="alps label x out")
    os.utime(folder.journal / "alive-a.json", (1, 1))
    found = status_of(folder)
    assert found.state == QUIET and found.next == ("alps label x out",)
    assert "no sign of life" in words.as_text(found)


def test_files_that_come_and_go_meanwhile_are_no_error(tmp_path):
    folder = made_up(tmp_path / "out")
    is_over = threading.Event()

    def work():
        while not is_over.is_set():
            for shard in range(20):
                folder.shard_tiles(shard).touch()
                write_beat(folder, "a", beat=shard)
            for shard in range(20):
                folder.shard_tiles(shard).unlink()
            folder.update_run(done={})
            (folder.journal / "alive-a.json").unlink()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(60):
            assert 0 <= status_of(folder, is_patient=False).tiles.done <= 40
    finally:
        is_over.set()
        worker.join()


def test_the_journal_of_label_maps_is_counted_by_its_last_lines(tmp_path, monkeypatch):
    journal = tmp_path / "painted.jsonl"
    assert contents.count_painted(journal).sources == 0
    lines = [
        (0, "old", ""),
        (1, "old", ""),
        (0, "new", ""),
        (2, "new", "it is gone"),
        (3, "new", ""),
    ]
    journal.write_text(
        "".join(
            json.dumps({"source_index": index, "of": of, "reason": reason, "pixels": [1]}) + "\n"
            for index, of, reason in lines
        )
        + '{"source_index": 9, "of": "new", "reas'
    )
    found = contents.count_painted(journal)
    assert (found.sources, found.refused, found.is_exact) == (3, 1, True)
    monkeypatch.setattr(contents, "MOST_READ", 100)
    monkeypatch.setattr(contents, "END_READ", 200)
    found = contents.count_painted(journal)
    assert not found.is_exact and 3 <= found.sources <= 8


# --- the command


KEYS = {
    "": {"version", "out", "kind", "state", "stage", "stages", "tiles", "groups", "sources", "rate",
         "seconds_left", "processes", "started", "finished", "stage_seconds", "next", "concerns"},
    "tiles": {"planned", "done", "left", "failed", "failed_reasons"},
    "groups": {"planned", "cut", "clustered"},
    "sources": {"planned", "painted", "unpainted", "is_exact"},
    "rate": {"per_second", "of"},
    "processes": {"host", "pid", "role", "share", "state", "since", "seconds_since_sign",
                  "seconds_since_progress", "stage", "work", "done", "total", "per_second", "tiles",
                  "memory_bytes", "command", "folder", "ended"},
}  # fmt: skip


def test_json_is_of_one_schema(tmp_path):
    folder = made_up(tmp_path / "out")
    write_beat(folder, "a", rate=2.0, done=1, total=9, stage="segment", work="segmenting")
    done = CliRunner().invoke(command, [str(folder.root), "--json"])
    values = json.loads(done.output)
    assert done.exit_code == 0 and values["version"] == 1 and set(values) == KEYS[""]
    for part in ("tiles", "groups", "sources", "rate"):
        assert set(values[part]) == KEYS[part]
    assert set(values["processes"][0]) == KEYS["processes"]
    assert (values["rate"], values["seconds_left"]) == ({"per_second": 2.0, "of": "tiles"}, 4.0)


def test_watch_ends_when_nobody_is_at_work(tmp_path, monkeypatch):
    folder = made_up(tmp_path / "out")
    write_beat(folder, "a", done=1, total=100, stage="segment", work="segmenting")
    looks = iter(range(3))

    def sleep(seconds):
        assert seconds == 0.5
        if next(looks) == 1:
            (folder.journal / "alive-a.json").unlink()

    monkeypatch.setattr("alps.engine.cli.status.time.sleep", sleep)
    done = CliRunner().invoke(command, [str(folder.root), "--watch", "0.5"])
    lines = done.output.splitlines()
    assert len(lines) == 3 and "running, segment" in lines[0] and "stopped" in lines[-1]


def test_watch_draws_anew_on_a_terminal(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    folder, terminal = made_up(tmp_path / "out"), Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    command.main([str(folder.root), "--watch"], standalone_mode=False)
    assert (
        terminal.getvalue().startswith("\x1b[H\x1b[J") and "tiles     0 of" in terminal.getvalue()
    )
