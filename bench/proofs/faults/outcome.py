"""What became of an attack: survived, a named error, or a fault."""

import signal
from dataclasses import dataclass
from enum import Enum

from alps.bench.proofs.faults.child import Ended
from alps.bench.proofs.faults.ground import Ground, around

# How a command may begin to say what is wrong: ours, and click's of its own options.
NAMED = ("alps: ", "Error: ")
STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


class Verdict(Enum):
    """In the order of the table's columns."""

    SURVIVED = "survived"
    NAMED = "named error"
    FAULT = "FAULT"


@dataclass(frozen=True)
class Outcome:
    """Of one round."""

    verdict: Verdict
    why: str = ""


SURVIVED = Outcome(Verdict.SURVIVED)


def fault(why: str) -> Outcome:
    """One of ours."""
    return Outcome(Verdict.FAULT, why)


def judge(ended: Ended) -> Outcome:
    """Of one command: exit code 0, an error of one line, or a fault."""
    command = ended.arguments[0]
    if ended.code is None:
        return fault(f"{command} hangs ({ended.seconds:.0f} s): {ended.last_line}")
    if ended.code < 0:
        name = signal.Signals(-ended.code).name
        return fault(f"{command} ends by {name}: {ended.last_line}")
    if "Traceback" in ended.said or "Exception ignored" in ended.said:
        return fault(f"{command}: traceback: {ended.last_line}")
    if ended.code == 0:
        return SURVIVED
    if not ended.last_line.startswith(NAMED):
        return fault(f"{command} ends with {ended.code} and no named error: {ended.last_line}")
    return Outcome(Verdict.NAMED, f"{command}: {ended.last_line}")


def judge_place(ground: Ground, before: dict[str, str]) -> Outcome:
    """Whether all outside OUT is as it was ``before``."""
    now = around(ground)
    changed = sorted(
        name for name in before.keys() | now.keys() if before.get(name) != now.get(name)
    )
    return fault(f"outside OUT changed: {', '.join(changed[:3])}") if changed else SURVIVED


def worst(*outcomes: Outcome) -> Outcome:
    """A fault before a named error before what survived; the first of equals."""
    order = [Verdict.FAULT, Verdict.NAMED, Verdict.SURVIVED]
    return min(outcomes, key=lambda outcome: order.index(outcome.verdict))


def with_place(outcome: Outcome, ground: Ground, before: dict[str, str]) -> Outcome:
    """Of an attack, and of all that lies outside OUT, which it must leave as it was ``before``."""
    return worst(outcome, judge_place(ground, before))
