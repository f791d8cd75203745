"""Who carries out a run's work: workers as asked for, or this process alone."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from alps.engine.base.device import gpus_named
from alps.engine.base.errors import SettingsError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.stages.opening import RunOptions
from alps.engine.stages.tiles.early import MODULES
from alps.engine.stores import out as stores_out
from alps.engine.workers.local import LocalCrew
from alps.engine.workers.place import places, visible_gpus, workers_for
from alps.engine.workers.protocol import Alone, Crew
from alps.engine.workers.ray import RayCrew
from alps.engine.workers.ray_seat import Wanted
from alps.kernels.base.threads import threads


@contextmanager
def crew_for(
    folder: RunFolder, options: RunOptions, modules: Sequence[str] = MODULES
) -> Iterator[tuple[Crew, RunOptions]]:
    """The crew of a run in a folder that this process holds, and options for what stays here.

    modules: that its jobs need.

    Workers are started at once, so that they are ready when there is something to do.

    Raises SettingsError for a device that is not there, fewer workers than devices, or a cluster
    that cannot be used.
    """
    if options.cluster is not None:
        with _on_ray(folder, options, options.cluster) as crew:
            yield crew, replace(options, device="cpu")
        return
    if options.worker_cores is not None:
        raise SettingsError("--worker-cores goes with --cluster; here --workers share all cores")
    gpus = gpus_named(options.device)
    alone = _why_alone(options.device)
    if alone and options.workers not in (None, 1):
        raise SettingsError(f"--workers {options.workers}: {alone}; give --workers 1")
    workers = 1 if alone else options.workers or workers_for(threads(), len(gpus))
    if workers < len(gpus) and "," in options.device:
        raise SettingsError(
            f"--workers {workers} --device {options.device}: a worker uses one GPU; give "
            f"{len(gpus)} workers, or fewer devices"
        )
    device = f"cuda:{gpus[0]}" if gpus else "mps" if options.device == "mps" else "cpu"
    here = replace(options, device=device, workers=workers)
    if workers == 1:
        yield Alone(), here
        return
    own = places(workers, threads(), visible_gpus(gpus[:workers]))
    with LocalCrew(own, folder.journal, options.share, modules) as crew:
        yield crew, here


def _why_alone(device: str) -> str:
    """Why this process cannot have workers; empty where it can."""
    if device == "mps":
        return "one process uses --device mps"
    if sys.platform == "win32":
        return "Windows hands no pipe on to them"
    return ""


def _on_ray(folder: RunFolder, options: RunOptions, cluster: str) -> RayCrew:
    """Workers on the nodes of a Ray cluster."""
    address = stores_out.address_of(folder.root)
    if address is not None:
        raise SettingsError(
            f"--cluster {cluster}: nodes would not see {address} as a folder; give an OUT on a "
            "file system that all of them see"
        )
    wanted = Wanted(options.device, options.worker_cores, options.workers)
    return RayCrew(cluster, wanted, folder.journal, options.share)
