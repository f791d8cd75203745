"""How far the student's embedding is from the teacher's.

Decoupled distillation (MobileSAM, arXiv 2306.14289) needs no prompts and no masks: the squared
error between image embeddings is enough. Two things are added that others have found useful when
vision models are distilled (Theia, arXiv 2407.20179; PHI-S, arXiv 2410.01680): each channel is
first standardised by the teacher's own mean and deviation, since a few strong channels would drown
the rest; and the cosine between the standardised vectors of a cell asks for their direction beside
their values.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Of the mean deviation over channels. A channel that hardly varies must not outweigh all others.
LEAST_DEVIATION = 0.05


@dataclass
class Statistics:
    """The teacher's embedding, channel by channel, over cells that show something."""

    mean: Tensor  # (C,) float32
    deviation: Tensor  # (C,) float32

    def standardise(self, embedding: Tensor) -> Tensor:
        """(B, C, h, w) -> float32 of the same shape, mean 0 and deviation 1 for the teacher."""
        mean, deviation = self.mean[:, None, None], self.deviation[:, None, None]
        return (embedding.float() - mean) / deviation

    def to(self, device: torch.device) -> "Statistics":
        """The same numbers on another device."""
        return Statistics(self.mean.to(device), self.deviation.to(device))


@dataclass
class EmbeddingLoss:
    """Loss of a batch, and sums over its cells that add up over processes."""

    total: Tensor  # (), to be differentiated
    squared: Tensor  # (), squared error a channel, summed over cells by weight
    cosine: Tensor  # (), 1 - cosine, likewise
    weight: Tensor  # (), of all cells


def measure_statistics(embeddings: Tensor, weight: Tensor) -> Statistics:
    """Mean and deviation of each channel.

    Args:
        embeddings: (N, C, h, w)
        weight: (N, h, w), share of each cell that shows something; not all 0.
    """
    values, share = embeddings.double(), weight.double()[:, None]
    total = share.sum()
    mean = (values * share).sum((0, 2, 3)) / total
    variance = ((values - mean[:, None, None]).square() * share).sum((0, 2, 3)) / total
    deviation = variance.sqrt()
    floor = (LEAST_DEVIATION * deviation.mean()).clamp(min=1e-6)
    return Statistics(mean.float(), deviation.clamp(min=floor).float())


def embedding_loss(
    student: Tensor, teacher: Tensor, weight: Tensor, statistics: Statistics, cosine: float
) -> EmbeddingLoss:
    """Squared error plus ``cosine`` times (1 - cosine), a cell by its weight.

    Args:
        student: (B, C, h, w)
        teacher: (B, C, h, w)
        weight: (B, h, w) in 0…1, the share of a cell that shows something; padding has 0.
        statistics: of the teacher.
        cosine: weight of the cosine's part.

    ``total`` is divided by the cells of the batch, shown or not: a number that all processes know,
    so that the mean of their gradients is the gradient of the whole batch.
    """
    ours, theirs = statistics.standardise(student), statistics.standardise(teacher)
    squared = ((ours - theirs).square().mean(1) * weight).sum()
    apart = ((1 - F.cosine_similarity(ours, theirs, dim=1)) * weight).sum()
    return EmbeddingLoss(
        total=(squared + cosine * apart) / weight.numel(),
        squared=squared.detach(),
        cosine=apart.detach(),
        weight=weight.sum(),
    )


def mean_cosine(student: Tensor, teacher: Tensor, weight: Tensor) -> float:
    """Mean cosine between embeddings (B, C, h, w) over cells, by their weight (B, h, w)."""
    cosine = torch.cosine_similarity(student.float(), teacher.float(), dim=1)
    return float((cosine * weight).sum() / weight.sum().clamp(min=1e-9))
