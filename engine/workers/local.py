"""Workers that are processes of this machine.

Each is a fork of a template that has imported what they need, or where it may not be one, for a GPU
say, a fresh Python; so a parent never touches CUDA for them. Each sees the device that it is to use
as the first one. One that dies is replaced, and its work given to another.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alps.engine.base.errors import WorkerError
from alps.engine.base.progress import note
from alps.engine.base.stopping import children_without_ctrl_c, raise_if_stopped
from alps.engine.stores import out as stores_out
from alps.engine.workers.place import Place
from alps.engine.workers.process import Begin, Beginning, Done, Failed, Number, Over, Quit, Told
from alps.engine.workers.protocol import Job, Tell
from alps.engine.workers.template import Forked, Template, can_fork, template_for

MOST_DEATHS = 3  # of workers by one piece of work, or at their start one after the other
AHEAD = 2  # pieces a worker has: the one that it does, and the next
LOOK_SECONDS = 0.5  # how often a wait looks whether a signal came
PATIENCE_SECONDS = 10.0  # that workers have for their end
MOST_LAST_WORDS = 5  # lines of a dead worker's stderr that are told


@dataclass
class _Process:
    """A worker as its parent sees it."""

    place: Place
    process: subprocess.Popen[str] | Forked
    connection: Connection
    reader: threading.Thread  # of what it writes to stderr
    last_words: list[str]
    has: list[int] = field(default_factory=list)  # pieces that it was given, the oldest first
    is_new: bool = True  # nothing was heard of it yet


class _Left:
    """The pieces of a job that nobody has, the lowest first."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._more = iter(numbers)  # ascending
        self._here: list[int] = []  # a heap: what came back, and what was looked at
        self.deaths: Counter[int] = Counter()  # of workers, by the piece that they were at

    def lowest(self) -> int | None:
        """Take the lowest; None where there is none left."""
        return heappop(self._here) if self.are_many(1) else None

    def are_many(self, count: int) -> bool:
        """Whether there are so many at least."""
        for number in islice(self._more, max(0, count - len(self._here))):
            heappush(self._here, number)
        return len(self._here) >= count

    def put_back(self, numbers: Iterable[int]) -> None:
        """Their worker died."""
        for number in numbers:
            heappush(self._here, number)


class LocalCrew:
    """Processes of this machine, as ``alps.engine.workers.protocol.Crew``. A context manager.

    Args:
        places: one a worker.
        journal: of the run folder, for the workers' signs of life; None: no signs.
        share: (i, n), of the run's shards, that the workers are at.
        modules: that they import while there is nothing to do yet.
    """

    def __init__(
        self,
        places: Sequence[Place],
        journal: Path | None = None,
        share: tuple[int, int] = (0, 1),
        modules: Sequence[str] = (),
    ) -> None:
        self.size, self.device = len(places), places[0].device
        self._places, self._journal, self._share = places, journal, share
        self._modules = tuple(modules)
        self._workers: list[_Process] = []
        self._template: Template | None = None  # of workers that may be forks
        self._stillborn = 0  # workers that died before they said anything, one after the other

    def __enter__(self) -> Self:
        try:
            forked = [place for place in self._places if can_fork(place)]
            if forked:
                self._template = template_for(forked[0], self._modules)
            for place in self._places:
                self._workers.append(self._start(place))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers if kind is None else ():
            self._send(worker, Quit())
        self._end()

    def carry_out(self, job: Job, numbers: Iterable[int], tell: Tell) -> Iterator[tuple[int, Any]]:
        """See ``Crew``."""
        left = _Left(numbers)
        for worker in list(self._workers):
            self._begin(worker, job, left)
        while any(worker.has for worker in self._workers):
            for worker in self._ready():
                message = self._receive(worker)
                if message is None:
                    self._replace(worker, job, left)
                    continue
                worker.is_new, self._stillborn = False, 0
                if isinstance(message, Failed):
                    raise pickle.loads(message.error)
                if isinstance(message, Told):
                    tell(message.count)
                elif isinstance(message, Done):
                    worker.has.remove(message.number)
                    self._fill(worker, left)
                    yield message.number, message.result
        self._finish_job()

    def _begin(self, worker: _Process, job: Job, left: _Left) -> None:
        if not self._send(worker, Begin(job)):
            self._replace(worker, job, left)
            return
        self._fill(worker, left)

    def _fill(self, worker: _Process, left: _Left) -> None:
        """Give a worker the lowest pieces; the last ones are not given before they are begun."""
        while len(worker.has) < (AHEAD if left.are_many(self.size) else 1):
            number = left.lowest()
            if number is None:
                return
            worker.has.append(number)
            if not self._send(worker, Number(number)):
                return  # it is found dead in a moment

    def _finish_job(self) -> None:
        """Let all workers come to the end of a job; nothing of it is left to do."""
        waiting = [worker for worker in self._workers if self._send(worker, Number(None))]
        while waiting:
            for worker in self._ready():
                message = self._receive(worker)
                if isinstance(message, Failed):
                    raise pickle.loads(message.error)
                if message is None or isinstance(message, Over):
                    if worker in waiting:
                        waiting.remove(worker)
                    if message is None:
                        self._bury(worker)
                        self._workers[self._workers.index(worker)] = self._start(worker.place)

    def _ready(self) -> list[_Process]:
        raise_if_stopped()
        there = set(wait([one.connection for one in self._workers], timeout=LOOK_SECONDS))
        return [worker for worker in self._workers if worker.connection in there]

    def _receive(self, worker: _Process) -> Any:
        """What a worker says; None where it is dead."""
        try:
            return worker.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return None

    def _send(self, worker: _Process, message: object) -> bool:
        try:
            worker.connection.send(message)
        except OSError:
            return False
        return True

    def _replace(self, worker: _Process, job: Job, left: _Left) -> None:
        """Put another one in the place of a worker that died, and its work back."""
        how = self._bury(worker)
        if worker.is_new:
            self._stillborn += 1
            if self._stillborn == MOST_DEATHS:
                raise WorkerError(f"workers cannot be started: {how}")
        if worker.has:
            number = worker.has[0]  # that it was at
            left.deaths[number] += not worker.is_new
            if left.deaths[number] == MOST_DEATHS:
                raise WorkerError(
                    f"{MOST_DEATHS} workers died one after the other of {job.words(number)}: "
                    f"{how}. All else that was done is kept; give fewer --workers where memory is "
                    "short, or leave out what they die of, and run the same command again"
                )
            note(f"a worker died at {job.words(number)} ({how}); another one does it again")
        left.put_back(worker.has)
        fresh = self._start(worker.place)
        self._workers[self._workers.index(worker)] = fresh
        self._begin(fresh, job, left)

    def _bury(self, worker: _Process) -> str:
        """Make sure that a worker is dead, and say how it died."""
        worker.connection.close()
        try:
            code = worker.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            code = worker.process.wait()
        worker.reader.join(PATIENCE_SECONDS)
        words = "; ".join(worker.last_words)
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", for want of memory perhaps" if -code == signal.SIGKILL else ""
            return f"killed by {name}{hint}" + (f": {words}" if words else "")
        return f"exit code {code}" + (f": {words}" if words else "")

    def _start(self, place: Place) -> _Process:
        ours, theirs = Pipe()
        begin = Beginning(
            theirs.fileno(),
            os.getpid(),
            place,
            self._journal,
            self._share,
            stores_out.places(),
            self._modules,
        )
        process: subprocess.Popen[str] | Forked | None = None
        if self._template is not None and self._template.place == place:
            process = self._template.fork(begin)
        if process is None:
            process = _fresh(begin)
        theirs.close()
        last_words: list[str] = []
        reader = threading.Thread(
            target=_pass_on, args=(process, last_words), name="alps-worker-says", daemon=True
        )
        reader.start()
        return _Process(place, process, ours, reader, last_words)

    def _end(self) -> None:
        """Let workers end, and wait for it; whoever takes too long is killed."""
        for worker in self._workers:
            worker.connection.close()  # which they notice
        for worker in self._workers:
            try:
                worker.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.reader.join(PATIENCE_SECONDS)
        self._workers = []
        if self._template is not None:
            self._template.close()


def _fresh(begin: Beginning) -> subprocess.Popen[str]:
    """A worker that is a Python of its own."""
    arguments = pickle.dumps(begin).hex()
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        f"from alps.engine.workers.process import start\nstart({arguments!r})\n"
    )
    with children_without_ctrl_c():
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | begin.place.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            pass_fds=[begin.handle],
        )


def _pass_on(process: subprocess.Popen[str] | Forked, last_words: list[str]) -> None:
    """Show what a worker says, a line at a time, and remember the last of it."""
    assert process.stderr is not None
    with process.stderr as lines:
        for line in lines:
            if text := line.rstrip():
                last_words[:] = [*last_words, text][-MOST_LAST_WORDS:]
                note(text)
