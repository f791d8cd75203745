"""Self-training: the running average of a model's weights labels images that nobody labelled.

What the average says of single pixels is noisy, and a model that learns its own noise gets no
better. An object of a run folder is one thing, so all its pixels get the class with the largest
mean probability over it, and it is learnt only where that is large. The average sees a crop as it
is drawn, the model the same crop with its colours changed further: it learns that they do not
matter (arXiv 2001.07685; with an average as the teacher 1703.01780).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from alps.trainer.data.loader import Batch, Drawn
from alps.trainer.segmentation.models import logits
from alps.trainer.segmentation.recipe import SelfTrainingSettings
from alps.trainer.segmentation.targets import Classes

GREY = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


@dataclass(frozen=True)
class Unlabelled:
    """Crops without labels, with numbers of objects, and how they are labelled."""

    samples: Drawn
    settings: SelfTrainingSettings
    autocast: Callable[[], torch.autocast]
    of_class: Tensor  # (C,) float32, all 1: what is common among them is not known
    seed: int

    @property
    def weight(self) -> float:
        """Of their loss beside that of real labels."""
        return self.settings.unlabelled_weight

    @property
    def target(self) -> Classes:
        """What is learnt of them."""
        return Classes(self.of_class, "unlabelled")

    def begin(self, steps: int) -> int:
        """The first step, of so many, that learns from them."""
        return math.ceil(self.settings.unlabelled_from * steps)

    def labelled(self, teacher: nn.Module, batch: Batch, step: int) -> Batch:
        """Crops with the teacher's labels, and with colours that it did not see."""
        assert batch.objects is not None  # the cache of a run folder was asked for them
        with torch.no_grad(), self.autocast():
            chances = logits(teacher, batch.pixels).float().softmax(dim=1)
        labels = voted(chances, batch.objects, self.settings.confidence)
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        pixels = recoloured(batch.pixels, self.settings.unlabelled_colour, random)
        return replace(batch, pixels=pixels, labels=labels)


def voted(chances: Tensor, objects: Tensor, confidence: float) -> Tensor:
    """The class of each object, (B, S, S) int64, -1 in none and where it is in doubt.

    chances: (B, C, S, S) float32, of the classes. objects: (B, S, S) int64 numbers within each
    image, -1 in none. confidence: least mean of the chances of the largest class in an object.
    """
    images, classes = chances.shape[:2]
    # One number for each object of each image.
    apart = objects + torch.arange(images, device=objects.device)[:, None, None] * (
        int(objects.max()) + 2
    )
    known, which = apart.unique(return_inverse=True)
    each = chances.permute(0, 2, 3, 1).reshape(-1, classes)
    sums = each.new_zeros(len(known), classes).index_add_(0, which.flatten(), each)
    pixels = which.flatten().bincount(minlength=len(known))
    best, of_object = (sums / pixels[:, None]).max(dim=1)
    labels = of_object.masked_fill(best < confidence, -1)[which]
    return labels.masked_fill(objects < 0, -1)


def recoloured(pixels: Tensor, most: float, random: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation of each image changed by up to ``most``.

    pixels: (B, 3, S, S) uint8, which is also what comes back. random: on the CPU, so that every
    device changes alike.
    """
    drawn = torch.rand(3, len(pixels), 1, 1, 1, generator=random) * 2 - 1
    bright, contrast, saturation = (1 + most * drawn).to(pixels.device)
    values = pixels.float()
    grey = (values * values.new_tensor(GREY).view(3, 1, 1)).sum(dim=1, keepdim=True)
    values = grey + (values - grey) * saturation
    mean = grey.mean(dim=(2, 3), keepdim=True)
    values = (values - mean) * contrast + mean * bright
    return values.round().clamp(0, 255).to(torch.uint8)
