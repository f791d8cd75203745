"""A model by its name: what most callers want of this room."""

from pathlib import Path

from alps.engine.base.device import choose_device
from alps.engine.models.checkpoints import load_network, own_name
from alps.engine.models.registry import find_model, given_name
from alps.engine.sam.config import ModelInfo
from alps.engine.sam.model import Network


def load_model(model: str | Path = "tiny", device: str = "auto") -> tuple[Network, ModelInfo]:
    """Load a SAM by a name that ``alps models`` lists, from a checkpoint or from a hub.

    Raises:
        ModelError: there is no such model, or its file cannot be used; the text says what to do.
        SettingsError: no such device.
    """
    path = find_model(model)
    name = given_name(model) or own_name(path)
    return load_network(path, name=name, device=choose_device(device))
