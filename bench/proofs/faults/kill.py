"""Stops: a command is ended by signals at random moments, again and again, then goes on to the end.

Survived is a run whose files end with the bytes of one that nobody disturbed.
"""

import random
import signal
from functools import cache, partial
from pathlib import Path

from alps.bench.proofs.faults.attack import Attack
from alps.bench.proofs.faults.child import Limits
from alps.bench.proofs.faults.ground import Ground
from alps.bench.proofs.faults.outcome import STOPPED, SURVIVED, Outcome, fault, judge
from alps.bench.proofs.kill_resume import results

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MOST_STOPS = 4
LONGEST = 3.0  # seconds; about what the longest command takes


def draw(ground: Ground, rng: random.Random) -> Attack:
    """A command, a signal, and the moments at which it comes."""
    command = rng.choice(["label", "label", "one pass", "cluster", "paint"])
    number = rng.choice(SIGNALS)
    stops = [rng.uniform(0.15, 1.0) ** 2 * LONGEST for _ in range(rng.randint(1, MOST_STOPS))]
    carry_out = partial(_stopped, ground, command, number, stops)
    times = ", ".join(f"{moment:.2f}" for moment in stops)
    return Attack(f"{signal.Signals(number).name}", f"{command}, after {times} s", carry_out)


def _stopped(ground: Ground, command: str, number: int, stops: list[float]) -> Outcome:
    wanted = _results_of(ground, command)
    arguments = _begin(ground, command)
    for moment in stops:
        ended = ground.alps(*arguments, limits=Limits(signals=[(moment, number)]))
        if ended.code == 0:
            break
        if ended.code == -signal.SIGKILL == -number:
            continue
        stopped = STOPPED.get(signal.Signals(number))
        # Before it listens, or at its very end, a program ends as the system ends it.
        if ended.code not in (stopped, -number):
            return fault(f"{command} ends with {ended.code}: {ended.last_line}")
        if "Traceback" in ended.said:
            return fault(f"{command}: traceback: {ended.last_line}")
    last = ground.alps(*arguments)
    if last.code != 0:
        outcome = judge(last)
        return fault(f"does not go on: {outcome.why}")
    found = results(ground.out)
    differing = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )
    return fault(f"other bytes: {', '.join(differing[:3])}") if differing else SURVIVED


def _begin(ground: Ground, command: str) -> list[str | Path]:
    """Restore what a command begins with; returns the command."""
    ground.restore(finished=command in ("cluster", "paint"))
    if command == "label":
        return ground.label_command()
    if command == "one pass":
        return [*ground.one_pass_command(ground.clusters), "--keep-segments"]
    cluster, _ = ground.again()
    return cluster if command == "cluster" else ["paint", ground.out, "--min-patch", "5"]


@cache
def _results_of(ground: Ground, command: str) -> dict[str, bytes]:
    """What a command leaves that nobody disturbs."""
    ended = ground.alps(*_begin(ground, command))
    if ended.code != 0:
        raise SystemExit(f"the undisturbed {command} failed: {ended.said}")
    return results(ground.out)
