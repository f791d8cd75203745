"""Crops of an image, the points asked in each, and the pixels the network gets to see."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alps.engine.runtimes.protocol import ImagePart
from alps.engine.sam.config import NetworkConfig
from alps.engine.sam.model import PIXEL_MEAN, PIXEL_STD
from alps.engine.sam2 import Sam2Config
from alps.kernels.resize import resize


@dataclass(frozen=True)
class Crop:
    """A part of an image that goes through the network once."""

    x0: int
    y0: int
    x1: int  # exclusive
    y1: int  # exclusive
    layer: int  # 0: the whole image

    @property
    def height(self) -> int:
        """Rows of image pixels."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Columns of image pixels."""
        return self.x1 - self.x0

    def of(self, image: np.ndarray) -> np.ndarray:
        """View of the crop in an array (H, W, …)."""
        return image[self.y0 : self.y1, self.x0 : self.x1]

    def input_size(self, image_size: int) -> tuple[int, int]:
        """Rows and columns that the crop fills of the network's input of side ``image_size``."""
        scale = image_size / max(self.height, self.width)
        # At least one: a strip of 1 x 3000 pixels would otherwise vanish.
        height, width = (max(1, int(side * scale + 0.5)) for side in (self.height, self.width))
        return height, width

    def part_of(self, image: np.ndarray, image_size: int) -> ImagePart:
        """The crop, and what it fills of the network's input."""
        return ImagePart(self.of(image), *self.input_size(image_size))

    def mask_side(self, image_size: int, logits: int) -> int:
        """Side of the square that logits of ``logits`` x ``logits`` are brought to first."""
        return image_size


@dataclass(frozen=True)
class StretchedCrop(Crop):
    """A part of an image that fills the network's square input, whatever its own shape: SAM 2."""

    def input_size(self, image_size: int) -> tuple[int, int]:
        """All of it."""
        return image_size, image_size

    def mask_side(self, image_size: int, logits: int) -> int:
        """Their own: SAM 2 brings masks to the image's size in one step."""
        return logits


def crop_kind(config: NetworkConfig) -> type[Crop]:
    """How images enter a network's input."""
    return StretchedCrop if isinstance(config, Sam2Config) else Crop


def crops_of(
    height: int, width: int, layers: int, overlap_ratio: float, kind: type[Crop] = Crop
) -> list[Crop]:
    """The whole image, then the crops of each layer, column by column as stock SAM has them.

    Layer n has 2^n x 2^n crops; in layer 1 they overlap by ``overlap_ratio`` of the image's
    short side, in each further layer by half as much.
    """
    crops = [kind(0, 0, width, height, 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(height, width) * 2 / count)
        across, down = (
            math.ceil((overlap * (count - 1) + side) / count) for side in (width, height)
        )
        for column in range(count):
            for row in range(count):
                x0, y0 = column * (across - overlap), row * (down - overlap)
                x1, y1 = min(x0 + across, width), min(y0 + down, height)
                # An image of a few pixels has fewer crops than the layer asks for.
                if x0 < x1 and y0 < y1:
                    crops.append(kind(x0, y0, x1, y1, layer))
    return crops


def point_grid(per_side: int) -> np.ndarray:
    """Centres of per_side x per_side cells of the unit square, row by row: (n², 2) x, y."""
    margin = 1 / (2 * per_side)
    centres = np.linspace(margin, 1 - margin, per_side)
    x, y = np.meshgrid(centres, centres)
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def network_pixels(image: np.ndarray, crop: Crop, image_size: int) -> Tensor:
    """Bring a crop to the network's input.

    image: (H, W, 3) uint8 RGB. Returns (3, S, S) float32: resized as with Pillow's bilinear
    filter so that the longer side is S, normalised, then padded with zeros below or to the right. A
    stretched crop fills all of S x S, resized in float32 as SAM 2's transforms do.
    """
    height, width = crop.input_size(image_size)
    part = np.ascontiguousarray(crop.of(image))
    if isinstance(crop, StretchedCrop):
        return _normalised(_stretched(part, image_size))
    if part.shape[:2] != (height, width):
        part = resize(part, height, width)
    pixels = _normalised(torch.from_numpy(part).permute(2, 0, 1))
    return F.pad(pixels, (0, image_size - width, 0, image_size - height))


def _stretched(part: np.ndarray, side: int) -> Tensor:
    """(h, w, 3) uint8 -> (3, side, side) float32 in 0…255, smoothed where it shrinks."""
    pixels = torch.from_numpy(part).permute(2, 0, 1).float()
    if part.shape[:2] == (side, side):
        return pixels
    return F.interpolate(pixels[None], (side, side), mode="bilinear", antialias=True)[0]


def _normalised(pixels: Tensor) -> Tensor:
    """RGB (3, h, w) in 0…255 as the networks were trained with."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return (pixels - mean) / std
