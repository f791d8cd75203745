"""Layers that SAM's encoders and its decoder share."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def modules(several: Iterable[M]) -> Sequence[M]:
    """An ``nn.ModuleList``, by a type that says of what kind its modules are."""
    return cast("Sequence[M]", nn.ModuleList(several))


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of an image, (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, image: Tensor) -> Tensor:
        """Normalise each pixel over its channels."""
        channels_last = image.permute(0, 2, 3, 1)
        normed = nn.functional.layer_norm(
            channels_last, channels_last.shape[-1:], self.weight, self.bias, self.eps
        )
        return normed.permute(0, 3, 1, 2)


class TwoLayerMLP(nn.Module):
    """Linear, activation, linear; the feed-forward part of every transformer block here."""

    def __init__(self, width: int, hidden: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)
        self.act = activation()

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, width) -> (…, width)."""
        return self.lin2(self.act(self.lin1(tokens)))


class HeadMLP(nn.Module):
    """Linear layers with ReLU between them; SAM's hypernetworks and its IoU head."""

    def __init__(self, width: int, hidden: int, out: int, depth: int) -> None:
        super().__init__()
        widths = [width] + [hidden] * (depth - 1) + [out]
        self.layers = modules(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, width) -> (…, out)."""
        *hidden_layers, last = self.layers
        for layer in hidden_layers:
            tokens = torch.relu(layer(tokens))
        return last(tokens)
