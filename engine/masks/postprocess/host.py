"""What follows the masks on the CPU: what every other device is held against."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alps.engine.masks.generator import Found, MaskGenerator, Segments
from alps.engine.masks.postprocess.protocol import Pending, ToSegment


@dataclass(frozen=True)
class _Described:
    """Masks that are described by whoever asks for them."""

    generator: MaskGenerator
    rgb: np.ndarray
    found: Found
    rest_cells: int

    def segments(self) -> Segments:
        """See ``Pending``."""
        return self.generator.describe(self.rgb, self.found, self.rest_cells)


class HostPostprocessor:
    """Image by image, on the threads of whoever asks.

    Args:
        generator: everything mode.
        rest_cells: as of ``MaskGenerator.segment``.
    """

    def __init__(self, generator: MaskGenerator, rest_cells: int) -> None:
        self._generator, self._rest_cells = generator, rest_cells

    def find(self, images: Sequence[ToSegment]) -> list[Pending]:
        """See ``Postprocessor``."""
        return [self.find_one(image) for image in images]

    def find_one(self, image: ToSegment) -> Pending:
        """One image's."""
        with_rest = self._rest_cells > 0
        found = self._generator.find(image.rgb, image.gate, image.embeddings, with_rest)
        return _Described(self._generator, image.rgb, found, self._rest_cells)
