"""Points on images of the pool, all true masks at each, and the light that images are seen in."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from alps.trainer.tiny.pool import Pool

_AHEAD = 3  # batches


@dataclass
class Batch:
    """Some images of the pool, and points on them."""

    images: Tensor  # (B, S, S, 3) uint8
    levels: Tensor  # (B, 3, l, l) int32 region ids, fine to coarse, 0 none
    xy: Tensor  # (B, N, 2) int64, x and y in pixels of ``levels``

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        if device.type == "cuda":
            pinned = [tensor.pin_memory() for tensor in (self.images, self.levels, self.xy)]
            return Batch(*(tensor.to(device, non_blocking=True) for tensor in pinned))
        return Batch(self.images.to(device), self.levels.to(device), self.xy.to(device))

    def turned(self, turns: int, flip: bool) -> "Batch":
        """Flipped from left to right, then so many quarter turns anticlockwise."""
        images, levels, xy = self.images, self.levels, self.xy
        last = levels.shape[-1] - 1
        if flip:
            images, levels = images.flip(2), levels.flip(3)
            xy = torch.stack([last - xy[..., 0], xy[..., 1]], -1)
        images, levels = images.rot90(turns, (1, 2)), levels.rot90(turns, (2, 3))
        for _ in range(turns % 4):  # x -> y, y -> last - x
            xy = torch.stack([xy[..., 1], last - xy[..., 0]], -1)
        return Batch(images, levels, xy)


@dataclass
class Prompts:
    """Points on B images with all true masks at each."""

    xy: Tensor  # (B, N, 2) float32, input pixels
    truth: Tensor  # (B·N, 3, l/2, l/2) float32 share of each pixel
    valid: Tensor  # (B·N, 3) bool


def batches(
    pool: Pool, *, seed: int, start: int, images: int, points: int
) -> Generator[Batch, None, None]:
    """Endless batches; batch number ``start`` is the same however the run got there.

    Some are drawn ahead, by threads.
    """

    def draw(step: int) -> Batch:
        rng = np.random.default_rng([seed, step])
        index = np.sort(rng.choice(len(pool), images, replace=False))
        levels = np.asarray(pool.levels[index])
        return Batch(
            images=torch.from_numpy(np.asarray(pool.images[index])),
            levels=torch.from_numpy(levels.astype(np.int32)),
            xy=torch.from_numpy(np.stack([draw_points(level, rng, points) for level in levels])),
        )

    steps = iter(range(start, 2**31))
    with ThreadPoolExecutor(_AHEAD) as threads:
        drawn = deque(threads.submit(draw, step) for step in islice(steps, _AHEAD))
        for step in steps:
            drawn.append(threads.submit(draw, step))
            yield drawn.popleft().result()


def draw_points(levels: np.ndarray, rng: np.random.Generator, points: int) -> np.ndarray:
    """Points on one image, half of them uniform over pixels, half over regions.

    Args:
        levels: (L, s, s) region ids.

    Returns:
        (points, 2) int64, x and y in pixels of ``levels``.
    """
    count, side, _ = levels.shape
    pixel = rng.integers(0, side * side, points)
    of_level = rng.integers(0, count, points // 2)
    for level in range(count):
        own = np.flatnonzero(of_level == level)
        ids = levels[level].ravel()
        # A pixel weighs 1 / area of its region, so that all regions weigh the same.
        reach = np.cumsum(1 / np.bincount(ids)[ids])
        drawn = np.searchsorted(reach, rng.random(len(own)) * reach[-1], side="right")
        pixel[own] = np.minimum(drawn, len(ids) - 1)
    return np.stack([pixel % side, pixel // side], axis=1)


def masks_at(batch: Batch, min_pixels: int, max_share: float, size: int) -> Prompts:
    """The true masks at a batch's points, on the device where it lies.

    Args:
        batch: B images, N points each.
        min_pixels: of a mask, in pixels of ``batch.levels``; smaller ones do not count.
        max_share: of the image, above which a mask does not count.
        size: side of the network's input, in whose pixels points are handed out.
    """
    levels, xy = batch.levels, batch.xy
    side = levels.shape[-1]
    rows = torch.arange(len(levels), device=levels.device)[:, None]
    at_points = levels[rows, :, xy[..., 1], xy[..., 0]].flatten(0, 1)  # (B·N, 3)
    of_image = levels.repeat_interleave(xy.shape[1], 0)
    masks = (of_image == at_points[..., None, None]) & (at_points > 0)[..., None, None]
    area = masks.sum((2, 3))
    valid = (area >= min_pixels) & (area <= max_share * side * side)
    valid[:, 1:] &= area[:, 1:] != area[:, :-1]  # nested: the same area is the same mask
    covered = masks.view(torch.uint8)
    quarters = [covered[..., y::2, x::2] for y in (0, 1) for x in (0, 1)]
    truth = sum(quarters[1:], quarters[0]) * 0.25
    return Prompts((xy + 0.5) * (size / side) - 0.5, truth, valid)
