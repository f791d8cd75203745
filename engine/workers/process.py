"""A worker as a process of this machine: what runs in it.

It is told jobs and numbers over a connection, and ends when nobody is at its other end any more.
"""

import importlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from alps.engine.base.progress import silent
from alps.engine.base.stopping import Stopped, listen, raise_if_stopped
from alps.engine.pipeline.line import raise_if_over
from alps.engine.stores import out as stores_out
from alps.engine.telemetry.heartbeat import WORKER, beating
from alps.engine.workers.place import Place
from alps.engine.workers.protocol import Job
from alps.kernels.base.heap import return_freed_memory

LOOK_SECONDS = 0.1  # whoever waits looks so often whether there is still anything to wait for
PATIENCE_SECONDS = 5.0  # that work has for its end, once nobody waits for it any more


@dataclass(frozen=True)
class Begin:
    """The next job."""

    job: Job


@dataclass(frozen=True)
class Number:
    """A piece of the job; None: there are no more."""

    value: int | None


class Ready:
    """A worker has started."""


@dataclass(frozen=True)
class Done:
    """A piece that was carried out."""

    number: int
    result: Any


@dataclass(frozen=True)
class Told:
    """How much was done."""

    count: int


@dataclass(frozen=True)
class Failed:
    """What a job raised, pickled."""

    error: bytes


class Quit:
    """There is no more work; end in good order."""


class Over:
    """A job has ended: all of its numbers are done."""


class WorkerFault(RuntimeError):
    """What cannot be pickled of an exception: its text."""


@dataclass(frozen=True)
class Beginning:
    """What a worker is told when it starts."""

    handle: int  # of a connection, as ``Connection.fileno`` gives it
    parent: int  # process id of who is at its other end
    place: Place
    journal: Path | None  # of the run folder, for a sign of life; None: no sign
    share: tuple[int, int]  # of the run's shards
    stores: Sequence[stores_out.Place]  # OUTs in object stores that the parent has opened
    modules: Sequence[str]  # that jobs will need, to be imported before there are any


def main(begin: Beginning) -> None:
    """Be a worker."""
    listen()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and says what there is
    begin.place.settle()
    worker = _Worker(Connection(begin.handle))
    for name in begin.modules:
        importlib.import_module(name)
    try:
        with ExitStack() as stack:
            stack.enter_context(silent())
            for store in begin.stores:
                stack.enter_context(stores_out.attached(store))
            if begin.journal is not None:
                alive = beating(begin.journal, begin.share, WORKER, begin.parent)
                stack.enter_context(alive)
            worker.run()
    except Stopped:
        os._exit(1)  # nobody is there who could be told


class _Worker:
    """Carries out jobs, one after the other, until the connection ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._told: SimpleQueue[Begin | Number | Quit] = SimpleQueue()
        threading.Thread(target=self._listen, name="alps-parent", daemon=True).start()

    def run(self) -> None:
        """Work until somebody ends the process, or there is no more work."""
        self._send(Ready())
        while not isinstance(message := self._next(), Quit):
            if isinstance(message, Begin):
                self._carry_out(message.job)

    def _carry_out(self, job: Job) -> None:
        try:
            return_freed_memory()  # of the job before
            for number, result in job.run(self._numbers(), self._tell):
                self._send(Done(number, result))
        except Exception as error:
            self._send(Failed(_pickled(error)))
            return
        self._send(Over())

    def _numbers(self) -> Iterator[int]:
        while True:
            message = self._next()
            if not isinstance(message, Number) or message.value is None:
                return
            yield message.value

    def _tell(self, count: int) -> None:
        self._send(Told(count))

    def _next(self) -> Begin | Number | Quit:
        while True:
            raise_if_stopped()
            raise_if_over()  # of the line that asks for numbers
            try:
                return self._told.get(timeout=LOOK_SECONDS)
            except Empty:
                continue

    def _send(self, message: object) -> None:
        with self._sending:
            self._connection.send(message)

    def _listen(self) -> None:
        """Take messages in; when there is nobody any more, end what is going on."""
        try:
            while True:
                message = self._connection.recv()
                self._told.put(message)
                if isinstance(message, Quit):
                    return
        except (EOFError, OSError):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_SECONDS)
        os._exit(1)  # safe at any moment: no file has its name before it is whole


def _pickled(error: Exception) -> bytes:
    """An exception for the parent, with where it was raised as a note."""
    where = "".join(traceback.format_exception(error)).rstrip()
    try:
        found = pickle.dumps(error)
        pickle.loads(found).add_note(where)
        error.add_note(f"In a worker:\n{where}")
        return pickle.dumps(error)
    except Exception:  # some errors of libraries cannot be made again
        text = f"{type(error).__name__}: {error}"
        fault = WorkerFault(text)
        fault.add_note(f"In a worker:\n{where}")
        return pickle.dumps(fault)


def start(arguments: str) -> None:
    """As ``main``, of a ``Beginning`` that was pickled, in hexadecimal digits."""
    main(pickle.loads(bytes.fromhex(arguments)))
    sys.exit(0)
