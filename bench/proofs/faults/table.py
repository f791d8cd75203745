"""The table of rounds: what was attacked, and what became of it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from alps.bench.proofs.faults.outcome import Outcome, Verdict


@dataclass(frozen=True)
class Round:
    """One attack that was carried out."""

    suite: str
    number: int
    row: str
    attack: str
    outcome: Outcome


def markdown(rounds: Iterable[Round]) -> str:
    """A row for each kind of attack, and a sum; then a line for each fault."""
    rounds = list(rounds)
    counts = Counter((one.suite, one.row, one.outcome.verdict) for one in rounds)
    kinds = sorted({(one.suite, one.row) for one in rounds}, key=lambda kind: kind)
    lines = [
        "| attack | on | rounds | survived | named error | fault |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for suite, row in kinds:
        found = [counts[suite, row, verdict] for verdict in Verdict]
        numbers = " | ".join(str(number) for number in (sum(found), *found))
        lines.append(f"| {suite} | `{row}` | {numbers} |")
    found = [sum(one.outcome.verdict is verdict for one in rounds) for verdict in Verdict]
    lines.append(f"| all | | {' | '.join(str(number) for number in (sum(found), *found))} |")
    faults = [one for one in rounds if one.outcome.verdict is Verdict.FAULT]
    if faults:
        lines += [
            "",
            *(f"- {one.suite}:{one.number}, {one.attack}: {one.outcome.why}" for one in faults),
        ]
    return "\n".join(lines)
