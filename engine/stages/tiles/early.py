"""Workers begin to be made while the process that wants them still imports what it needs itself.

Nothing heavy is imported here: that is what it is for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alps.engine.workers.place import places, workers_for
from alps.engine.workers.template import begin_early, forget_early
from alps.kernels.base.threads import threads

MODULES = ("alps.engine.stages.tiles.job", "alps.engine.stages.regions")  # what most jobs need
# One of these is there wherever PyTorch could find a GPU.
DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


@contextmanager
def expected_workers(workers: int | None, device: str, cluster: str | None) -> Iterator[None]:
    """Begin with workers as they were asked for, where it is plain that they will be processes of
    this machine on its CPU.

    workers: None for as many as suit the machine. Arguments are not checked here; whoever makes the
    crew does that, and takes what was begun only where it is what it wants. What nobody took ends
    with the block.
    """
    is_cpu = device == "cpu" or (device == "auto" and not any(map(Path.exists, map(Path, DRIVERS))))
    count = 1 if cluster is not None or not is_cpu else workers or workers_for(threads(), 0)
    if count > 1:
        begin_early(places(count, threads(), [])[0], MODULES)
    try:
        yield
    finally:
        forget_early()
