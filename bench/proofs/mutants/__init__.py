"""Small wrong changes of the code, and whether the tests notice them.

    python -m alps.bench.proofs.mutants [ROOM ...] [--only N] [--limit N] [--json FILE]

Each room has a list beside this file, ``kernels.toml`` say, or a folder of such lists: groups of
changes of one file that the same tests should notice. A mutant is what a hand may do by accident:
a limit one too far, axes swapped, a check left out. The tests that it names must fail with it.
"""

import hashlib
import tomllib
from dataclasses import astuple, dataclass
from pathlib import Path


class MutantError(Exception):
    """A mutant that cannot be tried: its text is not found, or not once; or a test is not there."""


@dataclass(frozen=True)
class Mutant:
    """One wrong change."""

    path: str  # of a file, from the root of the checkout
    old: str  # occurs exactly once in it
    new: str
    tests: tuple[str, ...]  # arguments of pytest, from the root of the checkout
    why: str  # what is wrong then, in a few words

    def applied(self, root: Path) -> str:
        """The text of the file with the change.

        Raises:
            MutantError: the file or a test is not there; the old text is not found exactly once,
                or the new one is the same.
        """
        if not (root / self.path).is_file():
            raise MutantError(f"{self.path} is not there")
        for test in self.tests:
            if not (root / test.split("::")[0]).exists():
                raise MutantError(f"the test {test} is not there")
        if not self.tests:
            raise MutantError("it names no test")
        text = (root / self.path).read_text(encoding="utf-8")
        times = text.count(self.old) if self.old else 0
        if times != 1:
            found = "not found" if times == 0 else f"found {times} times"
            raise MutantError(f"old text {found} in {self.path}: {self.old!r}")
        if self.old == self.new:
            raise MutantError(f"the change of {self.path} changes nothing: {self.old!r}")
        return text.replace(self.old, self.new)

    def digest(self, root: Path) -> str:
        """Of the change, the file it is made to, and the tests' files: 16 hexadecimal digits."""
        digest = hashlib.sha256(repr(astuple(self)).encode())
        for name in (self.path, *self.tests):
            path = root / name.split("::")[0]
            files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
            for file in files:
                digest.update(file.read_bytes())
        return digest.hexdigest()[:16]


def rooms() -> list[str]:
    """The rooms that have a list of mutants."""
    return sorted(set(map(_room_of, _lists())))


def mutants_of(room: str) -> list[Mutant]:
    """The mutants of a room, in the order of its list, or of its lists' names.

    Raises:
        MutantError: the room has no list, or one that is none.
    """
    if room not in rooms():
        raise MutantError(f"{room!r} has no list of mutants; those that have: {', '.join(rooms())}")
    return [mutant for path in _lists() if _room_of(path) == room for mutant in _read(path)]


def _lists() -> list[Path]:
    return sorted(LISTS.rglob("*.toml"))


def _room_of(path: Path) -> str:
    return path.relative_to(LISTS).parts[0].removesuffix(".toml")


def _read(path: Path) -> list[Mutant]:
    try:
        groups = tomllib.loads(path.read_text(encoding="utf-8"))["group"]
        return [
            Mutant(group["file"], one["old"], one["new"], tuple(group["tests"]), one["why"])
            for group in groups
            for one in group["change"]
        ]
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise MutantError(f"{path.name} is no list of mutants: {error!r}") from error


LISTS = Path(__file__).parent
