"""Try mutants of rooms in a copy of the checkout; print a line for each and a summary a room."""

import json
import random
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from alps.bench.proofs.mutants import Mutant, MutantError, mutants_of, rooms
from alps.bench.proofs.mutants.trial import ERROR, NOTICED, SURVIVED, Copy, Verdict
from alps.engine.base.atomic import write_text

CHECKOUT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Listed:
    """A mutant and where it stands in its list."""

    room: str
    number: int  # from 1
    mutant: Mutant


class Results:
    """Verdicts by mutants' digests, kept in a file so that a run can go on."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._rows: dict[str, dict] = {}
        if path is not None and path.exists():
            self._rows = json.loads(path.read_text(encoding="utf-8"))

    def get(self, digest: str) -> Verdict | None:
        """The verdict on a mutant of which nothing has changed; None: not tried, or an error."""
        row = self._rows.get(digest)
        if row is None or row["outcome"] == ERROR:
            return None
        return Verdict(row["outcome"], row["detail"], row["seconds"])

    def put(self, digest: str, listed: Listed, verdict: Verdict) -> None:
        """Remember a verdict, at once."""
        row = {"room": listed.room, "number": listed.number, "path": listed.mutant.path}
        self._rows[digest] = row | {"why": listed.mutant.why} | asdict(verdict)
        if self._path is not None:
            write_text(self._path, json.dumps(self._rows, indent=1) + "\n")


def chosen(names: tuple[str, ...], only: tuple[int, ...], limit: int | None, seed: int) -> list:
    """Mutants of rooms: all, or those with these numbers; of these ``limit`` drawn by the seed."""
    listed = [
        Listed(room, number, mutant)
        for room in names or rooms()
        for number, mutant in enumerate(mutants_of(room), 1)
        if not only or number in only
    ]
    if limit is not None and limit < len(listed):
        places = sorted(random.Random(seed).sample(range(len(listed)), limit))
        listed = [listed[place] for place in places]
    return listed


def try_all(listed: list[Listed], copy: Copy, results: Results, timeout: float) -> list[Verdict]:
    """Verdicts in order; those that the results hold already are not tried again.

    Raises:
        MutantError: the tests fail without any change.
    """
    digests: list[str | None] = []
    for one in listed:
        try:
            one.mutant.applied(copy.root)
            digests.append(one.mutant.digest(copy.root))
        except MutantError:
            digests.append(None)
    new = [o for o, d in zip(listed, digests, strict=True) if d and results.get(d) is None]
    if new:
        tests = sorted({test for one in new for test in one.mutant.tests})
        baseline = copy.run(tests, timeout * len(tests))
        if baseline.outcome != SURVIVED:
            raise MutantError(
                f"the tests fail without any change: {baseline.detail}. Mend them first"
            )
        click.echo(f"{len(tests)} tests or files of tests pass in {baseline.seconds:.0f} s")
    verdicts = []
    for one, digest in zip(listed, digests, strict=True):
        verdict = results.get(digest) if digest else None
        if verdict is None:
            verdict = copy.try_(one.mutant, timeout)
            if digest:
                results.put(digest, one, verdict)
        verdicts.append(verdict)
        click.echo(
            f"{one.room} {one.number:3}  {verdict.outcome:8}  {verdict.seconds:5.1f} s  "
            f"{one.mutant.path}: {one.mutant.why}"
            + (f"  [{verdict.detail}]" if verdict.detail else "")
        )
    return verdicts


@click.command()
@click.argument("names", metavar="[ROOM ...]", nargs=-1)
@click.option("--only", type=int, multiple=True, help="The mutant with this number; repeatable.")
@click.option("--limit", type=click.IntRange(1), help="So many, drawn by the seed.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Verdicts; a run goes on.")
@click.option(
    "--timeout", default=300.0, show_default=True, help="Seconds a mutant's tests may take."
)
@click.option("--least", default=90.0, show_default=True, help="Per cent that must be noticed.")
def main(
    names: tuple[str, ...],
    only: tuple[int, ...],
    limit: int | None,
    seed: int,
    file: Path | None,
    timeout: float,
    least: float,
) -> None:
    """Make small wrong changes, one at a time, and see whether tests fail. No ROOM: all."""
    try:
        listed = chosen(names, only, limit, seed)
        with tempfile.TemporaryDirectory(prefix="alps-mutants-") as folder:
            copy = Copy(CHECKOUT, Path(folder))
            verdicts = try_all(listed, copy, Results(file), timeout)
    except MutantError as error:
        raise click.ClickException(str(error)) from error
    good = True
    for room in dict.fromkeys(one.room for one in listed):
        pairs = zip(listed, verdicts, strict=True)
        count = Counter(verdict.outcome for one, verdict in pairs if one.room == room)
        tried = count[NOTICED] + count[SURVIVED]
        share = 100 * count[NOTICED] / max(tried, 1)
        click.echo(
            f"{room}: {count[NOTICED]} of {tried} noticed ({share:.1f} %), "
            f"{count[SURVIVED]} survived, {count[ERROR]} in error"
        )
        good = good and share >= least and count[ERROR] == 0
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
