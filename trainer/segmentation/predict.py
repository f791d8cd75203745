"""Predicts a whole image with overlapping windows, from top to bottom, in bounded memory.

Where windows overlap their probabilities are averaged. No more than the rows that one row of
windows covers are held: classes x crop x width x 4 bytes.
"""

from collections.abc import Callable, Iterator
from itertools import groupby

import numpy as np
import torch
from torch import nn

from alps.engine.images.windows import Window, plan_windows
from alps.trainer.data.arrays import CachedPair
from alps.trainer.data.cache import Cache
from alps.trainer.processes import Processes
from alps.trainer.segmentation.metrics import Confusion
from alps.trainer.segmentation.models import logits
from alps.trainer.segmentation.recipe import EvaluationSettings

RowsSeen = Callable[[CachedPair, int, np.ndarray], None]  # pair, first row, classes (h, W)


@torch.inference_mode()
def predict(
    model: nn.Module,
    pixels: np.ndarray,
    crop: int,
    settings: EvaluationSettings,
    autocast: Callable[[], torch.autocast],
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (y, classes (h, W) uint8 or uint16) of an image (H, W, 3) uint8, rows in order."""
    height, width = pixels.shape[:2]
    windows = plan_windows(width, height, crop, int(settings.overlap * crop))
    sums: torch.Tensor | None = None  # (C, rows, W), rows from `top` on
    top = 0
    for y, row in groupby(windows, key=lambda window: window.y):
        if sums is not None and y > top:
            yield top, _classes(sums[:, : y - top])
            sums = sums[:, y - top :]
        top = y
        for some in _parts(list(row), settings.eval_batch):
            shares = _probabilities(model, pixels, some, crop, autocast)
            if sums is None:
                sums = shares.new_zeros(shares.shape[1], 0, width)
            missing = some[0].height - sums.shape[1]
            if missing > 0:
                sums = torch.cat([sums, sums.new_zeros(len(sums), missing, width)], dim=1)
            for window, share in zip(some, shares, strict=True):
                place = sums[:, : window.height, window.x : window.x + window.width]
                place += share[:, : window.height, : window.width]
    assert sums is not None  # every image has windows
    yield top, _classes(sums)


def measure(
    model: nn.Module,
    cache: Cache,
    crop: int,
    settings: EvaluationSettings,
    autocast: Callable[[], torch.autocast],
    group: Processes,
    seen: RowsSeen | None = None,
) -> np.ndarray:
    """The confusion matrix of the test images, (C, C) int64, over all processes.

    ``seen`` is called with the predicted rows of this process's images.
    """
    was_training = model.training
    model.eval()
    confusion = Confusion(len(cache.rules.classes))
    for pair in cache.split("test")[group.rank :: group.size]:
        labels = pair.labels(cache.root)
        for y, classes in predict(model, pair.pixels(cache.root), crop, settings, autocast):
            confusion.add(labels[y : y + len(classes)], classes)
            if seen is not None:
                seen(pair, y, classes)
    model.train(was_training)
    counts = torch.from_numpy(confusion.counts).to(group.device)
    return group.sum(counts).cpu().numpy()


def _probabilities(
    model: nn.Module,
    pixels: np.ndarray,
    windows: list[Window],
    crop: int,
    autocast: Callable[[], torch.autocast],
) -> torch.Tensor:
    """(n, C, crop, crop) float32; what lies beyond a small image is mirrored."""
    device = next(model.parameters()).device
    patches = []
    for window in windows:
        x, y = window.x, window.y
        patch = pixels[y : y + window.height, x : x + window.width]
        around = [(0, crop - window.height), (0, crop - window.width), (0, 0)]
        patches.append(np.pad(patch, around, mode="symmetric"))
    batch = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).to(device)
    with autocast():
        found = logits(model, batch)
    return found.float().softmax(dim=1)


def _classes(sums: torch.Tensor) -> np.ndarray:
    dtype = np.uint8 if len(sums) <= 255 else np.uint16
    return sums.argmax(dim=0).cpu().numpy().astype(dtype)


def _parts(windows: list[Window], size: int) -> Iterator[list[Window]]:
    for start in range(0, len(windows), size):
        yield windows[start : start + size]
