"""Predicts a whole image with overlapping windows, from top to bottom, in bounded memory.

Where windows overlap their probabilities are averaged. No more than the rows that one row of
windows covers are held: classes x crop x width x 4 bytes.
"""

from collections.abc import Callable, Iterator
from itertools import groupby

import numpy as np
import torch
from torch import nn

from alps.engine.images.windows import plan_windows
from alps.trainer.data.arrays import CachedPair
from alps.trainer.data.cache import Cache
from alps.trainer.processes import Processes
from alps.trainer.segmentation.blend import RowSums, parts, probabilities
from alps.trainer.segmentation.metrics import Confusion
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
    sums: RowSums | None = None
    for y, row in groupby(windows, key=lambda window: window.y):
        if sums is not None:
            yield sums.top, _classes(sums.above(y))
            sums.drop(y)
        for some in parts(list(row), settings.eval_batch):
            patches = [pixels[w.y : w.y + w.height, w.x : w.x + w.width] for w in some]
            shares = probabilities(model, patches, crop, autocast)
            sums = sums or RowSums(shares[0], some[0].height, width)
            for window, share in zip(some, shares, strict=True):
                sums.add(window, share)
    assert sums is not None  # every image has windows
    yield sums.top, _classes(sums.above(height))


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


def _classes(sums: torch.Tensor) -> np.ndarray:
    dtype = np.uint8 if len(sums) <= 255 else np.uint16
    return sums.argmax(dim=0).cpu().numpy().astype(dtype)
