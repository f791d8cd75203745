"""MobileSAM as its authors have it: network and everything mode, unchanged.

Its code is on no index: a checkout of ChaoningZhang/MobileSAM has to be on PYTHONPATH. It imports
timm for three small things, which a stand-in gives where timm is not installed.
"""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from alps.bench.everything.torchvision_stand_in import torchvision_provided
from alps.engine.base.errors import AlpsError, SettingsError
from alps.engine.models.layouts import mobile_sam as layout
from alps.engine.models.layouts.base import Contents
from alps.engine.sam.config import VIT_T, ModelDefaults
from alps.engine.sam.model import MobileSam

PACKAGE = "mobile_sam"


def authors_network(model: MobileSam) -> Any:
    """Their network with the weights of ours.

    Raises:
        SettingsError: its dimensions are not MobileSAM's; theirs knows no others.
        AlpsError: their code is not there.
    """
    if model.config != VIT_T:
        raise SettingsError("MobileSAM's own code knows its one size; give a checkpoint of vit_t")
    with _importable():
        from mobile_sam.build_sam import build_sam_vit_t

        network = build_sam_vit_t()
    contents = Contents(model.config, model.state_dict(), ModelDefaults())
    network.load_state_dict(dict(layout.LAYOUT.write(contents).tensors))
    network.train()  # offsets of attention are laid out when it is set to evaluate
    return network.eval().requires_grad_(False).to(model.device)


def authors_generator() -> type:
    """The class mobile_sam.SamAutomaticMaskGenerator. Raises AlpsError where it is not there."""
    with _importable():
        from mobile_sam import SamAutomaticMaskGenerator
    return SamAutomaticMaskGenerator


@contextmanager
def _importable() -> Iterator[None]:
    with torchvision_provided(PACKAGE), _timm_provided():
        try:
            yield
        except ModuleNotFoundError as error:
            if error.name != PACKAGE:
                raise
            raise AlpsError(
                "MobileSAM's own code is not there; put a checkout of ChaoningZhang/MobileSAM on "
                "PYTHONPATH"
            ) from error


@contextmanager
def _timm_provided() -> Iterator[None]:
    """Within it timm imports: itself, or else a stand-in, of which nobody knows later."""
    if PACKAGE in sys.modules:
        yield
        return
    try:
        import timm.models.layers  # noqa: F401
    except Exception:  # missing, or broken by a torchvision that does not fit
        names = ("timm", "timm.models", "timm.models.layers", "timm.models.registry")
        modules: dict[str, Any] = {name: types.ModuleType(name) for name in names}
        modules["timm.models.layers"].DropPath = _DropPath
        modules["timm.models.layers"].to_2tuple = lambda side: (side, side)
        modules["timm.models.layers"].trunc_normal_ = nn.init.trunc_normal_
        modules["timm.models.registry"].register_model = lambda function: function
        for name, module in modules.items():
            module.__path__ = []
            sys.modules[name] = module
        try:
            yield
        finally:
            for name in names:
                sys.modules.pop(name, None)
    else:
        yield


class _DropPath(nn.Module):
    """Drops nothing: MobileSAM is built without."""

    def __init__(self, drop_prob: float | None = None) -> None:
        super().__init__()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens
