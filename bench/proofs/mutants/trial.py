"""A copy of the checkout in which mutants are tried, one at a time."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alps.bench.proofs.mutants import Mutant, MutantError

NOTICED, SURVIVED, ERROR = "noticed", "SURVIVED", "error"
# pytest's exit codes: tests failed; interrupted, as by a module that cannot be imported.
FAILED, INTERRUPTED = 1, 2
# Data that lies beside a checkout; tests that need it skip without.
BESIDE = "shared"


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant."""

    outcome: str  # NOTICED, SURVIVED or ERROR
    detail: str  # the first test that failed, or what went wrong
    seconds: float


class Copy:
    """A copy of a checkout's files, with a package view: ``alps`` of links to the rooms."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        """Copy what git tracks or would track into ``folder``, which must be empty.

        Raises:
            MutantError: git cannot list the files.
        """
        self.root = folder / "checkout"
        for name in _files(checkout):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, self.root / name)
        if (checkout.parent / BESIDE).is_dir():
            (folder / BESIDE).symlink_to((checkout.parent / BESIDE).resolve())
        self._view = folder / "packages"
        package = self._view / "alps"
        package.mkdir(parents=True)
        for init in self.root.glob("*/__init__.py"):
            (package / init.parent.name).symlink_to(init.parent)
        for file in (self.root / "engine" / "public").glob("*"):
            (package / file.name).symlink_to(file)

    def run(self, tests: Iterable[str], timeout: float) -> Verdict:
        """Run tests until the first failure: SURVIVED where all pass."""
        environment = {n: v for n, v in os.environ.items() if n != "NUMBA_CACHE_DIR"}
        environment |= {"PYTHONPATH": str(self._view), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        start = time.monotonic()
        process = subprocess.Popen(
            [*command, *tests],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that what a hanging test has started ends with it
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            return Verdict(NOTICED, f"not done after {timeout:.0f} s", time.monotonic() - start)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        seconds = time.monotonic() - start
        code = process.returncode
        if code == 0:
            return Verdict(SURVIVED, "", seconds)
        if code in (FAILED, INTERRUPTED):
            failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
            return Verdict(NOTICED, failed[1] if failed else "", seconds)
        if code < 0:
            return Verdict(NOTICED, f"ended by {signal.Signals(-code).name}", seconds)
        return Verdict(ERROR, f"pytest ended with {code}: {output.strip()[-300:]}", seconds)

    def try_(self, mutant: Mutant, timeout: float) -> Verdict:
        """Make the change, run its tests, take the change back."""
        path = self.root / mutant.path
        try:
            changed = mutant.applied(self.root)
        except MutantError as error:
            return Verdict(ERROR, str(error), 0.0)
        before = path.read_bytes()
        path.write_text(changed, encoding="utf-8")
        try:
            return self.run(mutant.tests, timeout)
        finally:
            path.write_bytes(before)


def _files(checkout: Path) -> list[str]:
    """Files of a checkout from its root: tracked, or new and not ignored."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:
        raise MutantError(f"{checkout} is no git checkout: {listing.stderr.strip()}")
    names = [name for name in listing.stdout.split("\0") if name]
    return [name for name in names if (checkout / name).is_file()]
