"""Attack run folders and archives, and print what became of them.

    python -m alps.bench.proofs.faults WORK                  # a minute
    python -m alps.bench.proofs.faults WORK --minutes 60     # an hour
    python -m alps.bench.proofs.faults WORK --only kill:17   # one round again

WORK must be new. Rounds are drawn by a seed; the same seed gives the same attacks, but for the
moment at which a signal finds a program. The exit code is 1 where there was a fault.
"""

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from alps.bench.proofs.faults import damage, hostile, kill, noise
from alps.bench.proofs.faults.attack import Suite
from alps.bench.proofs.faults.ground import Ground, make_ground
from alps.bench.proofs.faults.outcome import Verdict, fault
from alps.bench.proofs.faults.table import Round, markdown

SUITES: dict[str, Suite] = {
    "kill": kill.draw,
    "damage": damage.draw,
    "noise": noise.draw,
    "hostile": hostile.draw,
}


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--rounds", default=5, show_default=True, help="Of each suite.")
@click.option("--minutes", type=float, help="Go on for so long instead.")
@click.option("--seed", default=0, show_default=True)
@click.option("--suite", "names", multiple=True, type=click.Choice(list(SUITES)))
@click.option("--only", help="One round alone: its suite, a colon, its number.")
@click.option("--table", type=click.Path(path_type=Path), help="Write the table to this file too.")
def main(
    work: Path,
    rounds: int,
    minutes: float | None,
    seed: int,
    names: tuple[str, ...],
    only: str | None,
    table: Path | None,
) -> None:
    """Print a table of rounds, survived, named errors and faults, and each fault by name."""
    if work.exists():
        raise click.UsageError(f"{work} is there already; name a new folder")
    ground = make_ground(work)
    done = []
    until = None if minutes is None else time.monotonic() + 60 * minutes
    for name, number in _numbers(names or tuple(SUITES), rounds, until, only):
        one = _round(ground, name, number, seed)
        done.append(one)
        if one.outcome.verdict is Verdict.FAULT or only:
            click.echo(f"{one.suite}:{one.number}, {one.attack}: {one.outcome.why}", err=True)
    text = markdown(done)
    click.echo(text)
    if table is not None:
        table.write_text(text + "\n", encoding="utf-8")
    sys.exit(any(one.outcome.verdict is Verdict.FAULT for one in done))


def _numbers(
    names: tuple[str, ...], rounds: int, until: float | None, only: str | None
) -> Iterator[tuple[str, int]]:
    """Suites in turn, and the number of the round in each."""
    if only:
        suite, _, drawn = only.partition(":")
        yield suite, int(drawn)
        return
    number = 0
    while number < rounds if until is None else time.monotonic() < until:
        for name in names:
            yield name, number
        number += 1


def _round(ground: Ground, name: str, number: int, seed: int) -> Round:
    attack = SUITES[name](ground, random.Random(f"{seed} {name} {number}"))
    try:
        outcome = attack.carry_out()
    except AssertionError as error:
        outcome = fault(str(error))
    return Round(name, number, attack.row, attack.name, outcome)


if __name__ == "__main__":
    main()
