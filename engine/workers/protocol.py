"""What work is, and who carries it out: the seam between a run and its workers.

A run describes its work as a ``Job``, plain values that can be pickled, and numbers: a shard to
segment, a group of sources to cut. A ``Crew`` has the numbers carried out. There is one that does
it right here (``Alone``), and one of processes on this machine (``alps.engine.workers.local``).

For a crew of another kind, on several machines say: hand a job to each worker once, and numbers
one by one; call ``job.run`` there with an iterator that waits for the next number, and send back
what it yields. A number whose worker is gone goes to another one: what a job writes is whole or
not there, and done twice it is the same. All workers see the run folder under the same path. The
parent holds its lock, and alone writes what several would append to; so a worker must not outlive
it. ``alps.engine.workers.place`` is to be applied in a worker before torch is imported.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

Tell = Callable[[int], None]


@runtime_checkable
class Job(Protocol):
    """One kind of work in a run, of plain values that can be pickled."""

    def run(self, numbers: Iterator[int], tell: Tell) -> Iterator[tuple[int, Any]]:
        """Carry out numbers as they come, and yield each with its result when it is done.

        Args:
            numbers: may be waited for, and may be iterated by another thread. At most one more
                than is carried out is taken, and no number waits for a later one.
            tell: told how much was done, of what the parent counts as progress.

        A result can be pickled. Whatever is raised ends the run.
        """
        ...

    def words(self, number: int) -> str:
        """What a number is to a person: "tiles 64 to 95"."""
        ...


def nothing_to_tell(count: int) -> None:
    """For work whose results are its progress."""


class Crew(Protocol):
    """Who carries out jobs."""

    size: int  # workers
    device: str  # of each as it sees it: cpu, or cuda for the one GPU that it has

    def carry_out(self, job: Job, numbers: Iterable[int], tell: Tell) -> Iterator[tuple[int, Any]]:
        """Have numbers carried out, the lowest first, and yield each with its result.

        numbers: ascending; there may be millions, so no more are taken than are handed out.
        Results come as they are done, in any order, each number's once. One job at a time; it is
        to be iterated to its end.

        Raises what the job raised, and WorkerError where workers die of a number again and again.
        """
        ...


class Alone:
    """No workers: jobs are carried out where they are asked for."""

    size = 1
    device = ""  # that of this process

    def carry_out(self, job: Job, numbers: Iterable[int], tell: Tell) -> Iterator[tuple[int, Any]]:
        """See ``Crew``."""
        return job.run(iter(numbers), tell)


def in_order(
    results: Iterator[tuple[int, Any]], numbers: Sequence[int]
) -> Iterator[tuple[int, Any]]:
    """Results in the order of their numbers; those that come early are kept meanwhile."""
    early: dict[int, Any] = {}
    waiting = iter(numbers)
    wanted = next(waiting, None)
    for number, result in results:
        early[number] = result
        while wanted is not None and wanted in early:
            yield wanted, early.pop(wanted)
            wanted = next(waiting, None)
