"""A run's status as people read it, and as programs do."""

from collections.abc import Iterator
from typing import Any

from alps.engine.base.progress import format_bytes, format_seconds
from alps.engine.status.processes import ALIVE, DEAD, ENDED, Process
from alps.engine.status.survey import FINISHED, QUIET, RUNNING, STOPPED, Status
from alps.engine.telemetry.record import OF_TILES

# Of the JSON; a change that could break a reader counts it up.
SCHEMA = 1
MOST_REASONS = 5
MOST_PROCESSES = 20
QUIET_SECONDS = 60.0  # without a step forward, and it is said
STATES = {
    RUNNING: "running",
    QUIET: "silent: whoever was at work gives no sign of life",
    FINISHED: "finished",
    STOPPED: "stopped",
}
WIDTH = 10


def as_dict(status: Status) -> dict[str, Any]:
    """Plain values for JSON, by schema ``SCHEMA``."""
    tiles, groups, sources = status.tiles, status.groups, status.sources
    return {
        "version": SCHEMA,
        "out": str(status.out),
        "kind": status.kind,
        "state": status.state,
        "stage": status.stage or None,
        "stages": list(status.stages),
        "tiles": tiles
        and {
            "planned": tiles.planned,
            "done": tiles.done,
            "left": tiles.left,
            "failed": tiles.failed,
            "failed_reasons": tiles.failed_reasons,
        },
        "groups": groups
        and {"planned": groups.planned, "cut": groups.cut, "clustered": groups.clustered},
        "sources": sources
        and {
            "planned": sources.planned,
            "painted": sources.painted,
            "unpainted": sources.unpainted,
            "is_exact": sources.is_exact,
        },
        "rate": status.rate and {"per_second": round(status.rate, 6), "of": status.unit},
        "seconds_left": None if status.seconds_left is None else round(status.seconds_left, 1),
        "processes": [_process_dict(one) for one in status.processes],
        "started": status.run.get("started"),
        "finished": status.run.get("finished"),
        "stage_seconds": status.run.get("stages", {}),
        "next": list(status.next),
        "concerns": list(status.concerns),
    }


def _process_dict(process: Process) -> dict[str, Any]:
    beat = process.beat
    return {
        "host": beat.host,
        "pid": beat.pid,
        "role": beat.role,
        "share": list(beat.share),
        "state": process.state,
        "since": beat.started,
        "seconds_since_sign": round(max(0.0, process.age), 1),
        "seconds_since_progress": round(max(0.0, process.age) + beat.silent, 1),
        "stage": beat.stage or None,
        "work": beat.work,
        "done": beat.done,
        "total": beat.total,
        "per_second": beat.rate,
        "tiles": beat.tiles,
        "memory_bytes": beat.memory_bytes,
        "command": beat.command,
        "folder": beat.folder,
        "ended": beat.ended or None,
    }


def as_text(status: Status) -> str:
    """Lines for a terminal."""
    return "\n".join(f"{name:<{WIDTH}}{text}".rstrip() for name, text in _lines(status))


def as_line(status: Status) -> str:
    """The gist in one line, for a log."""
    tiles = status.tiles
    parts = [STATES[status.state].partition(":")[0], status.stage]
    if tiles is not None:
        parts.append(f"{tiles.done} of {tiles.planned} tiles")
        if tiles.failed:
            parts.append(f"{tiles.failed} failed")
    parts += [
        _work(one) for one in status.processes[:1] if one.state == ALIVE and not _of_tiles(one)
    ]
    parts.append(_pace(status))
    return f"{status.out}: {', '.join(part for part in parts if part)}"


def _lines(status: Status) -> Iterator[tuple[str, str]]:
    kind = {"label": "labelling", "predict": "prediction"}.get(status.kind, status.kind)
    yield f"{status.out}:", f" {kind}, {STATES[status.state]}"
    if status.stage:
        at = status.stages.index(status.stage) + 1 if status.stage in status.stages else 0
        of = f" ({at} of {len(status.stages)}: {', '.join(status.stages)})" if at else ""
        yield "stage", status.stage + of
    yield from _counts(status)
    if pace := _pace(status):
        yield "rate", pace
    for process in status.processes[:MOST_PROCESSES]:
        yield _who(process)
    if (more := len(status.processes) - MOST_PROCESSES) > 0:
        yield "", f"and {more} more"
    if not status.processes and status.stage:
        yield "alive", "nobody"
    for at, command in enumerate(status.next):
        yield ("next" if at == 0 else ""), command
    for at, concern in enumerate(status.concerns):
        yield ("damage" if at == 0 else ""), concern
    if status.concerns:
        yield "", f"alps verify {status.out} looks at every file"


def _counts(status: Status) -> Iterator[tuple[str, str]]:
    tiles, groups, sources = status.tiles, status.groups, status.sources
    if tiles is not None:
        failed = "" if tiles.failed is None else f", {tiles.failed} failed"
        yield (
            "tiles",
            f"{tiles.done} of {tiles.planned} done{_percent(tiles.done, tiles.planned)}{failed}, "
            f"{tiles.left} left",
        )
        for at, (reason, count) in enumerate(list(tiles.failed_reasons.items())[:MOST_REASONS]):
            yield ("failed" if at == 0 else ""), f"{count}: {reason}"
    if groups is not None:
        yield (
            "groups",
            f"{groups.cut} of {groups.planned} cut into regions, {groups.clustered} clustered",
        )
    if sources is not None:
        about = "" if sources.is_exact else "about "
        unpainted = f", {sources.unpainted} cannot be" if sources.unpainted else ""
        yield "sources", f"{about}{sources.painted} of {sources.planned} painted{unpainted}"


def _pace(status: Status) -> str:
    if not status.rate:
        return ""
    left = status.seconds_left
    rest = "time left unknown" if left is None else f"{format_seconds(left)} left of this stage"
    return f"{_rate(status.rate, status.unit)}, {rest}"


def _rate(rate: float, unit: str) -> str:
    speed = (rate, "second") if rate >= 0.1 else (rate * 60, "minute")
    of = "tiles " if unit == "tiles" else ""
    text = f"{speed[0]:.3g} {of}a {speed[1]}"
    return text if of else f"{unit}, {text}"


def _who(process: Process) -> tuple[str, str]:
    beat, age = process.beat, max(0.0, process.age)
    share = f", share {beat.share[0]}/{beat.share[1]}" if beat.share[1] > 1 else ""
    what = "process" if process.is_run else "worker"
    who = f"{what} {beat.pid} on {beat.host}{share}, since {beat.started}"
    work = f": {_work(process)}" if beat.work else ""
    if not process.is_run and beat.made:
        work = f": {sum(beat.made.values())} tiles"
    if process.state == ENDED:
        return "ended", f"{who}{work}; {_ago(age)}: {beat.ended}"
    if process.state == DEAD:
        return (
            "dead",
            f"{who}{work}; last sign of life {_ago(age)}; it was killed, or the machine was",
        )
    stuck = beat.silent + age
    step = f", no step forward for {format_seconds(stuck)}" if stuck >= QUIET_SECONDS else ""
    memory = f", {format_bytes(beat.memory_bytes)}" if beat.memory_bytes else ""
    return process.state, f"{who}{work}; last sign of life {_ago(age)}{step}{memory}"


def _work(process: Process) -> str:
    beat = process.beat
    of = f" of {beat.total}" if beat.total is not None else ""
    return f"{beat.work} {beat.done}{of}" if beat.work else ""


def _of_tiles(process: Process) -> bool:
    return process.beat.work in OF_TILES


def _percent(done: int, planned: int) -> str:
    return f" ({100 * done // planned} %)" if planned else ""


def _ago(seconds: float) -> str:
    return f"{format_seconds(seconds)} ago"
