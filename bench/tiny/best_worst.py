"""A picture of the crops on which a model did best and worst, with no pixel of the images in it.

Each crop is a pair: the masks, smaller ones on top, each filled with its mean colour and outlined;
and the true segments in colours of chance. Black is what has neither.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIDE = 256  # pixels a panel
_GAP, _CAPTION = 6, 18
_ACROSS = 2  # pairs a row


@dataclass(frozen=True)
class Crop:
    """One crop's score and its two panels, (n, n, 3) uint8."""

    score: float
    masks: np.ndarray
    truth: np.ndarray


def draw_crop(rgb: np.ndarray, masks: np.ndarray, truth: np.ndarray, score: float) -> Crop:
    """Panels of a crop: rgb (n, n, 3) uint8, masks (M, n, n) bool, truth (n, n) ids, 0 none."""
    mosaic, outline = np.zeros_like(rgb), np.zeros(truth.shape, bool)
    cross = np.ones((3, 3), np.uint8)
    for index in np.argsort([-mask.sum() for mask in masks], kind="stable"):
        mask = masks[index]
        mosaic[mask] = rgb[mask].mean(0)
        outline[mask] = False  # those of larger masks beneath
        outline |= mask & ~cv2.erode(mask.astype(np.uint8), cross, borderValue=0).astype(bool)
    mosaic[outline] = (255, 240, 80)
    colours = np.random.default_rng(0).integers(60, 256, (int(truth.max()) + 1, 3), np.uint8)
    colours[0] = 0
    return Crop(score, mosaic, colours[truth])


def best_and_worst(crops: list[Crop], count: int) -> list[Crop]:
    """The ``count`` best, best first, then the ``count`` worst, worst last."""
    ranked = sorted(crops, key=lambda crop: -crop.score)
    return ranked[:count] + ranked[max(count, len(ranked) - count) :]


def write_picture(crops: list[Crop], path: Path) -> None:
    """Write pairs two a row, each under its score, as PNG."""
    pairs = [_pair(crop) for crop in crops]
    blank = np.full_like(pairs[0], 255)
    pairs += [blank] * (-len(pairs) % _ACROSS)
    rows = [
        np.concatenate(pairs[first : first + _ACROSS], axis=1)
        for first in range(0, len(pairs), _ACROSS)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.concatenate(rows)).quantize(128, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def _pair(crop: Crop) -> np.ndarray:
    panels = [
        cv2.resize(panel, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
        for panel in (crop.masks, crop.truth)
    ]
    pair = np.full((_CAPTION + SIDE + _GAP, 2 * (SIDE + _GAP) + _GAP, 3), 255, np.uint8)
    for place, panel in enumerate(panels):
        pair[_CAPTION : _CAPTION + SIDE, place * (SIDE + 2) : place * (SIDE + 2) + SIDE] = panel
    text = f"mean best IoU {crop.score:.2f}"
    cv2.putText(pair, text, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return pair
