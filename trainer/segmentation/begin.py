"""A segmentation model before its first step."""

import torch
from torch import nn

from alps.trainer.loop.state import State, copy_for_average
from alps.trainer.segmentation.models import encoder_of
from alps.trainer.segmentation.recipe import TrainSettings

BETAS = (0.9, 0.999)


def begin(model: nn.Module, settings: TrainSettings) -> State:
    """Optimiser and running average of a model that lies on the device where it will learn."""
    of_encoder = {id(parameter) for parameter in encoder_of(model).parameters()}
    learn = [p for p in model.parameters() if p.requires_grad]
    groups, rates = [], []
    for is_encoder in (True, False):
        own = [p for p in learn if (id(p) in of_encoder) == is_encoder]
        for decays in (True, False):
            some = [p for p in own if (p.ndim > 1) == decays]  # norms, biases: not
            if some:
                decay = settings.weight_decay if decays else 0.0
                groups.append({"params": some, "weight_decay": decay})
                rates.append(settings.rate * (1.0 if is_encoder else settings.head_rate))
    optimiser = torch.optim.AdamW(groups, lr=0.0, betas=BETAS)
    return State(model, copy_for_average(model, settings.ema), optimiser, rates)
