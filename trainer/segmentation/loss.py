"""Cross-entropy over the pixels that have a class, weighted by pixel and by class."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def class_weights(pixels: np.ndarray, how: str) -> Tensor:
    """Weights (C,) float32, 1 on average over the pixels; 0 for a class without pixels.

    pixels: (C,) of each class. how: ``none``, ``root`` (inverse root of the share) or ``inverse``.
    """
    shares = torch.from_numpy(pixels.astype(np.float64))
    shares = shares / shares.sum().clamp(min=1)
    power = {"none": 0.0, "root": 0.5, "inverse": 1.0}[how]
    weights = torch.where(shares > 0, shares.clamp(min=1e-12).pow(-power), 0.0)
    return (weights / (weights * shares).sum().clamp(min=1e-12)).float()


def pixel_weights(labels: Tensor, weights: Tensor, of_class: Tensor) -> Tensor:
    """What each pixel counts, (B, H, W) float32; 0 where there is no class (label -1)."""
    return weights * of_class[labels.clamp(min=0)] * (labels >= 0)


def weighted_sum(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Sum of the cross-entropy, each pixel times ``counts``; logits (B, C, H, W)."""
    each = F.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="none")
    return (each * counts).sum()
