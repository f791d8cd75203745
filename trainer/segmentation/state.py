"""All that changes while a model learns, and the checkpoint it is kept in."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError
from alps.trainer.segmentation.models import encoder_of
from alps.trainer.segmentation.recipe import TrainSettings

BETAS = (0.9, 0.999)


@dataclass
class Training:
    """Order and changes of the samples, and all else that is random, follow from ``step``."""

    model: nn.Module
    averaged: nn.Module | None  # the running average of its weights, where one is kept
    optimiser: torch.optim.Optimizer
    step: int = 0  # done so far

    @property
    def result(self) -> nn.Module:
        """The model to be kept."""
        return self.model if self.averaged is None else self.averaged

    def save(self, path: Path) -> None:
        """Write a checkpoint that appears whole or not at all."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        with whole(path) as part:
            torch.save(state, part)

    def load(self, path: Path) -> None:
        """Take over a checkpoint, where there is one. Raises RunFolderError for a damaged one."""
        if not path.exists():
            return
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            self.model.load_state_dict(state["model"])
            if self.averaged is not None:
                self.averaged.load_state_dict(state["averaged"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]
        except Exception as error:  # torch raises almost anything for a damaged file
            reason = " ".join(str(error).split())[:200]
            raise RunFolderError(
                f"cannot read {path} ({reason}); put back a copy, or delete it to begin anew"
            ) from error

    @torch.no_grad()
    def average(self, keep: float) -> None:
        """Move the running average towards the weights, faster at first."""
        if self.averaged is None:
            return
        keep = min(keep, self.step / (self.step + 10))
        ours, theirs = self.averaged.state_dict(), self.model.state_dict()
        for name, mean in ours.items():
            if mean.is_floating_point():
                mean.lerp_(theirs[name], 1 - keep)
            else:  # how many batches a norm has seen
                mean.copy_(theirs[name])


def begin(model: nn.Module, settings: TrainSettings) -> Training:
    """Before the first step. ``model`` lies on the device where it will learn."""
    of_encoder = {id(parameter) for parameter in encoder_of(model).parameters()}
    groups = []
    for is_encoder in (True, False):
        learn = [p for p in model.parameters() if p.requires_grad]
        own = [p for p in learn if (id(p) in of_encoder) == is_encoder]
        for decays in (True, False):
            groups.append(
                {
                    "params": [p for p in own if (p.ndim > 1) == decays],  # norms, biases: not
                    "weight_decay": settings.weight_decay if decays else 0.0,
                    "times": 1.0 if is_encoder else settings.head_rate,
                }
            )
    groups = [group for group in groups if group["params"]]
    averaged = copy.deepcopy(model).requires_grad_(False).eval() if settings.ema > 0 else None
    return Training(model, averaged, torch.optim.AdamW(groups, lr=0.0, betas=BETAS))


def set_rate(groups: Iterable[dict], rate: float) -> None:
    """Give every group of parameters its rate."""
    for group in groups:
        group["lr"] = rate * group["times"]
