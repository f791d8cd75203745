"""Small wrong changes of the code, and whether the tests notice them.

    python -m alps.bench.proofs.mutants [ROOM ...] [--only N] [--limit N] [--json FILE]

Each room has a module beside this file, ``kernels`` say, of one list: ``MUTANTS``. A mutant is
what a hand may do by accident: a limit one too far, axes swapped, a check left out. The tests that
it names must fail with it.
"""

import hashlib
import importlib
import pkgutil
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


def changes_of(path: str, tests: tuple[str, ...], *changes: tuple[str, str, str]) -> list[Mutant]:
    """Mutants of one file that the same tests should notice: old text, new text, what is wrong."""
    return [Mutant(path, old, new, tests, why) for old, new, why in changes]


def rooms() -> list[str]:
    """The rooms that have a list of mutants."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in TOOLS)


def mutants_of(room: str) -> list[Mutant]:
    """The mutants of a room, in the order of its list.

    Raises:
        MutantError: the room has no list.
    """
    if room not in rooms():
        raise MutantError(f"{room!r} has no list of mutants; those that have: {', '.join(rooms())}")
    return importlib.import_module(f"{__name__}.{room}").MUTANTS


TOOLS = ("__main__", "trial")
