"""A first look at a GPU, in some twelve minutes of one: is it right, and how fast is it.

    python -m alps.bench.gpu_check OUT
    python -m alps.bench.gpu_check OUT --device cpu --small      # the same code, without one
    python -m alps.bench.gpu_check OUT --device fake             # and what is a GPU's alone

Every step is a process with a limit of its own, keeps what it finds as it finds it, and stops no
other: what crashes, hangs or is not there is a row of the table, which is printed last and lies in
OUT/table.md. Given the same OUT again, steps that are done are left, and others are done again.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from alps.bench.gpu.checks.context import Context, Skipped
from alps.engine.base.atomic import write_text
from alps.engine.base.errors import SettingsError

DONE = ("ok", "skipped")
LEAST_SECONDS = 5.0  # that a step is begun with


@dataclass(frozen=True)
class Step:
    """What is looked at, and for how long at most."""

    name: str
    place: str  # module:function
    seconds: float
    decides: str


ROOM = "alps.bench.gpu.checks."
STEPS = (
    Step("machine", ROOM + "machine:machine", 40, "the ceilings of every share below"),
    Step("compiled", ROOM + "network:compiled", 150, "is this compiler the one that CI saw"),
    Step("right", ROOM + "network:right", 90, "nothing is timed that is wrong"),
    Step("speed", ROOM + "network:speed", 150, "the encoder's and the decoder's form"),
    Step("passes", ROOM + "network:passes", 90, "shapes of the decoder's blocks"),
    Step("attention", ROOM + "network:attention", 40, "which attention"),
    Step("everything", ROOM + "masks:everything", 90, "masks in common"),
    Step("after", ROOM + "masks:after", 90, "what follows the masks, to the bit"),
    Step("clusters", ROOM + "masks:clusters", 40, "k-means beside the memory's speed"),
    Step("label", ROOM + "runs:label", 150, "the goal; the same bytes, however a run went"),
    Step("profile", ROOM + "runs:profile", 60, "what to change next"),
    Step("sanitizer", ROOM + "runs:sanitizer", 240, "races and reads of nothing"),
)


@dataclass(frozen=True)
class Plan:
    """How the steps are run."""

    out: Path
    device: str
    small: bool
    minutes: float


def carry_out(plan: Plan, steps: Sequence[Step], again: bool = False) -> None:
    """Run steps one after the other, each in a process; what is done is left unless ``again``."""
    plan.out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * plan.minutes
    for number, step in enumerate(steps, 1):
        known = read(plan, step)
        if not again and known.get("status") in DONE:
            click.echo(f"{number}/{len(steps)} {step.name}: done before", err=True)
            continue
        left = ends - time.monotonic()
        context = Context(plan.out, step.name, plan.device, plan.small)
        if left < LEAST_SECONDS:
            context.write("not begun", f"the {plan.minutes:g} minutes were over")
        else:
            run_apart(plan, step, context, min(step.seconds, left))
        found = read(plan, step)
        text = f"{found['status']} {found['reason']}".strip()
        click.echo(f"{number}/{len(steps)} {step.name}: {text}", err=True)


def run_apart(plan: Plan, step: Step, context: Context, seconds: float) -> None:
    """A step in a process of its own, which is ended with all that it began when time is up."""
    command = [sys.executable, "-m", __spec__.name if __spec__ else "alps.bench.gpu_check"]
    command += [str(plan.out), "--device", plan.device]
    command += ["--step", f"{step.name}={step.place}"]
    command += ["--small"] if plan.small else []
    context.write("unfinished")
    began = time.monotonic()
    with (plan.out / f"{step.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_all(process)
    found = read(plan, step)
    if found.get("status") == "unfinished":
        context.rows = found["rows"]
        reason = f"no end after {seconds:.0f} s" if code is None else last_line(plan, step, code)
        context.write("failed", reason, time.monotonic() - began)


def end_all(process: "subprocess.Popen[bytes]") -> None:
    """A process and those that it began."""
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(plan: Plan, step: Step, code: int) -> str:
    """What a step said last, and how it ended."""
    text = (plan.out / f"{step.name}.log").read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{how}: {lines[-1][:200]}" if lines else how


def run_step(plan: Plan, step: Step) -> None:
    """A step, in this process."""
    module, function = step.place.split(":")
    context = Context(plan.out, step.name, plan.device, plan.small)
    began = time.monotonic()
    status, reason = "ok", ""
    try:
        with counted() if plan.device == "fake" else nullcontext():
            getattr(import_module(module), function)(context)
    except Skipped as error:
        status, reason = "ok" if context.rows else "skipped", str(error)
    if any(row["value"] == "failed" for row in context.rows):
        status = "partly"
    context.write(status, reason, time.monotonic() - began)


def counted() -> AbstractContextManager[Any]:
    """A card that computes nothing, in this process."""
    from alps.bench.gpu.fake_card import FakeCard  # imports torch, which not every step needs

    return FakeCard.install().counting()


def read(plan: Plan, step: Step) -> dict[str, Any]:
    """What is known of a step; of another device or size: nothing."""
    try:
        found = json.loads((plan.out / f"{step.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    same = isinstance(found, dict) and (found.get("device"), found.get("small")) == (
        plan.device,
        plan.small,
    )
    return found if same else {}


def table(plan: Plan, steps: Sequence[Step]) -> Iterator[str]:
    """Markdown: a section a step."""
    if plan.device == "cpu":
        yield "On a CPU: that the script runs is all that this shows.\n"
    for step in steps:
        found = read(plan, step)
        if not found:
            continue
        reason = f": {found['reason']}" if found["reason"] else ""
        yield f"## {step.name}, {found['status']}{reason}"
        yield f"{step.decides}; {found['seconds']:.0f} s\n"
        if found["rows"]:
            yield "| what | | | |"
            yield "|---|---|---|---|"
        for row in found["rows"]:
            cells = (str(row[name]).replace("|", "/") for name in ("what", "value", "unit", "note"))
            yield f"| {' | '.join(cells)} |"
        yield ""


@click.command(help=__doc__)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--device", default="cuda", show_default=True, help="cuda; or cpu, fake: a trial.")
@click.option("--small", is_flag=True, help="Tiny shapes: the script itself is tried.")
@click.option("--minutes", default=11.0, show_default=True, help="For all steps.")
@click.option("--only", help="Names of steps, with commas between.")
@click.option("--again", is_flag=True, help="Do what is done again.")
@click.option("--step", "one", hidden=True)
def main(
    out: Path, device: str, small: bool, minutes: float, only: str | None, again: bool,
    one: str | None,
) -> None:  # fmt: skip
    """Carry out the steps and print the table."""
    plan = Plan(out, device, small, minutes)
    if one:  # the child's part
        name, _, place = one.partition("=")
        run_step(plan, Step(name, place, 0, ""))
        return
    names = [step.name for step in STEPS]
    wanted = only.split(",") if only else names
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise SettingsError(f"no step {unknown[0]}: give some of {', '.join(names)}")
    if device not in ("cuda", "cpu", "fake"):
        raise SettingsError(f"--device {device}: give cuda, cpu or fake")
    steps = [step for step in STEPS if step.name in wanted]
    carry_out(plan, steps, again)
    text = "\n".join(table(plan, STEPS))
    write_text(out / "table.md", text + "\n")
    click.echo(text)


if __name__ == "__main__":
    main()
