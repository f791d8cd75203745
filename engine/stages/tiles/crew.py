"""Who carries out a run's work: workers as asked for, or this process alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from alps.engine.base.device import gpus_named
from alps.engine.base.errors import SettingsError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.stages.opening import RunOptions
from alps.engine.workers.local import LocalCrew
from alps.engine.workers.place import places, visible_gpus, workers_for
from alps.engine.workers.protocol import Alone, Crew
from alps.kernels.base.threads import threads

MODULES = ("alps.engine.stages.tiles.job", "alps.engine.stages.regions")  # what most jobs need


@contextmanager
def crew_for(folder: RunFolder, options: RunOptions) -> Iterator[tuple[Crew, RunOptions]]:
    """The crew of a run in a folder that this process holds, and options for what stays here.

    Workers are started at once, so that they are ready when there is something to do.

    Raises SettingsError for a device that is not there, or fewer workers than devices.
    """
    gpus = gpus_named(options.device)
    workers = options.workers or workers_for(threads(), len(gpus))
    if workers < len(gpus) and "," in options.device:
        raise SettingsError(
            f"--workers {workers} --device {options.device}: a worker uses one GPU; give "
            f"{len(gpus)} workers, or fewer devices"
        )
    here = replace(options, device=f"cuda:{gpus[0]}" if gpus else "cpu", workers=workers)
    if workers == 1:
        yield Alone(), here
        return
    own = places(workers, threads(), visible_gpus(gpus[:workers]))
    with LocalCrew(own, folder.journal, options.share, MODULES) as crew:
        yield crew, here
