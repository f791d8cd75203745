"""What runs on a node of a Ray cluster: a worker, and what it takes of the node."""

import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from alps.engine.base.errors import SettingsError
from alps.engine.base.progress import silent
from alps.engine.pipeline.line import raise_if_over
from alps.engine.telemetry.heartbeat import WORKER, beating
from alps.engine.workers.place import CORES_OF_A_WORKER, VISIBLE, Place
from alps.engine.workers.protocol import Job
from alps.kernels.base.heap import return_freed_memory

LOOK_SECONDS = 0.2  # whoever waits looks so often whether there is still anything to wait for
Resources = dict[str, float]  # of a node, as Ray names them


@dataclass(frozen=True)
class Need:
    """What a worker takes of a node."""

    cores: int = 1
    gpus: int = 0

    def __str__(self) -> str:
        return f"{self.cores} cores" + (f" and {self.gpus} GPU" if self.gpus else "")

    def fits(self, resources: Resources) -> int:
        """How many workers a node with these resources has room for."""
        counts = [int(resources.get("CPU", 0) // self.cores)]
        if self.gpus:
            counts.append(int(resources.get("GPU", 0) // self.gpus))
        return min(counts)


@dataclass(frozen=True)
class Wanted:
    """Workers as they were asked for."""

    device: str = "auto"
    cores: int | None = None  # of each; None: what suits the nodes
    workers: int | None = None  # at most; None: as many as there is room for

    def need(self, nodes: Sequence[Resources]) -> Need:
        """What each takes of nodes like these: a GPU, or up to eight cores.

        Raises SettingsError where a GPU was named by its number: Ray says which one is whose.
        """
        if self.device not in ("auto", "cpu", "cuda"):
            raise SettingsError(
                f"--device {self.device} --cluster ray: Ray shares GPUs out; give cuda, cpu or auto"
            )
        with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
        gpus = int(self.device == "cuda" or (self.device == "auto" and bool(with_gpus)))
        shares = [int(node.get("CPU", 0) // (node["GPU"] if gpus else 1))
                  for node in (with_gpus if gpus else nodes)]  # fmt: skip
        most = min((share for share in shares if share), default=CORES_OF_A_WORKER)
        return Need(self.cores or min(most, CORES_OF_A_WORKER), gpus)


@dataclass(frozen=True)
class Beginning:
    """What a worker is told when it starts."""

    need: Need
    journal: str | None  # of the run folder, for a sign of life; None: no sign
    share: tuple[int, int]  # of the run's shards
    folder: str  # that paths are relative to
    parent: int  # process id of who hands out work


class Seat:
    """The actor: it carries out jobs, one after the other, in a thread of its own."""

    def __init__(self, with_: Beginning) -> None:
        with suppress(OSError):  # then paths are no relative ones, or are missed by their name
            os.chdir(with_.folder)
        gpu = os.environ.get(VISIBLE, "0") if with_.need.gpus else None
        place = Place(with_.need.cores, gpu)
        os.environ.update(place.environment())  # before torch is imported
        place.settle()
        self._open = ExitStack()
        self._open.enter_context(silent())
        if with_.journal is not None:
            alive = beating(Path(with_.journal), with_.share, WORKER, with_.parent)
            self._open.enter_context(alive)

    def begin(self, job: bytes) -> None:
        """Start with a job, pickled; the one before has ended."""
        self._numbers: SimpleQueue[int | None] = SimpleQueue()
        self._waited: dict[int, Future[Any]] = {}
        self._over: Future[None] = Future()
        self._told, self._lock = 0, threading.Lock()
        self._turn, self._turned = 0, threading.Condition()
        work: Job = pickle.loads(job)
        threading.Thread(target=self._run, args=(work,), name="alps-job", daemon=True).start()

    def do(self, number: int, turn: int) -> Any:
        """Carry out a number; returns when its result is there.

        turn: how many were given before it; Ray's threads may come in another order.
        """
        future: Future[Any] = Future()
        with self._turned:
            self._turned.wait_for(lambda: self._turn == turn)
            self._waited[number] = future
            self._numbers.put(number)
            self._turn += 1
            self._turned.notify_all()
        if self._over.done():  # looked at after the future is known: it failed before, or tells it
            self._over.result()
        return future.result()

    def told(self) -> int:
        """How much was done since this was last asked."""
        with self._lock:
            told, self._told = self._told, 0
        return told

    def finish(self) -> int:
        """Come to the end of the job; returns what ``told`` does."""
        self._numbers.put(None)
        self._over.result()
        return self.told()

    def leave(self) -> None:
        """End in good order."""
        self._open.close()

    def _run(self, job: Job) -> None:
        try:
            return_freed_memory()  # of the job before
            for number, result in job.run(self._given(), self._tell):
                self._waited.pop(number).set_result(result)
        except BaseException as error:
            self._over.set_exception(error)
            for future in list(self._waited.values()):
                future.set_exception(error)
        else:
            self._over.set_result(None)

    def _given(self) -> Iterator[int]:
        while True:
            raise_if_over()  # of the line that asks for numbers
            try:
                number = self._numbers.get(timeout=LOOK_SECONDS)
            except Empty:
                continue
            if number is None:
                return
            yield number

    def _tell(self, count: int) -> None:
        with self._lock:
            self._told += count
