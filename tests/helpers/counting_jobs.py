"""Jobs for tests of workers; these import the module by its name."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path


class Words:
    def words(self, number):
        return f"piece {number}"


@dataclass(frozen=True)
class Counting(Words):
    """Multiplies numbers, and tells each."""

    factor: int
    fails_at: int = -1
    error: Exception | None = None

    def run(self, numbers, tell):
        for number in numbers:
            if number == self.fails_at:
                raise self.error
            if number == 9:
                print("said by a worker", file=sys.stderr)
            tell(number)
            yield number, number * self.factor


class Ages(Words):
    """Where a worker is."""

    def run(self, numbers, tell):
        from alps.kernels.base.threads import threads

        for number in numbers:
            time.sleep(0.05)
            gpu, omp = os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]
            yield number, (gpu, omp, threads(), os.getpid())


@dataclass(frozen=True)
class Deadly(Words):
    """Kills its process at a number, some times."""

    folder: str
    number: int
    deaths: int

    def run(self, numbers, tell):
        for number in numbers:
            before = len(list(Path(self.folder).iterdir()))
            if number == self.number and before < self.deaths:
                Path(self.folder, str(before)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield number, number


@dataclass(frozen=True)
class Slow(Words):
    """Takes its time."""

    seconds: float

    def run(self, numbers, tell):
        for number in numbers:
            time.sleep(self.seconds)
            yield number, 0
