"""Class probabilities of windows, and their sums where windows overlap, from top to bottom."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alps.engine.base.device import sum_type
from alps.engine.images.windows import Window
from alps.trainer.segmentation.models import logits

T = TypeVar("T")


def probabilities(
    model: nn.Module,
    patches: list[np.ndarray],
    side: int,
    autocast: Callable[[], torch.autocast],
    shrink: int = 1,
) -> Tensor:
    """(n, C, side, side) float32 of patches (h, w, 3) uint8; beyond a smaller one it is mirrored.

    shrink: the model sees patches so many times smaller; ``side`` is a multiple of it.
    """
    device = next(model.parameters()).device
    whole = [_filled(patch, side) for patch in patches]
    if shrink > 1:
        small = side // shrink
        whole = [cv2.resize(patch, (small, small), interpolation=cv2.INTER_AREA) for patch in whole]
    batch = torch.from_numpy(np.stack(whole)).permute(0, 3, 1, 2).to(device)
    with autocast():
        found = logits(model, batch)
    if shrink > 1:
        found = F.interpolate(found.float(), size=side, mode="bilinear", align_corners=False)
    return found.float().softmax(dim=1)


def hann(side: int, device: torch.device) -> Tensor:
    """Weights of a window's pixels, (side, side) float32: least at its edges, but never 0."""
    at = (torch.arange(side, dtype=sum_type(device), device=device) + 0.5) * (torch.pi / side)
    line = torch.sin(at) ** 2
    return (line[:, None] * line).float()


class RowSums:
    """Sums over the windows that cover each pixel, of the rows in flight: (C, rows, width).

    Windows of one height come row by row from the top. Memory is that of one row of windows.
    """

    def __init__(self, like: Tensor, rows: int, width: int, top: int = 0) -> None:
        """``like``: (C, …), of the type and on the device of what is added; ``rows`` a window's;
        ``top``: of the first row of windows.
        """
        self._sums = like.new_zeros(len(like), rows, width)
        self.top = top  # row of the image that is the first one held

    def add(self, window: Window, values: Tensor) -> None:
        """Add ``values`` (C, h, w), of which the window's own pixels count."""
        y = window.y - self.top
        place = self._sums[:, y : y + window.height, window.x : window.x + window.width]
        place += values[:, : window.height, : window.width]

    def above(self, y: int) -> Tensor:
        """The sums of all rows held that are above row ``y``; a view until ``drop``."""
        return self._sums[:, : y - self.top]

    def drop(self, y: int) -> None:
        """Let go of the rows above row ``y``, and make room for as many below."""
        step, rows = y - self.top, self._sums.shape[1]
        if not step:
            return
        # Block by block: a copy from a tensor onto itself must not overlap.
        for start in range(step, rows, step):
            end = min(start + step, rows)
            self._sums[:, start - step : end - step] = self._sums[:, start:end]
        self._sums[:, max(rows - step, 0) :] = 0
        self.top = y


def parts(items: list[T], size: int) -> Iterator[list[T]]:
    """A list, at most ``size`` items at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _filled(patch: np.ndarray, side: int) -> np.ndarray:
    around = [(0, side - patch.shape[0]), (0, side - patch.shape[1]), (0, 0)]
    return np.pad(patch, around, mode="symmetric")
