"""What Prometheus is told of a run, scraped as it does."""

import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from small_runs import draw

from alps.engine.base.errors import SettingsError
from alps.engine.base.progress import watched
from alps.engine.cli import commands as cli
from alps.engine.telemetry import heartbeat
from alps.engine.telemetry.heartbeat import beating, heartbeats
from alps.engine.telemetry.metrics import parse_address, serving
from alps.engine.telemetry.record import recorder
from alps.trainer.predict.command import predict


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def scrape(port):
    """Values by name and labels, as Prometheus' own parser reads them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def refused(address, why):
    with pytest.raises(SettingsError, match=why), serving(address, lambda: None):
        pass


def row(status, **seconds):
    return {"status": status, "reason": "x", "path": "/a.tif", **seconds}


def test_what_is_counted_is_told(tmp_path):
    port = free_port()
    with serving(("127.0.0.1", port), lambda: tmp_path):
        (tmp_path / "journal").mkdir()
        with beating(tmp_path / "journal"), recorder.stage("segment"):
            recorder.see("segmenting", 3, 40)
            recorder.tile(row("ok", read_seconds=0.25))
            recorder.tile(row("failed", read_seconds=0.5))
            recorder.take_over({"ok": 99}, {})  # of an earlier process, which told of it itself
            found = scrape(port)
    assert found["alps_tiles_total", "ok"] == 1 and found["alps_tiles_total", "failed"] == 1
    assert found["alps_tiles_total", "empty"] == found["alps_tiles_total", "skipped"] == 0
    assert found["alps_tiles_planned",] == 40 and found["alps_tile_seconds_total", "read"] == 0.75
    assert found["alps_stage", "segment"] == 1 and found["alps_stage", "paint"] == 0
    assert found["alps_stage_seconds_total", "segment"] > 0
    assert found["alps_work_done", "segmenting"] == 3
    assert found["alps_work_total", "segmenting"] == 40
    assert abs(found["alps_last_progress_timestamp_seconds",] - time.time()) < 30
    assert found["process_resident_memory_bytes",] > 1 << 20
    assert found["alps_workers_alive",] == 1


def test_tiles_of_workers_are_counted_also_of_one_that_is_gone(tmp_path):
    port, journal = free_port(), tmp_path / "journal"
    journal.mkdir()
    with serving(("127.0.0.1", port), lambda: tmp_path), beating(journal):
        ((path, _),) = heartbeats(journal)
        values = json.loads(path.read_text())
        # As of another process that works for this one: one that is alive.
        values |= {"role": "worker", "parent": os.getpid(), "made": {"ok": 5}, "memory_bytes": 7}
        (journal / "alive-a-1.json").write_text(json.dumps(values))
        strange = values | {"parent": 1, "made": {"ok": 100}}
        (journal / "alive-b-2.json").write_text(json.dumps(strange))
        recorder.tile(row("ok"))
        assert scrape(port)["alps_tiles_total", "ok"] == 6
        assert scrape(port)["alps_workers_memory_bytes",] == 7
        (journal / "alive-a-1.json").unlink()
        assert scrape(port)["alps_tiles_total", "ok"] == 6
        assert scrape(port)["alps_workers_memory_bytes",] == 0


def test_it_ends_with_the_run(tmp_path):
    port = free_port()
    before = threading.active_count()
    with serving(("127.0.0.1", port), lambda: None):
        scrape(port)
    assert threading.active_count() == before
    with pytest.raises(urllib.error.URLError):
        scrape(port)
    with serving(("127.0.0.1", port), lambda: None):  # the port is free again
        scrape(port)


def test_a_port_that_is_taken_is_said_at_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(("127.0.0.1", port), f"127.0.0.1:{port}: cannot listen there")
        done = CliRunner().invoke(cli.label, ["no images", str(tmp_path), "--metrics", str(port)])
    assert isinstance(done.exception, SettingsError) and "cannot listen" in str(done.exception)
    refused(("no.such.host.invalid", 9100), "cannot listen there")


def test_without_the_library_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    refused(("127.0.0.1", free_port()), r"alps-engine\[metrics\]")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9100", ("127.0.0.1", 9100)),
        (":9100", ("127.0.0.1", 9100)),
        ("0.0.0.0:9100", ("0.0.0.0", 9100)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "host:", "-1", "1.5", "９100"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="9100 say"):
        parse_address(text)
    assert CliRunner().invoke(cli.segment, ["a", "b", "--metrics", text]).exit_code == 2


@pytest.mark.usefixtures("one_thread")
def test_a_run_is_scraped_while_it_lasts(tmp_path, speck, monkeypatch):
    images, out, port = tmp_path / "images", tmp_path / "out", free_port()
    images.mkdir()
    for seed in range(3):
        draw(images / f"{seed}.png", seed)
    (images / "x.png").write_bytes(b"junk")
    monkeypatch.setattr(heartbeat, "EVERY_SECONDS", 0.01)
    found = []
    arguments = [str(images), str(out), "--model", str(speck), "--device", "cpu"]
    arguments += ["--max-failed", "1", "--metrics", str(port)]
    with watched(lambda work, done, total: found.append((work, done, scrape(port)))):
        done = CliRunner().invoke(cli.segment, arguments)
    assert done.exit_code == 0, done.output
    last = next(values for work, count, values in found[::-1] if (work, count) == ("segmenting", 4))
    assert last["alps_tiles_total", "failed"] == 1 and last["alps_tiles_planned",] == 4
    made = sum(last["alps_tiles_total", name] for name in ("ok", "empty", "failed"))
    assert made == 4 and last["alps_stage", "segment"] == 1
    with pytest.raises(urllib.error.URLError):
        scrape(port)


def test_commands_of_hours_have_it():
    for command in (cli.label, cli.segment, predict):
        assert "metrics" in {option.name for option in command.params}
