"""Boxes and several points as prompts: one of the true masks at a point is meant, and one asked."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alps.trainer.tiny.prompts import Prompts

POINTS = 3  # the first and two more
_JITTER = 0.1  # of a box's side


@dataclass
class SinglePrompts:
    """Prompts that mean one mask each."""

    boxes: bool
    xy: Tensor  # (B, N, T, 2) input pixels: T points, or the two corners of a box
    labels: Tensor  # (B, N, T) 1 in the mask, 0 beside it
    truth: Tensor  # (B·N, 1, h, w) share of each pixel
    valid: Tensor  # (B·N, 1) bool


def single_prompts(prompts: Prompts, size: int, generator: torch.Generator) -> SinglePrompts:
    """Mean one of the true masks at each point and ask for it with a box or with more points.

    A box is that of the mask, its corners shifted by up to a tenth of its sides. Further points
    lie in the mask or, every third, within reach of it but outside. ``generator`` is one of the
    device on which the prompts lie.
    """
    batch, count = prompts.xy.shape[:2]
    device = prompts.xy.device
    rows = torch.arange(batch * count, device=device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    chance = uniform(*prompts.valid.shape) + prompts.valid
    meant = chance.argmax(1)
    truth, valid = prompts.truth[rows, meant], prompts.valid[rows, meant]
    scale = size / truth.shape[-1]
    inside = truth >= 0.5
    inside |= (truth == truth.flatten(1).amax(1)[:, None, None]) & (truth > 0)  # thin masks
    inside[~valid] = True
    boxes = bool(uniform() < 0.5)
    if boxes:
        columns, lines = inside.any(1).float(), inside.any(2).float()
        low = torch.stack([columns.argmax(1), lines.argmax(1)], dim=1)
        far = torch.stack([columns.flip(1).argmax(1), lines.flip(1).argmax(1)], dim=1)
        high = truth.shape[-1] - far
        shift = (uniform(len(rows), 2, 2) * 2 - 1) * _JITTER
        corners = torch.stack([low, high], dim=1) + shift * (high - low)[:, None]
        xy = (corners * scale - 0.5).clamp(0, size - 1)
        labels = torch.ones(xy.shape[:2], dtype=torch.int64, device=device)
    else:
        near = torch.nn.functional.max_pool2d(inside[:, None].float(), 9, 1, 4)[:, 0] > 0
        around = near & ~inside
        around[~around.flatten(1).any(1)] = True  # a mask that fills the tile: anywhere
        places, kinds = [], [torch.ones_like(rows)]
        for _ in range(POINTS - 1):
            outside = uniform(len(rows)) < 1 / 3
            outside &= ~(inside.flatten(1).all(1))
            among = torch.where(outside[:, None], around.flatten(1), inside.flatten(1)).float()
            cell = torch.multinomial(among, 1, generator=generator)[:, 0]
            side = truth.shape[-1]
            cells = torch.stack([cell % side, cell // side], dim=1)
            places.append((cells + 0.5) * scale - 0.5)
            kinds.append((~outside).long())
        xy = torch.stack([prompts.xy.flatten(0, 1), *places], dim=1)
        labels = torch.stack(kinds, dim=1)
    return SinglePrompts(
        boxes=boxes,
        xy=xy.unflatten(0, (batch, count)),
        labels=labels.unflatten(0, (batch, count)),
        truth=truth[:, None],
        valid=valid[:, None],
    )
