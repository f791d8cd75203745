"""What this process is doing, for Prometheus: one page of text over HTTP, as long as it runs."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from alps.engine.base.errors import SettingsError
from alps.engine.telemetry.heartbeat import WORKER, Heartbeat, heartbeats, is_gone
from alps.engine.telemetry.record import STAGES, recorder

if TYPE_CHECKING:
    from prometheus_client import Metric

LOOPBACK = "127.0.0.1"
MOST_PORT = 65_535


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``PORT``, ``HOST:PORT`` or ``[HOST]:PORT``; the host is loopback by default.

    Raises ValueError.
    """
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not port.isascii() or not port.isdigit() or not 0 < int(port) <= MOST_PORT:
        raise ValueError(f"{text!r} is not of the form PORT or HOST:PORT, 9100 say")
    return host or LOOPBACK, int(port)


@contextmanager
def serving(address: tuple[str, int], out: Callable[[], Path | None]) -> Iterator[None]:
    """Answer ``GET /metrics`` while a command runs.

    Args:
        address: host and port.
        out: tells the run folder, once it is known.

    Raises SettingsError where nobody can listen there, or what it needs is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
    except ImportError as error:
        raise SettingsError(
            "--metrics needs prometheus-client: pip install 'alps-engine[metrics]'"
        ) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(out))
    ProcessCollector(registry=registry)
    host, port = address
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsError(
            f"--metrics {host}:{port}: cannot listen there: {error.strerror or error}; give "
            "another port, or end what uses this one"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Collector:
    """Makes the numbers anew whenever they are asked for; see docs/howto/watching.md."""

    def __init__(self, out: Callable[[], Path | None]) -> None:
        self._out = out
        self._workers: dict[tuple[int, str], Heartbeat] = {}  # as they were seen last

    def collect(self) -> "Iterator[Metric]":
        """All metrics of this process and its workers."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        now, alive = recorder.snapshot(), self._look()
        made, seconds = Counter(now.made), Counter(now.tile_seconds)
        for beat in self._workers.values():  # those that are gone made their tiles too
            made.update(beat.made)
            seconds.update(beat.tile_seconds)

        def gauge(name: str, text: str, value: float) -> "Metric":
            return GaugeMetricFamily(f"alps_{name}", text, value=value)

        def counter(name: str, text: str, label: str, values: Mapping[str, float]) -> "Metric":
            family = CounterMetricFamily(f"alps_{name}", text, labels=[label])
            for key, value in values.items():
                family.add_metric([key], value)
            return family

        about = {"version": _version(), "out": str(self._out() or ""), "command": recorder.command}
        yield InfoMetricFamily("alps_run", "What runs", value=about)
        stages = GaugeMetricFamily("alps_stage", "1 for the stage that goes on", labels=["stage"])
        for stage in STAGES:
            stages.add_metric([stage], float(stage == now.stage))
        yield stages
        yield gauge("tiles_planned", "Tiles of this run, or of this share", now.planned)
        statuses = {status: made[status] for status in ("ok", "empty", "skipped", "failed")}
        yield counter("tiles", "Tiles made since this process began", "status", statuses)
        text = "Seconds of what is done to tiles, over all of them"
        yield counter("tile_seconds", text, "step", dict(seconds))
        text = "Seconds of stages since this process began"
        yield counter("stage_seconds", text, "stage", now.stage_seconds)
        work = GaugeMetricFamily("alps_work_done", "Steps done of what goes on", labels=["work"])
        total = GaugeMetricFamily("alps_work_total", "Steps of what goes on", labels=["work"])
        if now.work:
            work.add_metric([now.work], now.done)
            if now.total is not None:
                total.add_metric([now.work], now.total)
        yield from (work, total)
        yield gauge("workers_alive", "Processes that do the work", len(alive) or 1)
        text = "What workers other than this process have in memory"
        yield gauge("workers_memory_bytes", text, sum(beat.memory_bytes or 0 for beat in alive))
        text = "When work went on last, as Unix time"
        yield gauge("last_progress_timestamp_seconds", text, time.time() - now.silent)

    def _look(self) -> list[Heartbeat]:
        """Workers of this process that are alive."""
        out = self._out()
        beats = heartbeats(out / "journal") if out is not None else []
        own = [b for _, b in beats if b.role == WORKER and b.parent == os.getpid()]
        here = [beat for beat in own if is_gone(beat) is False]
        self._workers.update({(beat.pid, beat.born): beat for beat in here})
        return here


def _version() -> str:
    try:
        return version("alps-engine")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"
