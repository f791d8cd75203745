"""A network without weights, for those who have weights to give it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from alps.engine.sam.config import MobileSamConfig, NetworkConfig, SamConfig
from alps.engine.sam.model import MobileSam, Sam, SamLike


class Unfilled(TorchFunctionMode):
    """Within it no module draws the values that it would begin with.

    On the meta device PyTorch would import its compiler for it, which takes a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Leave tensors to ``torch.nn.init`` as they are; what is drawn is memory as it comes."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)


def empty_sam(config: NetworkConfig) -> SamLike:
    """The network on the meta device, where tensors have a shape and no values."""
    with torch.device("meta"), Unfilled():
        if isinstance(config, MobileSamConfig):
            return MobileSam(config)
        assert isinstance(config, SamConfig), "another network has its own"
        return Sam(config)
