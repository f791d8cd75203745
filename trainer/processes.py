"""Several processes that learn together: torchrun starts them, gloo or nccl connects them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from alps.engine.base.device import choose_device
from alps.engine.base.errors import AlpsError, SettingsError

T = TypeVar("T")
# The others wait while the first one opens every source of an archive, once.
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """This process among those of the job."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """This process's part of a batch."""
        own = batch // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def on_first(self, work: Callable[[], T]) -> T:
        """Let the first process do ``work`` and hand all of them its result, or its AlpsError."""
        if self.size == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = work()
            except AlpsError as error:
                outcome[1] = error
        distributed.broadcast_object_list(outcome, src=0, device=self.device)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            distributed.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def together(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are the mean over all processes."""
        if self.size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices)


@contextmanager
def joined(device: str, batch: int | None) -> Iterator[Processes]:
    """Join the job that torchrun started; a process that it did not start is a job of one.

    Args:
        device: as ``--device``; with several processes each takes the GPU of its local rank.
        batch: samples a step, to be shared evenly; None where nothing is.

    Raises:
        SettingsError: no such device, or the batch cannot be shared evenly.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes(0, 1, choose_device(device))
        return
    if batch is not None and batch % size:
        raise SettingsError(
            f"--batch {batch}: {size} processes cannot share it evenly; give a multiple of {size}"
        )
    chosen = choose_device(device)
    if chosen.type == "mps":
        raise SettingsError(
            f"--device mps: {size} processes cannot share it; run the command without torchrun"
        )
    if chosen.type == "cuda":
        if ":" in device:
            raise SettingsError(
                f"--device {device}: {size} processes cannot share one GPU; give cuda or auto, and "
                "each takes its own"
            )
        chosen = choose_device(f"cuda:{int(os.environ.get('LOCAL_RANK', '0'))}")
        torch.cuda.set_device(chosen)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Processes(distributed.get_rank(), size, chosen)
    finally:
        distributed.destroy_process_group()
