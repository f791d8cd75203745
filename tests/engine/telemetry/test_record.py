"""What a process counts of its own work."""

import threading

import pytest

from alps.engine.telemetry.record import MOST_REASONS, OTHER_REASONS, Recorder, as_given


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def recorder(clock):
    return Recorder(clock)


def row(status="ok", reason="", path="/data/a.tif", **seconds):
    return {"status": status, "reason": reason, "path": path, **seconds}


def test_tiles_count_once_their_shard_is_on_the_disk(recorder):
    recorder.tile(row(read_seconds=1.0))
    recorder.tile(row("failed", "/data/a.tif: cannot be read", read_seconds=0.5))
    seen = recorder.snapshot()
    assert seen.tiles == {} and seen.pending == {"ok": 1, "failed": 1}
    assert seen.failed == {} and seen.pending_failed == {"a file: cannot be read": 1}
    recorder.shard()
    seen = recorder.snapshot()
    assert seen.tiles == {"ok": 1, "failed": 1} and seen.pending == {}
    assert seen.failed == {"a file: cannot be read": 1} and seen.pending_failed == {}
    assert seen.tile_seconds == {"read": 1.5}


def test_a_tile_that_is_made_again_counts_once(recorder):
    failed = row("failed", "/data/a.tif is away")
    recorder.take_over({"ok": 30, "failed": 2}, {"a file is away": 2})
    recorder.again(failed)
    recorder.tile(row())
    recorder.shard()
    seen = recorder.snapshot()
    assert seen.tiles == {"ok": 31, "failed": 1} and seen.failed == {"a file is away": 1}
    recorder.again(failed)
    recorder.again(failed)  # more than anybody counted: of a run of before
    assert recorder.snapshot().failed == {}


def test_reasons_do_not_grow_with_the_archive(recorder):
    for number in range(MOST_REASONS + 5):
        recorder.tile(row("failed", f"reason {number}"))
        recorder.shard()
    failed = recorder.snapshot().failed
    assert len(failed) == MOST_REASONS + 1 and failed[OTHER_REASONS] == 5


def test_the_rate_is_of_the_last_minutes_and_of_this_work(recorder, clock):
    recorder.see("segmenting", 50, 1000)
    assert recorder.snapshot().rate is None
    clock.now += 1000  # the first tile waits for a compiler
    recorder.see("segmenting", 51, 1000)
    for _ in range(400):
        clock.now += 1
        recorder.see("segmenting", recorder.snapshot().done + 2, 1000)
    assert recorder.snapshot().rate == pytest.approx(2.0)
    clock.now += 60
    assert recorder.snapshot().silent == 60 and recorder.snapshot().rate < 2
    recorder.see("cutting", 1, 10)
    assert recorder.snapshot().rate is None and recorder.snapshot().silent == 0
    clock.now += 60
    recorder.tile(row())  # of a worker, whose progress is another's
    assert recorder.snapshot().silent == 0


def test_slow_work_has_a_rate_too(recorder, clock):
    for done in range(4):
        recorder.see("segmenting", done, 100)
        clock.now += 400
    assert recorder.snapshot().rate == pytest.approx(3 / 1600)


def test_seconds_of_stages_add_up_and_the_one_that_goes_on_counts(recorder, clock):
    with recorder.stage("segment"):
        clock.now += 3
    with recorder.stage("paint"):
        clock.now += 2
        seen = recorder.snapshot()
        assert seen.stage == "paint" and seen.stage_seconds == {"segment": 3.0, "paint": 2.0}
    with recorder.stage("segment"):
        clock.now += 4
    clock.now += 100
    assert recorder.snapshot().stage_seconds == {"segment": 7.0, "paint": 2.0}
    recorder.begin()
    assert recorder.snapshot().stage == "" and recorder.snapshot().stage_seconds == {}


def test_threads_lose_no_count(recorder):
    def work():
        for _ in range(500):
            recorder.tile(row())
            recorder.shard()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.snapshot().tiles == {"ok": 2000}


def test_a_command_is_kept_without_passwords():
    given = ["alps", "label", "https://me:secret@host/a.tif?sig=secret", "my out", "s3://b/*?.tif"]
    shown = as_given(given)
    assert "secret" not in shown and "host/a.tif" in shown
    assert "'my out'" in shown and "'s3://b/*?.tif'" in shown
