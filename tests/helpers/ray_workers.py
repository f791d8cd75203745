"""Jobs for workers on Ray that do next to nothing."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from alps.engine.base.errors import SourceAwayError


@dataclass(frozen=True)
class Squares:
    """Squares numbers, and leaves a note of each in a folder, a file a process."""

    folder: Path
    seconds: float = 0.0

    def run(self, numbers, tell):
        for number in numbers:
            self.before(number)
            with (self.folder / f"{os.getpid()}.txt").open("a") as notes:
                notes.write(f"{number}\n")
            time.sleep(self.seconds)
            tell(10)
            yield number, number * number

    def words(self, number):
        return f"square {number}"

    def before(self, number):
        pass


@dataclass(frozen=True)
class DiesOnce(Squares):
    """The first process that comes to 3 is killed, when it has told of what it did before."""

    def before(self, number):
        mark = self.folder / "died"
        if number == 3 and not mark.exists():
            mark.touch()
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class DiesAlways(Squares):
    def before(self, number):
        if number == 3:
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class FindsNothing(Squares):
    def before(self, number):
        if number == 3:
            raise SourceAwayError("tiles/3.png is away; bring it back")


@dataclass(frozen=True)
class Breaks(Squares):
    def before(self, number):
        raise ValueError(f"no {number}")


@dataclass(frozen=True)
class CannotBegin(Squares):
    def run(self, numbers, tell):
        raise SourceAwayError("no weights here")


@dataclass(frozen=True)
class Environment(Squares):
    """Tells what a worker's process is given."""

    def run(self, numbers, tell):
        import sys

        from alps.kernels.base.threads import threads

        for number in numbers:
            yield number, (os.environ["OMP_NUM_THREADS"], threads(), "torch" in sys.modules)
