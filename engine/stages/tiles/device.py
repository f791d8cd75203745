"""What a run's segments depend on beside its settings: the device that computes them.

A GPU of another model sums in another order, and so does the same one when it takes more images or
points at once. So a run keeps to what its first tile was computed with, and notes it in run.json.
"""

from dataclasses import asdict

import torch

from alps.engine.base.errors import RunFolderError
from alps.engine.base.records import as_record
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.run_record import ComputedOn
from alps.engine.runtimes.batching import fit_capacity
from alps.engine.runtimes.protocol import Capacity, Runtime

KEY = "computed_on"  # of run.json


def computed_on(runtime: Runtime, device: torch.device) -> ComputedOn:
    """As a runtime is set up on a device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    capacity = runtime.capacity
    return ComputedOn(name, capacity.images, capacity.points, torch.__version__)


def known_device(folder: RunFolder) -> ComputedOn | None:
    """What a run was begun on; None where it is new, or older than that is noted."""
    values = folder.read_run().get(KEY)
    return None if values is None else as_record(values, ComputedOn)


def note_device(folder: RunFolder, on: ComputedOn) -> None:
    """Note in run.json what a run is computed on. The folder must be held alone."""
    folder.update_run(**{KEY: asdict(on)})


def keep_to_device(
    folder: RunFolder, runtime: Runtime, device: torch.device, any_device: bool
) -> None:
    """Let a runtime compute as the run did before, or note in run.json how it does from now on.

    A new run's first look at its device is a batch as large as any: what does not fit is halved,
    before the first tile and never later. The folder must be held alone.

    Raises RunFolderError where the run was computed on another device, and not ``any_device``.
    """
    known = known_device(folder)
    if known is None:
        if device.type != "cpu":
            fit_capacity(runtime)
        note_device(folder, computed_on(runtime, device))
    else:
        set_up_as(known, runtime, device, any_device, folder)


def set_up_as(
    known: ComputedOn, runtime: Runtime, device: torch.device, any_device: bool, folder: RunFolder
) -> None:
    """Let a runtime take as much at once as a run did before; errors as ``keep_to_device``."""
    here = computed_on(runtime, device)
    if known.device != here.device and not any_device:
        raise RunFolderError(
            f"{folder.root} was begun on {known.device}, and this is {here.device}, which rounds "
            "otherwise: go on with --device on one of those, or give --any-device if masks may "
            "differ a little between its tiles"
        )
    if known.device == here.device and device.type != "cpu":
        runtime.capacity = Capacity(known.images_at_once, known.points_in_a_pass)
