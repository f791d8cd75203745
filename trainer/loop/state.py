"""All that changes from step to step, and the checkpoint that it is kept in.

Order and changes of the samples, and all else that is random, are drawn from generators seeded
with the step's number. So weights, their running average, the optimiser and the step are all that
a checkpoint holds, and a training that was killed ends with the same weights, on one machine with
one number of threads.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError
from alps.engine.base.records import Count, as_record, one_line
from alps.engine.base.zips import refuse_damaged_zip

M = TypeVar("M", bound=nn.Module)


@dataclass
class State(Generic[M]):
    """A network on its way."""

    model: M  # on the device where it learns
    averaged: M | None  # the running average of its weights, where one is kept
    optimiser: torch.optim.Optimizer
    rates: Sequence[float]  # the highest rate of each of the optimiser's groups
    step: int = 0  # done so far

    @property
    def result(self) -> M:
        """The network to be kept."""
        return self.model if self.averaged is None else self.averaged

    def set_rate(self, share: float) -> float:
        """Give every group its rate, ``share`` of its highest; returns that of the first."""
        for group, highest in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = highest * share
        return self.optimiser.param_groups[0]["lr"]

    def clip(self, most: float, *, by_group: bool) -> Tensor:
        """Scale gradients whose norm is larger than ``most`` down to it.

        by_group: each of the optimiser's groups by itself, where some have far larger gradients
        than others; else all together.

        Returns the norms before: (), or (groups,).
        """
        if not by_group:
            return nn.utils.clip_grad_norm_(self.model.parameters(), most)
        groups = [group["params"] for group in self.optimiser.param_groups]
        return torch.stack([nn.utils.clip_grad_norm_(group, most) for group in groups])

    @torch.no_grad()
    def average(self, keep: float, early: int) -> None:
        """Move the running average towards the weights.

        Args:
            keep: share of the average that stays.
            early: of the first steps less stays, step / (step + early): the start is forgotten.
        """
        if self.averaged is None:
            return
        keep = min(keep, self.step / (self.step + early))
        means, values = [], []
        of_model = self.model.state_dict()
        for name, mean in self.averaged.state_dict().items():
            if mean.is_floating_point():
                means.append(mean)
                values.append(of_model[name])
            else:  # how many batches a norm has seen
                mean.copy_(of_model[name])
        torch._foreach_lerp_(means, values, 1 - keep)

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def take(self, kept: Mapping[str, Any]) -> None:
        """Go on from what ``to_dict`` gave."""
        step = as_record(kept["step"], Count)
        self.model.load_state_dict(kept["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(kept["averaged"])
        self.optimiser.load_state_dict(kept["optimiser"])
        self.step = step

    def save(self, path: Path) -> None:
        """Write a checkpoint that appears whole or not at all."""
        with whole(path) as part:
            torch.save(self.to_dict(), part)

    def load(self, path: Path) -> None:
        """Take over a checkpoint, where there is one. Raises RunFolderError for a damaged one."""
        if not path.exists():
            return
        try:
            self.take(read_checkpoint(path))
        except RunFolderError:
            raise
        except Exception as error:  # torch raises almost anything for a file that does not fit
            raise _unreadable(path, error) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What ``torch.save`` wrote, on the CPU. Raises RunFolderError where it is damaged."""
    try:
        refuse_damaged_zip(path)  # torch itself never looks at checksums
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises almost anything for a damaged file
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunFolderError:
    return RunFolderError(
        f"cannot read {path} ({one_line(error)}); put back a copy, or remove it to begin anew"
    )


def copy_for_average(model: M, keep: float) -> M | None:
    """Where a running average begins; None where ``keep`` says that there is none."""
    return copy.deepcopy(model).requires_grad_(False).eval() if keep > 0 else None
