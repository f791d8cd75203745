"""What follows the masks, whoever computes it: one protocol, of which the CPU is the reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from alps.engine.masks.gate import Gate
from alps.engine.masks.generator import Segments


@dataclass(frozen=True)
class ToSegment:
    """An image of a batch."""

    rgb: np.ndarray  # (H, W, 3) uint8
    gate: Gate  # of ``MaskGenerator.gate``
    embeddings: Sequence[Tensor] | None = None  # (C, h, w) of its crops; None: it is encoded


class Pending(Protocol):
    """Segments of an image on their way."""

    def segments(self) -> Segments:
        """Wait for them. In any thread, once.

        Raises:
            ValueError: a mask covers no cell of the embedding, or its score is no number.
        """
        ...


class Postprocessor(Protocol):
    """From images and their embeddings to segments."""

    def find(self, images: Sequence[ToSegment]) -> list[Pending]:
        """Ask for the masks of a batch, and begin with all that follows.

        Called by one thread at a time, the one that runs the network.
        """
        ...
