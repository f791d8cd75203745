"""The model that predicts: its weights on a device, its card, its classes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from alps.engine.base.device import choose_device
from alps.engine.base.errors import ModelError
from alps.engine.labels.palette import palette
from alps.engine.labels.writer import label_dtype
from alps.engine.naming.names import ShownClasses, cleaned
from alps.trainer.numerics import autocast_for, choose_precision
from alps.trainer.segmentation.card import ModelCard, read_card
from alps.trainer.segmentation.models import class_names, located, open_model, weights_sha256


@dataclass(frozen=True)
class OpenedModel:
    """A segmentation model that was read, on the CPU."""

    name: str  # as it was given
    model: nn.Module
    card: ModelCard
    classes: ShownClasses
    sha256: str  # of its weights
    parameters: int

    def on(self, device: str, precision: str) -> "Predictor":
        """Move it to a device. precision: ``auto`` is what its card says.

        Raises SettingsError: there is no such device, or it does not compute in that precision.
        """
        where = choose_device(device)
        chosen = choose_precision(where, self.card.precision if precision == "auto" else precision)
        moved = vars(self) | {"model": self.model.to(where)}
        return Predictor(**moved, precision=chosen, autocast=autocast_for(where, chosen))


@dataclass(frozen=True)
class Predictor(OpenedModel):
    """A model in a precision, ready to predict."""

    precision: str
    autocast: Callable[[], torch.autocast]

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.model.parameters()).device


def open_for_predicting(checkpoint: str | Path) -> OpenedModel:
    """Read a segmentation model.

    checkpoint: an OUT of a training, a folder of transformers, or a name on the hub.

    Raises ModelError: the checkpoint cannot be used.
    """
    card = read_card(checkpoint, located(checkpoint))
    model = open_model(checkpoint).eval()
    names = class_names(model)
    label_dtype(len(names))  # there must be room for them
    count = len(names)
    colours = palette(count) if card.colours is None else np.array(card.colours, np.uint8)
    if len(colours) != count:
        raise ModelError(
            f"{checkpoint} knows {count} classes and colours of {len(colours)}; put back a "
            "copy of its config.json, or take the key alps out of it"
        )
    return OpenedModel(
        str(checkpoint),
        model,
        card,
        ShownClasses(
            np.arange(count, dtype=np.int32),
            tuple(cleaned(str(name)) or f"class {number}" for number, name in enumerate(names)),
            colours,
            np.zeros(count, bool),
        ),
        weights_sha256(model),
        sum(parameter.numel() for parameter in model.parameters()),
    )
