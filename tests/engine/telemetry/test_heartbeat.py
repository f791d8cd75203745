"""Signs of life of processes at work."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alps.engine.base.errors import SettingsError
from alps.engine.telemetry import heartbeat
from alps.engine.telemetry.heartbeat import (
    MOST_BYTES,
    MOST_REASONS,
    beating,
    commonest,
    heartbeats,
    is_gone,
)
from alps.engine.telemetry.record import OTHER_REASONS, recorder


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(heartbeat, "EVERY_SECONDS", 0.02)


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def tile(status="ok", reason=""):
    recorder.tile({"status": status, "reason": reason, "path": "/a.tif"})


def test_it_is_there_while_a_process_works_and_says_what_it_does(tmp_path, quick):
    with beating(tmp_path, (1, 3)):
        ((_, first),) = heartbeats(tmp_path)
        assert first.pid == os.getpid() and first.share == (2, 3) and is_gone(first) is False
        with recorder.stage("segment"):
            tile("failed", "/a.tif is away")
            recorder.shard()
            tile()
            recorder.see("segmenting", 2, 9)
            until(lambda: heartbeats(tmp_path)[0][1].pending == {"ok": 1})
        beat = heartbeats(tmp_path)[0][1]
        assert (beat.stage, beat.work, beat.done, beat.total) == ("segment", "segmenting", 2, 9)
        assert beat.tiles == {"failed": 1} and beat.failed == {"a file is away": 1}
        assert beat.beat > first.beat and beat.memory_bytes > 1 << 20 and not beat.ended
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (SettingsError("no room; give more"), "no room; give more"),
        (ValueError("private"), "a fault of this program: ValueError"),
    ],
)
def test_what_ended_a_process_is_left_to_be_told(tmp_path, error, words):
    with pytest.raises(type(error)), beating(tmp_path), recorder.stage("segment"):
        raise error
    ((_, beat),) = heartbeats(tmp_path)
    assert beat.ended == words and beat.stage == "segment"


def test_nothing_is_left_of_what_had_not_begun(tmp_path):
    with pytest.raises(SettingsError), beating(tmp_path):
        raise SettingsError("no such option")
    assert list(tmp_path.iterdir()) == []


def test_who_comes_next_takes_over_what_was_counted(tmp_path):
    def stopped(share):
        with pytest.raises(KeyboardInterrupt), beating(tmp_path, share), recorder.stage("segment"):
            tile("failed", "bad")
            tile()
            recorder.shard()
            tile()  # of a shard that never was on the disk
            raise KeyboardInterrupt
        (path,) = tmp_path.glob(f"alive-*-{os.getpid()}.json")
        path.rename(path.with_name(f"alive-gone-{share[0]}.json"))

    stopped((0, 2))
    stopped((1, 2))
    with beating(tmp_path, (1, 2)):
        assert recorder.snapshot().tiles == {"ok": 1, "failed": 1}
        assert recorder.snapshot().failed == {"bad": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["alive-gone-0.json"]
    stopped((1, 2))
    with beating(tmp_path):  # of the whole
        assert recorder.snapshot().tiles == {"ok": 2, "failed": 2}
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_is_told_from_one_at_work(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from alps.engine.telemetry.heartbeat import beating\n"
        "with beating(Path(sys.argv[1])): print('on', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"on\n"
        ((path, beat),) = heartbeats(tmp_path)
        assert beat.pid == process.pid and is_gone(beat) is False
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert path.exists() and is_gone(beat) is True
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"pid": os.getpid()}))  # the number is another's by now
    assert is_gone(heartbeats(tmp_path)[0][1]) is True
    path.write_text(json.dumps(values | {"place": "another machine"}))
    assert is_gone(heartbeats(tmp_path)[0][1]) is None


def test_a_disk_that_is_full_stops_no_run(tmp_path, quick, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    with beating(tmp_path):
        monkeypatch.setattr(Path, "replace", full)
        time.sleep(0.1)
        monkeypatch.undo()


@pytest.mark.parametrize("text", ["", "{", '{"host": 1, "pid": 2}', "[]", " " * (MOST_BYTES + 9)])
def test_what_is_no_sign_of_life_is_passed_over(tmp_path, text):
    (tmp_path / "alive-x-1.json").write_text(text)
    os.mkfifo(tmp_path / "alive-x-2.json")
    (tmp_path / "alive-x-3.json").symlink_to("nowhere")
    assert heartbeats(tmp_path) == [] and heartbeats(tmp_path / "no") == []


def test_reasons_are_few_and_short():
    failed = {f"reason {number}": number + 1 for number in range(MOST_REASONS + 3)}
    found = commonest(failed | {"long " * 999: 99})
    assert len(found) == MOST_REASONS + 1 and sum(found.values()) == sum(failed.values()) + 99
    assert found[OTHER_REASONS] == 1 + 2 + 3 + 4 and max(map(len, found)) < 310
