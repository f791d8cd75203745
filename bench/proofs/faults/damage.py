"""Damage: one file of a finished run is spoilt, then a command that may need it is given.

Survived is a command that ends with the label maps of an undamaged run, the file repaired or not
needed; what is left damaged, `alps verify` must name.
"""

import os
import random
import stat
from functools import cache, partial
from pathlib import Path

from alps.bench.proofs.faults.attack import Attack
from alps.bench.proofs.faults.ground import Ground, around, label_maps
from alps.bench.proofs.faults.outcome import SURVIVED, Outcome, Verdict, fault, judge, with_place
from alps.bench.proofs.faults.spoil import DAMAGES, OTHERS, spoil

# Made anew by every command, or of no content.
NO_RESULTS = ("journal/lock", "report/index.html")
# Change while a run goes on: no checksum is kept of them, their content is checked when it is read.
UNSUMMED = ("run.json", "journal/stamps.parquet")
COMMANDS = ("label", "again", "report", "verify", "repair")


def draw(ground: Ground, rng: random.Random) -> Attack:
    """A file, what is done to it, and what follows."""
    out = ground.base / "out"
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    by_kind: dict[str, list[str]] = {}
    for name in names:
        if name not in NO_RESULTS:
            by_kind.setdefault(kind_of(name), []).append(name)
    kind = rng.choice(sorted(by_kind))
    name, command = rng.choice(by_kind[kind]), rng.choice(COMMANDS)
    how = rng.choice([*(damage.__name__ for damage in DAMAGES), *OTHERS])
    carry_out = partial(_damaged, ground, name, how, command, rng.random())
    return Attack(kind, f"{name} {how}, then {command}", carry_out)


def kind_of(name: str) -> str:
    """A file's kind: its name without numbers and names of sources."""
    room, _, rest = name.partition("/")
    if room in ("labels", "objects"):
        return f"{room}/*{Path(name).suffix}"
    if rest.startswith("rasters/"):
        return "regions/rasters/*"
    return name if "-0" not in rest else f"{room}/{rest.partition('-0')[0]}-*"


def _damaged(ground: Ground, name: str, how: str, command: str, seed: float) -> Outcome:
    wanted = _label_maps_again(ground) if command == "again" else label_maps(ground.base / "out")
    ground.restore()
    before, path = around(ground), ground.out / name
    right = _state(path)
    spoil(path, how, random.Random(seed), ground.victim)
    # Vectors are made anew where they are needed; who keeps a run for long may do without.
    is_harmless = _state(path) == right or (name.startswith("vectors/") and not path.exists())
    damaged = None if is_harmless else _state(path)
    return with_place(_follow(ground, name, command, wanted, damaged), ground, before)


def _state(path: Path) -> tuple[int, bytes]:
    """What lies under a name: its kind, and the bytes of a file."""
    if not os.path.lexists(path):
        return 0, b""
    kind = stat.S_IFMT(path.lstat().st_mode)
    return kind, path.read_bytes() if stat.S_ISREG(kind) else b""


def _follow(
    ground: Ground,
    name: str,
    command: str,
    wanted: dict[str, bytes],
    damaged: tuple[int, bytes] | None,
) -> Outcome:
    if command == "verify":
        return SURVIVED if damaged is None else _must_name(ground, name)
    steps: dict[str, list[list[str | Path]]] = {
        "label": [ground.label_command()],
        "again": ground.again(),
        "report": [["report", ground.out]],
        "repair": [["verify", ground.out, "--repair"], ground.label_command()],
    }
    for step in steps[command]:
        outcome = judge(ground.alps(*step))
        is_find = command == "repair" and step[0] == "verify"
        if outcome.verdict is Verdict.FAULT or (outcome.verdict is Verdict.NAMED and not is_find):
            return outcome
    if command != "report" and label_maps(ground.out) != wanted:
        return fault(f"{command} ends with 0 and other label maps")
    if command in ("label", "repair") and _state(ground.out / name) == damaged:
        found = _must_name(ground, name)  # nobody needed it
        return found if found.verdict is Verdict.FAULT else SURVIVED
    return SURVIVED


def _must_name(ground: Ground, name: str) -> Outcome:
    """`alps verify` of a file that is not as it was."""
    outcome = judge(ground.alps("verify", ground.out))
    if outcome.verdict is Verdict.SURVIVED and name not in UNSUMMED and _matters(name):
        return fault(f"{name} is damaged, and verify does not see it")
    return outcome


def _matters(name: str) -> bool:
    """Journals are lines: those that are gone or damaged are work that is done again."""
    return not (name.startswith("journal/") and name.endswith(".jsonl"))


@cache
def _label_maps_again(ground: Ground) -> dict[str, bytes]:
    """Those of other clusters, of a run that nobody damaged."""
    ground.restore()
    for step in ground.again():
        ended = ground.alps(*step)
        if ended.code != 0:
            raise SystemExit(f"the undamaged {step[0]} failed: {ended.said}")
    return label_maps(ground.out)
