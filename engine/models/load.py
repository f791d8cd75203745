"""A model by its name: what most callers want of this room."""

from pathlib import Path

from alps.engine.base.device import choose_device
from alps.engine.models.checkpoints import load_network, own_name
from alps.engine.models.registry import MODELS, find_model
from alps.engine.sam.config import ModelInfo
from alps.engine.sam.model import Network


def load_model(model: str | Path = "tiny", device: str = "auto") -> tuple[Network, ModelInfo]:
    """Load SAM or SAM 2 by its name, which ``alps models`` lists, or from a checkpoint.

    Raises:
        ModelError: there is no such model, or its file cannot be used; the text says what to do.
        SettingsError: no such device.
    """
    path = find_model(model)
    known = isinstance(model, str) and model in MODELS
    return load_network(
        path, name=str(model) if known else own_name(path), device=choose_device(device)
    )
