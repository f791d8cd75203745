"""What is learnt at once: each target has channels of the last layer, and a loss of its own.

Classes and edges are told pixel by pixel, at the size of the crop. Vectors are told on the coarser
grid on which the network itself answers: they are wide, and change from region to region alone.
The last layer has the channels of all targets one after the other, those of the model's classes
first; the others are cut off when it has learnt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from alps.engine.base.device import sum_type
from alps.trainer.data.cache import Cache
from alps.trainer.data.loader import Batch
from alps.trainer.data.regions import MASKS
from alps.trainer.data.settings import PseudoSettings
from alps.trainer.segmentation.loss import pixel_weights, weighted_sum
from alps.trainer.segmentation.models import at_size

T = TypeVar("T")


class Target(Protocol):
    """One of them."""

    @property
    def name(self) -> str:
        """Of its loss in the log."""
        ...

    @property
    def channels(self) -> int:
        """Of the last layer."""
        ...

    def weights(self, batch: Batch) -> Tensor:
        """What each place counts, (B, …) float32; 0 where nothing is known."""
        ...

    def loss(self, found: Tensor, batch: Batch, weights: Tensor) -> Tensor:
        """Sum over all places of their losses, each times its weight.

        found: (B, channels, h, w), what the network answered on a grid of its own.
        """
        ...


@dataclass(frozen=True)
class Classes:
    """The class of each pixel, by cross-entropy."""

    of_class: Tensor  # (C,) float32, weights of the classes
    name: str = "classes"

    @property
    def channels(self) -> int:
        """One a class."""
        return len(self.of_class)

    def weights(self, batch: Batch) -> Tensor:
        """See ``Target``: (B, S, S)."""
        return pixel_weights(batch.labels, batch.weights, self.of_class)

    def loss(self, found: Tensor, batch: Batch, weights: Tensor) -> Tensor:
        """See ``Target``."""
        return weighted_sum(at_size(found, batch.labels.shape), batch.labels, weights)


@dataclass(frozen=True)
class Masks:
    """Whether a pixel lies inside an object or on its edge, by cross-entropy."""

    name: str = "masks"
    channels: int = len(MASKS)

    def weights(self, batch: Batch) -> Tensor:
        """See ``Target``: (B, S, S)."""
        return batch.weights * (_given(batch.objects) >= 0)

    def loss(self, found: Tensor, batch: Batch, weights: Tensor) -> Tensor:
        """See ``Target``."""
        inside = inside_of(_given(batch.objects))
        return weighted_sum(at_size(found, inside.shape), inside, weights)


@dataclass(frozen=True)
class Vectors:
    """What a region's embeddings are clustered by, by 1 - cosine: its length says nothing."""

    channels: int
    name: str = "vectors"

    def weights(self, batch: Batch) -> Tensor:
        """See ``Target``: (B, s, s)."""
        wanted = _given(batch.vectors)
        step = batch.weights.shape[-1] // wanted.shape[-1]
        coarse = batch.weights[:, step // 2 :: step, step // 2 :: step]
        return coarse * (wanted != 0).any(dim=1)

    def loss(self, found: Tensor, batch: Batch, weights: Tensor) -> Tensor:
        """See ``Target``."""
        wanted = _given(batch.vectors)
        found = found.float()
        if found.shape[-2:] != wanted.shape[-2:]:
            found = F.interpolate(found, size=wanted.shape[-2:], mode="area")
        return ((1 - F.cosine_similarity(found, wanted, dim=1)) * weights).sum()


def inside_of(objects: Tensor) -> Tensor:
    """Numbers of objects (B, S, S) int64 -> (B, S, S) int64: 1 inside, 0 on an edge, -1 in none.

    An edge is a pixel beside one of another object, or of none; of what lies beyond the crop
    nothing is known.
    """
    inside = torch.ones_like(objects)
    across = objects[:, :, 1:] != objects[:, :, :-1]
    along = objects[:, 1:] != objects[:, :-1]
    inside[:, :, 1:][across] = 0
    inside[:, :, :-1][across] = 0
    inside[:, 1:][along] = 0
    inside[:, :-1][along] = 0
    return inside.masked_fill(objects < 0, -1)


def targets_of(pseudo: PseudoSettings, cache: Cache, of_class: Tensor) -> list[Target]:
    """What the settings ask for, in the order of its channels; real labels are classes alone.

    of_class: (C,) float32, weights of the classes that the arrays of labels hold, on the device.
    """
    found: list[Target] = [Classes(of_class, pseudo.painted)]
    if "masks" in pseudo.names and pseudo.painted != "masks":
        found.append(Masks())
    if "vectors" in pseudo.names:
        vectors = cache.pairs[0].vectors(cache.root)
        found.append(Vectors(_given(vectors).shape[1]))
    return found


def totals(targets: Sequence[Target], batch: Batch) -> tuple[list[Tensor], Tensor]:
    """What each place of a batch counts for each target, and its sums, (T,) as wide as can be."""
    weights = [target.weights(batch) for target in targets]
    return weights, torch.stack([one.to(sum_type(one.device)).sum() for one in weights])


def losses(
    targets: Sequence[Target], found: Tensor, batch: Batch, weights: Sequence[Tensor]
) -> Tensor:
    """The sum of each target's loss over the places of a batch, (T,) float32.

    found: (B, channels of all targets, h, w).
    """
    each = found.split([target.channels for target in targets], dim=1)
    return torch.stack(
        [
            target.loss(own, batch, counts)
            for target, own, counts in zip(targets, each, weights, strict=True)
        ]
    )


def _given(part: T | None) -> T:
    assert part is not None  # samples have what the settings ask for
    return part
