"""The loss of `tiny`: several true masks at one point are matched to the three outputs.

A point on a roof means the roof face, the house, or the block; scenes and region hierarchies know
all of them. Each true mask is assigned an output of its own, the assignment with the least cost
counts. One pass of the decoder is so supervised up to three times, and the outputs stay apart.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import permutations
from operator import add

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class MaskLoss:
    """What a batch of S prompts costs, and how good its masks are."""

    total: Tensor  # scalar, differentiable
    best_iou: Tensor  # scalar: mean over true masks of the best output's IoU
    picked_iou: Tensor  # scalar: mean IoU of the output with the highest predicted IoU
    iou_error: Tensor  # scalar: mean absolute error of predicted IoU


def mask_loss(
    logits: Tensor, predicted_iou: Tensor, truth: Tensor, valid: Tensor, balance: float
) -> MaskLoss:
    """Dice + 10 focal + ``balance`` x class-balanced BCE over the best assignment.

    Args:
        logits: (S, M, h, w) of the three multimask outputs, or of the single one.
        predicted_iou: (S, M)
        truth: (S, M, h, w) in 0…1, the share of a pixel that the mask covers.
        valid: (S, M) bool, which of the true masks exist.
        balance: weight of the balanced term, which keeps early masks from collapsing to nothing.
    """
    x, t = logits.flatten(2).float(), truth.flatten(2).float()
    pixels = x.shape[-1]
    inside, outside = F.softplus(-x), F.softplus(x)  # -log p, -log (1 - p)
    p = x.sigmoid()
    area = t.sum(-1)[:, :, None]  # (S, G, 1)

    def over(quantity: Tensor) -> Tensor:
        """Sum over each true mask: (S, M, P) -> (S, G, M)."""
        return t @ quantity.transpose(1, 2)

    def beside(quantity: Tensor) -> Tensor:
        """Sum outside each true mask: (S, M, P) -> (S, G, M)."""
        return quantity.sum(-1)[:, None, :] - over(quantity)

    dice = 1 - (2 * over(p) + 1) / (area + p.sum(-1)[:, None, :] + 1)
    focal = (over((1 - p) ** 2 * inside) + beside(p**2 * outside)) / (2 * pixels)
    balanced = over(inside) / (area + 1) + beside(outside) / (pixels - area + 1)
    cost = dice + 10 * focal + balance * balanced  # (S, G, M)

    weight = valid.float()
    masked = cost * weight[:, :, None]
    outputs = logits.shape[1]
    by_assignment = torch.stack(
        [
            reduce(add, [masked[:, g, m] for g, m in enumerate(order)])
            for order in permutations(range(outputs))
        ],
        dim=1,
    )
    count = weight.sum().clamp(min=1)
    assigned = by_assignment.min(1).values.sum() / count
    # A little of every pair keeps unassigned outputs from drifting off.
    everywhere = masked.sum() / (outputs * count)

    with torch.no_grad():
        iou = _iou(x > 0, t > 0.5).masked_fill(~valid[:, :, None], 0)  # (S, G, M)
        real = iou.max(1).values  # a mask is as good as the true mask it fits best
        asked = valid.any(1)
        best = (iou.max(2).values * weight).sum() / count
        pick = _mean(real.gather(1, predicted_iou.argmax(1, keepdim=True)), asked)
    error = predicted_iou.float() - real
    iou_loss = _mean(error**2, asked)
    return MaskLoss(
        total=assigned + 0.05 * everywhere + iou_loss,
        best_iou=best,
        picked_iou=pick,
        iou_error=_mean(error.abs(), asked).detach(),
    )


def _mean(values: Tensor, asked: Tensor) -> Tensor:
    """The mean of values (S, M) of the prompts (S,) that count; 0 where none does."""
    count = asked.sum().clamp(min=1) * values.shape[1]
    return (values * asked[:, None]).sum() / count


def _iou(masks: Tensor, truth: Tensor) -> Tensor:
    """Pairwise IoU of (S, M, P) and (S, G, P) bool -> (S, G, M)."""
    masks, truth = masks.float(), truth.float()
    both = truth @ masks.transpose(1, 2)
    union = truth.sum(-1)[:, :, None] + masks.sum(-1)[:, None, :] - both
    return both / union.clamp(min=1)
