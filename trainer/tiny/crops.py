"""Square pieces of real images, and the pieces of their labels."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from alps.engine.demo.scenes.labels import components
from alps.engine.images.raster import RasterReader
from alps.engine.images.sources import Source
from alps.engine.images.windows import Window
from alps.trainer.tiny.recipe import PoolSettings


class Cropper:
    """Square pieces of real images, flipped and turned, scaled to the input's size.

    Args:
        sources: the images.
        size: of a piece, in pixels of the network's input.
        settings: which pieces.
        labels: index images, 255 unknown, or masks of 0 and 255; they belong to the sources that
            have their names, whatever the ending.
    """

    def __init__(
        self,
        sources: list[Source],
        size: int,
        settings: PoolSettings,
        labels: Sequence[Source] = (),
    ) -> None:
        self.sources, self.size, self.settings = sources, size, settings
        self.labels = {Path(source.name).stem: source for source in labels}
        sides = []
        for source in sources:
            with RasterReader(source.path) as reader:
                sides.append(np.sqrt(reader.width * reader.height))
        # By their sides, so that large images do not drown small ones.
        self.weights = np.array(sides) / np.sum(sides)

    def crop(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Crop number ``index``: (S, S, 3) uint8, and (S, S) int32 pieces of its classes, 0 none.

        The pieces are None where the image has no labels, and in some crops of those that have.
        """
        settings, size = self.settings, self.size
        rng = np.random.default_rng([settings.seed, index])
        for _ in range(20):
            source = self.sources[rng.choice(len(self.sources), p=self.weights)]
            with RasterReader(source.path) as reader:
                scale = rng.uniform(*settings.crop_scale)
                side = int(min(size * scale, reader.width, reader.height))
                x, y = rng.integers(reader.width - side + 1), rng.integers(reader.height - side + 1)
                window = Window(int(x), int(y), side, side)
                tile = reader.read(window)
            if tile.valid.mean() > 0.9:
                break
        turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
        how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
        image = _placed(tile.rgb, turns, flip, size, how)
        labels = self.labels.get(Path(source.name).stem)
        if labels is None or rng.random() >= settings.labelled:
            return image, None
        with RasterReader(labels.path) as reader:
            classes = reader.read(window).rgb[..., 0]
        classes = _placed(classes, turns, flip, size, cv2.INTER_NEAREST)
        known = classes == 255 if set(np.unique(classes)) <= {0, 255} else classes < 255
        return image, np.where(known, components(classes), 0)


def _placed(array: np.ndarray, turns: int, flip: bool, size: int, how: int) -> np.ndarray:
    """A square array turned, scaled to ``size``, and flipped from left to right."""
    turned = cv2.resize(np.rot90(array, turns), (size, size), interpolation=how)
    return np.ascontiguousarray(turned[:, ::-1] if flip else turned)
