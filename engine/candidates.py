"""From logits to masks: upsampled, checked for stability, clipped, boxed and packed.

Full-size logits exist for a few masks at a time only; what passes is kept as bits of its box.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alps.engine.crops import Crop
from alps.engine.runtime import DecodedMasks

MASK_THRESHOLD = 0.0  # of the logits, SAM's
EDGE_PIXELS = 20.0  # a box this near to a crop's edge is taken for cut off
CHUNK_BYTES = 16 << 20  # of full-size logits at a time


@dataclass(frozen=True)
class Gate:
    """Which masks are wanted at all, and which of their pixels."""

    valid: np.ndarray | None = None  # (H, W) bool: a mask keeps these pixels only
    min_area: int = 0  # pixels
    max_area: float = float("inf")  # pixels

    def passes(self, area: np.ndarray) -> np.ndarray:
        """Whether masks of these areas (N,) are wanted: (N,) bool."""
        return (area >= self.min_area) & (area <= self.max_area)


@dataclass(frozen=True)
class StabilityRule:
    """A mask is stable if it hardly changes when the threshold of its logits moves."""

    offset: float
    at_least: float  # 0 or less: no mask is dropped


@dataclass
class Candidates:
    """N masks of one image, each as the packed bits of its box."""

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    """(N, 4) first column, first row, last column, last row; all 0 for a mask without pixels."""
    area: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (N,) pixels
    predicted_iou: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # (N,)
    stability_score: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # (N,)
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # (N, 2) x, y
    crop: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (N,) index
    bits: list[np.ndarray] = field(default_factory=list)  # N x uint8, rows of the box end to end

    def __len__(self) -> int:
        return len(self.area)

    def take(self, which: np.ndarray) -> "Candidates":
        """Those at ``which``, indices or (N,) bool, in that order."""
        indices = np.flatnonzero(which) if which.dtype == bool else which
        return Candidates(
            boxes=self.boxes[indices],
            area=self.area[indices],
            predicted_iou=self.predicted_iou[indices],
            stability_score=self.stability_score[indices],
            points=self.points[indices],
            crop=self.crop[indices],
            bits=[self.bits[i] for i in indices],
        )

    def mask(self, index: int, height: int, width: int) -> np.ndarray:
        """One mask (height, width) bool; height and width are the image's."""
        x0, y0, x1, y1 = self.boxes[index]
        shape = y1 - y0 + 1, x1 - x0 + 1
        mask = np.zeros((height, width), bool)
        pixels = np.unpackbits(self.bits[index], count=shape[0] * shape[1])
        mask[y0 : y1 + 1, x0 : x1 + 1] = pixels.reshape(shape)
        return mask

    @staticmethod
    def join(parts: Sequence["Candidates"]) -> "Candidates":
        """All of several, in their order."""
        parts = [Candidates(), *parts]
        arrays = ("boxes", "area", "predicted_iou", "stability_score", "points", "crop")
        return Candidates(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in arrays},
            bits=[bits for part in parts for bits in part.bits],
        )


def candidates_of(
    decoded: DecodedMasks,
    points: np.ndarray,
    crop: Crop,
    stability: StabilityRule,
    gate: Gate,
    *,
    image_size: int,
    crop_index: int,
    whole: tuple[int, int],
) -> Candidates:
    """Bring decoded masks of a crop to full size and keep those that pass.

    Args:
        decoded: M masks and the points they answer.
        points: (N, 2) x, y in image pixels; ``decoded.point_index`` points into it.
        crop: where in the image the masks lie.
        stability: the rule that drops unstable masks.
        gate: what of a mask counts, and which sizes are wanted.
        image_size: side of the network's input.
        crop_index: kept with each mask.
        whole: height and width of the image.

    Returns:
        The masks that pass, in image pixels, in their order.
    """
    per_chunk = max(1, CHUNK_BYTES // (4 * max(image_size**2, crop.height * crop.width)))
    parts = []
    for first in range(0, len(decoded.logits), per_chunk):
        some = slice(first, first + per_chunk)
        logits = upsample(decoded.logits[some], crop, image_size)
        score = stability_scores(logits, stability.offset)
        stable = np.ones(len(score), bool)
        if stability.at_least > 0:
            stable = score >= stability.at_least  # NaN, no pixel at either threshold, is dropped
        if not stable.any():
            continue
        masks = (logits[torch.from_numpy(stable).to(logits.device)] > MASK_THRESHOLD).cpu().numpy()
        if gate.valid is not None:
            masks &= crop.of(gate.valid)
        point_index = decoded.point_index[some].cpu().numpy()[stable]
        predicted_iou = decoded.predicted_iou[some].cpu().numpy()[stable]
        boxes = np.array([box_of(mask) for mask in masks], np.int64)
        found = Candidates(
            boxes=boxes + np.array([crop.x0, crop.y0] * 2),
            area=np.array([np.count_nonzero(mask) for mask in masks], np.int64),
            predicted_iou=predicted_iou,
            stability_score=score[stable],
            points=points[point_index],
            crop=np.full(len(masks), crop_index, np.int64),
            bits=[pack(mask, box) for mask, box in zip(masks, boxes, strict=True)],
        )
        parts.append(found.take(gate.passes(found.area) & ~cut_off(found.boxes, crop, whole)))
    return Candidates.join(parts)


def upsample(logits: Tensor, crop: Crop, image_size: int) -> Tensor:
    """Logits (M, 4h, 4w) of the network's input -> (M, H, W) of the crop, in SAM's two steps."""
    height, width = crop.input_size(image_size)
    square = _resize(logits, (image_size, image_size))
    return _resize(square[:, :height, :width], (crop.height, crop.width))


def _resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if logits.shape[1:] == size:
        return logits  # bilinear interpolation would give back the same numbers
    return F.interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def stability_scores(logits: Tensor, offset: float) -> np.ndarray:
    """IoU of each mask (M, H, W) cut at a high and at a low threshold: (M,) float32.

    The high mask lies within the low one, so their areas tell. NaN where both are empty.
    """
    high, low = (
        _count(logits > threshold).astype(np.float32)
        for threshold in (MASK_THRESHOLD + offset, MASK_THRESHOLD - offset)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return high / low


def _count(masks: Tensor) -> np.ndarray:
    """Pixels set in each of (M, H, W) bool: (M,) int64."""
    if masks.device.type == "cpu":  # NumPy counts bytes many times faster than a torch sum
        return np.array([np.count_nonzero(mask) for mask in masks.numpy()], np.int64)
    return masks.sum((1, 2)).cpu().numpy()


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First column, first row, last column, last row of a mask (H, W); zeros if it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return 0, 0, 0, 0
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def pack(mask: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """Bits of a mask (H, W) within its box, rows end to end: uint8."""
    x0, y0, x1, y1 = box
    return np.packbits(mask[y0 : y1 + 1, x0 : x1 + 1])


def cut_off(boxes: np.ndarray, crop: Crop, whole: tuple[int, int]) -> np.ndarray:
    """Whether boxes (N, 4) in image pixels lie at an edge of the crop that is not the image's."""
    crop_edges = np.array([crop.x0, crop.y0, crop.x1, crop.y1])
    image_edges = np.array([0, 0, whole[1], whole[0]])
    at_crop = np.abs(boxes - crop_edges) <= EDGE_PIXELS
    at_image = np.abs(boxes - image_edges) <= EDGE_PIXELS
    return (at_crop & ~at_image).any(axis=1)


def without_small_regions(mask: np.ndarray, min_area: int) -> np.ndarray:
    """Fill holes and drop islands of fewer than ``min_area`` pixels (8-connected).

    mask: (H, W) bool. Where every island is too small the largest stays. Returns the mask itself
    where nothing changed.
    """
    labels, sizes = _regions(~mask)
    small = sizes < min_area
    if small.any():
        mask = mask | np.append(False, small)[labels]
    labels, sizes = _regions(mask)
    small = sizes < min_area
    if small.any():
        if small.all():
            small[np.argmax(sizes)] = False
        mask = mask & ~np.append(False, small)[labels]
    return mask


def _regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label (H, W) of each connected region, 0 outside, and the regions' sizes (R,)."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return labels, stats[1:, cv2.CC_STAT_AREA]
