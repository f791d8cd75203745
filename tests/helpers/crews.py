"""Crews that start no processes, and the processes of those that do."""

import contextlib
import pickle

import psutil

from alps.engine.workers.protocol import Alone


class CrewHere(Alone):
    """Workers that are none: what they would do is done here. tests/engine/workers start some."""

    device = "cpu"
    size = 0

    @contextlib.contextmanager
    def of(self, places, *more):
        self.size = len(places)
        yield self


class Elsewhere:
    """Carries jobs out as workers do that have nothing but what they are handed, the last number
    first, and one twice, as after a death.
    """

    size = 2
    device = "cpu"

    def carry_out(self, job, numbers, tell):
        for count, number in enumerate(reversed(list(numbers))):
            for _ in range(2 if count == 1 else 1):
                ((_, result),) = pickle.loads(pickle.dumps(job)).run(iter([number]), tell)
            yield number, result


def worker_processes(pid=None):
    """Workers of a process, of this one by default: forks of its template, not the template."""
    below = psutil.Process(pid).children(recursive=True)
    parents = set()
    for process in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            parents.add(process.ppid())
    return {process for process in below if process.pid not in parents}
