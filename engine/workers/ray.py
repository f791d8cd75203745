"""Workers on Ray: an actor for each GPU, or for each few cores, of a cluster's nodes.

Nodes may come and go: what a lost one had not finished is done by another. Ray is imported when a
crew is called together, not before.
"""

import logging
import os
import pickle
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from pathlib import Path
from typing import Any, Self

from alps.engine.base.errors import AlpsError, SettingsError, WorkerError
from alps.engine.base.progress import note
from alps.engine.base.stopping import raise_if_stopped
from alps.engine.workers.protocol import Job, Tell
from alps.engine.workers.ray_seat import Beginning, Resources, Seat, Wanted

MOST_DEATHS = 5  # of workers by one piece of work; nodes are taken away without its doing
AHEAD = 2  # pieces a worker has: the one that it does, and the next
SPARE = 8  # workers asked for beyond the nodes there are: an autoscaler starts nodes for them
LOOK_SECONDS = 0.2  # how long the crew waits for news before it looks for signals and nodes
NODES_SECONDS = 2.0  # between two looks at which nodes there are
TELL_SECONDS = 1.0  # between two looks at how far workers are
KNOCK_SECONDS = 10.0
PATIENCE_SECONDS = 10.0  # that workers have for their end
CLIENT = "ray://"
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")
STORE_BYTES = 80 << 20  # what a cluster of this machine alone keeps for objects: results are small


@dataclass
class _Hand:
    """A worker that has begun with the job, and what it was given, in that order."""

    actor: Any
    has: list[int] = field(default_factory=list)
    given: int = 0  # how many, done ones too


class RayCrew:
    """Workers on the nodes of a Ray cluster, as ``alps.engine.workers.protocol.Crew``.

    A context manager. All nodes must see the run folder and the images under the same names.

    Args:
        cluster: ``ray`` for the cluster that RAY_ADDRESS names or that this machine belongs to,
            and else one of this machine alone; ``ray://HOST:PORT`` for one elsewhere, by Ray's
            client.
        wanted: how many, and what each takes.
        journal: of the run folder, for the workers' signs of life; None: no signs.
        share: of the run's shards, (i, n).

    Raises:
        SettingsError: Ray is not installed, or no cluster answers.
    """

    def __init__(
        self,
        cluster: str,
        wanted: Wanted,
        journal: Path | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._cluster, self._wanted, self._share = cluster, wanted, share
        self._journal = None if journal is None else str(journal.absolute())
        self._actors: list[Any] = []  # all that were asked for and are not known to be lost
        self._there: list[Any] = []  # those of them that have begun with a job
        self._room, self._looked = 0, -NODES_SECONDS
        self.size, self.device = 1, "cpu"

    def __enter__(self) -> Self:
        self._ray = connect(self._cluster)
        try:
            self._need = self._wanted.need(self._nodes())
            self.device = "cuda" if self._need.gpus else "cpu"
        except BaseException:
            self._ray.shutdown()
            raise
        self._seat = self._ray.remote(Seat)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and (leaving := [actor.leave.remote() for actor in self._there]):
            self._ray.wait(leaving, num_returns=len(leaving), timeout=PATIENCE_SECONDS)
        for actor in self._actors:
            self._ray.kill(actor, no_restart=True)
        self._ray.shutdown()

    def carry_out(self, job: Job, numbers: Iterable[int], tell: Tell) -> Iterator[tuple[int, Any]]:
        """See ``Crew``."""
        return _Carrying(self, self._ray, job, numbers, tell).results()

    def actors(self, wanted: int) -> list[Any]:
        """Those that are there or asked for, as many as are wanted and there may be room for."""
        if time.monotonic() - self._looked >= NODES_SECONDS:
            self._looked = time.monotonic()
            room = sum(map(self._need.fits, self._nodes()))
            if not room and not self._actors:
                note(f"no node of the Ray cluster has {self._need}: waiting for one")
            self._room, self.size = room, max(1, min(room, self._wanted.workers or room))
        most = min(wanted, self._room + SPARE, self._wanted.workers or wanted)
        while len(self._actors) < most:
            options = self._seat.options(
                num_cpus=self._need.cores,
                num_gpus=self._need.gpus,
                max_restarts=0,
                max_concurrency=AHEAD + 2,  # beside pieces, one that asks how far it is
            )
            self._actors.append(options.remote(self._begin_with()))
        return self._actors

    def _begin_with(self) -> Beginning:
        return Beginning(self._need, self._journal, self._share, os.getcwd(), os.getpid())

    def _nodes(self) -> list[Resources]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def arrived(self, actor: Any) -> None:
        """One that was asked for has begun."""
        if not any(actor is one for one in self._there):
            self._there.append(actor)

    def lose(self, actor: Any) -> None:
        """Ask for another one in its place. It may be cut off and not dead."""
        self._actors = [one for one in self._actors if one is not actor]
        self._there = [one for one in self._there if one is not actor]
        self._ray.kill(actor, no_restart=True)
        self._looked = -NODES_SECONDS


class _Carrying:
    """A job that a crew carries out."""

    def __init__(
        self, crew: RayCrew, ray: Any, job: Job, numbers: Iterable[int], tell: Tell
    ) -> None:
        self._crew, self._ray, self._job, self._tell = crew, ray, job, tell
        self._more = iter(numbers)  # ascending
        self._left: list[int] = []  # a heap: what came back, and what was looked at
        self._pickled = pickle.dumps(job)
        self._starting: dict[Any, Any] = {}  # what `begin` will say -> actor
        self._hands: list[_Hand] = []
        self._under_way: dict[Any, tuple[int, _Hand]] = {}  # what `do` will say -> number, who
        self._asked: dict[Any, _Hand] = {}  # what `told` will say -> who
        self._asked_at = time.monotonic()
        self._deaths: Counter[int] = Counter()  # of workers, by the number that they were at

    def results(self) -> Iterator[tuple[int, Any]]:
        """Each number and its result, as they come."""
        while self._are_many(1) or self._under_way:
            raise_if_stopped()
            self._call_together()
            self._hand_out()
            self._ask()
            waited = [*self._starting, *self._under_way, *self._asked]
            news, _ = self._ray.wait(waited, num_returns=1, timeout=LOOK_SECONDS)
            for reference in news:
                if reference in self._starting:
                    self._begun(reference)
                elif reference in self._asked:
                    self._heard(reference)
                elif reference in self._under_way:  # else its worker was lost since
                    yield from self._done(reference)
        self._finish()

    def _are_many(self, count: int) -> bool:
        """Whether so many numbers at least are left that nobody has."""
        for number in islice(self._more, max(0, count - len(self._left))):
            heappush(self._left, number)
        return len(self._left) >= count

    def _call_together(self) -> None:
        """Begin the job with all workers that there are, and with new ones while there is work."""
        busy = len(self._hands) + len(self._starting)
        known = [*self._starting.values(), *(hand.actor for hand in self._hands)]
        wanted = busy + SPARE if self._are_many(busy + SPARE) else busy + len(self._left)
        for actor in self._crew.actors(wanted)[:wanted]:
            if not any(actor is one for one in known):
                self._starting[actor.begin.remote(self._pickled)] = actor

    def _hand_out(self) -> None:
        """Give workers the lowest numbers; the last ones are not given before they are begun."""
        for full in range(1, AHEAD + 1):
            for hand in self._hands:
                enough = full if full == 1 else len(self._hands) + 1
                if len(hand.has) < full and self._are_many(enough):
                    number = heappop(self._left)
                    hand.has.append(number)
                    self._under_way[hand.actor.do.remote(number, hand.given)] = number, hand
                    hand.given += 1

    def _ask(self) -> None:
        """Ask workers how far they are, now and then."""
        if self._asked or time.monotonic() - self._asked_at < TELL_SECONDS:
            return
        self._asked_at = time.monotonic()
        self._asked = {hand.actor.told.remote(): hand for hand in self._hands}

    def _heard(self, reference: Any) -> None:
        del self._asked[reference]
        with suppress(self._ray.exceptions.RayError):  # what it does says the same
            self._tell(self._ray.get(reference))

    def _begun(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise _as_known(error, "a worker on Ray cannot begin") from error
        except self._ray.exceptions.RayActorError as error:
            if error.actor_init_failed:  # no package of that name, say
                reason = str(error).strip().splitlines()[-1].strip()
                raise WorkerError(f"a worker on Ray cannot begin: {reason}") from error
            note("a worker was lost before it began; another one is asked for")
            self._crew.lose(actor)
        else:
            self._crew.arrived(actor)
            self._hands.append(_Hand(actor))

    def _done(self, reference: Any) -> Iterator[tuple[int, Any]]:
        number, hand = self._under_way.pop(reference)
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise _as_known(error, f"{self._job.words(number)} failed on Ray") from error
        except self._ray.exceptions.RayActorError as error:
            yield from self._finished_by(hand)
            self._lost(hand, error)
        else:
            hand.has.remove(number)
            yield number, result

    def _finished_by(self, hand: _Hand) -> Iterator[tuple[int, Any]]:
        """Results that a lost worker had sent before; forget the rest of what it had."""
        for reference in [one for one, (_, who) in self._under_way.items() if who is hand]:
            number, _ = self._under_way.pop(reference)
            try:
                result = self._ray.get(reference, timeout=0)
            except self._ray.exceptions.RayError:
                continue
            hand.has.remove(number)
            yield number, result

    def _lost(self, hand: _Hand, error: Exception) -> None:
        """Take back what a worker had, the number that it was at first of all."""
        self._hands.remove(hand)
        self._crew.lose(hand.actor)
        for number in hand.has:
            heappush(self._left, number)
        at = self._job.words(hand.has[0])
        self._deaths[hand.has[0]] += 1
        found = re.search(r"its [\w ]+ has died", str(error))
        reason = found[0] if found else "it answers no more"
        if self._deaths[hand.has[0]] == MOST_DEATHS:
            raise WorkerError(
                f"{MOST_DEATHS} workers were lost one after the other at {at}, the last one "
                f"because {reason}. All else that was done is kept; where memory is short give "
                "them more --worker-cores, so that fewer share a node; the same command goes on"
            )
        note(f"a worker was lost at {at}: {reason}; another one does it again")

    def _finish(self) -> None:
        """Let all workers come to the end of the job; nothing of it is left to do."""
        for hand, ending in [(hand, hand.actor.finish.remote()) for hand in self._hands]:
            try:
                self._tell(self._ray.get(ending))
            except self._ray.exceptions.RayTaskError as error:
                raise _as_known(error, "the end of a job failed on Ray") from error
            except self._ray.exceptions.RayActorError:
                self._crew.lose(hand.actor)
        for actor in self._starting.values():  # nodes came too late, or never
            self._crew.lose(actor)


def connect(cluster: str) -> Any:
    """The module ``ray``, connected to a cluster. Raises SettingsError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    try:
        import ray
    except ImportError as error:
        raise SettingsError(
            "--cluster ray needs Ray, which is not installed: pip install 'alps-engine[ray]'"
        ) from error
    named = cluster if cluster.startswith(CLIENT) else os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        with _own_signals():
            if named:
                _knock(named)
                ray.init(address=named, **options)
                return ray
            try:
                ray.init(address="auto", **options)
            except ConnectionError:
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    **options,
                )
    except Exception as error:  # of a node that is slow to start, say, it has no kind of its own
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(
            f"--cluster {cluster}: no Ray cluster answers ({reason}); start one with ray start "
            "--head, or see to RAY_ADDRESS"
        ) from error
    return ray


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Handlers of signals are afterwards what they were before: Ray sets one that exits at once."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _as_known(error: Any, what: str) -> AlpsError:
    """The error that a worker raised, as one that a person is told of."""
    cause = error.cause
    if isinstance(cause, AlpsError):
        return cause
    # Ray's own errors end with the line that says what it was: no module of that name, say.
    lines = str(cause).strip().splitlines() or [""]
    return WorkerError(f"{what}: {type(cause).__name__}: {lines[-1].strip()}")
