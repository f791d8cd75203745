"""From logits to masks: full size, checked for stability, clipped, boxed, as run lengths."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from alps.engine.masks.crops import Crop
from alps.engine.masks.settings import EverythingSettings
from alps.engine.runtimes.protocol import DecodedMasks
from alps.kernels.masks import algebra
from alps.kernels.masks.runs import Runs
from alps.kernels.upscale import upscale_masks

_SURE = 10.0  # logit of a pixel that is given to a mask, or taken from it
EDGE_PIXELS = 20.0  # a box this near to a crop's edge is taken for cut off


@dataclass(frozen=True)
class Gate:
    """Which masks are wanted at all, and which of their pixels."""

    valid: np.ndarray | None = None  # (H, W) bool: a mask keeps these pixels only
    min_area: int = 0  # pixels
    max_area: float = float("inf")  # pixels

    def passes(self, area: np.ndarray) -> np.ndarray:
        """Whether masks of these areas (N,) are wanted: (N,) bool."""
        return (area >= self.min_area) & (area <= self.max_area)


@dataclass
class Candidates:
    """N masks of one image."""

    runs: Runs
    boxes: np.ndarray  # (N, 4) int64 first column, first row, last column, last row; 0 if empty
    area: np.ndarray  # (N,) int64 pixels
    predicted_iou: np.ndarray  # (N,) float32
    stability_score: np.ndarray  # (N,) float32
    points: np.ndarray  # (N, 2) float64 x, y
    crop: np.ndarray  # (N,) int64 index

    def __len__(self) -> int:
        return len(self.area)

    @staticmethod
    def none(size: tuple[int, int]) -> "Candidates":
        """No mask of an image of this height and width."""
        return Candidates(
            runs=Runs.from_lengths([], size),
            boxes=np.zeros((0, 4), np.int64),
            area=np.zeros(0, np.int64),
            predicted_iou=np.zeros(0, np.float32),
            stability_score=np.zeros(0, np.float32),
            points=np.zeros((0, 2)),
            crop=np.zeros(0, np.int64),
        )

    def take(self, which: np.ndarray) -> "Candidates":
        """Those at ``which``, indices or (N,) bool, in that order."""
        indices = np.flatnonzero(which) if which.dtype == bool else which
        return Candidates(
            runs=self.runs.take(indices), **{name: getattr(self, name)[indices] for name in _ARRAYS}
        )

    @staticmethod
    def join(parts: Sequence["Candidates"], size: tuple[int, int]) -> "Candidates":
        """All of several of one image, in their order."""
        parts = [Candidates.none(size), *parts]
        return Candidates(
            runs=Runs.join([part.runs for part in parts], size),
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS},
        )


_ARRAYS = ("boxes", "area", "predicted_iou", "stability_score", "points", "crop")


def candidates_of(
    decoded: DecodedMasks,
    points: np.ndarray,
    crop: Crop,
    settings: EverythingSettings,
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
        settings: how stable a mask must be: little may change when the threshold of its logits
            moves; a score of 0 or less drops none.
        gate: what of a mask counts, and which sizes are wanted.
        image_size: side of the network's input.
        crop_index: kept with each mask.
        whole: height and width of the image.

    Returns:
        The masks that pass, in image pixels, in their order.
    """
    square = crop.mask_side(image_size, decoded.logits.shape[-1])
    masks = upscale_masks(
        _as_array(decoded.logits),
        square,
        crop.input_size(square),
        (crop.height, crop.width),
        threshold=settings.threshold,
        offset=settings.stability_score_offset,
        min_stability=settings.stability_score_thresh,
        valid=None if gate.valid is None else crop.of(gate.valid),
    )
    boxes = masks.boxes + np.array([crop.x0, crop.y0] * 2)
    passes = np.flatnonzero(gate.passes(masks.area) & ~cut_off(boxes, crop, whole))
    kept = masks.kept[passes]
    return Candidates(
        runs=algebra.place(masks.runs.take(passes), whole, crop.x0, crop.y0),
        boxes=boxes[passes],
        area=masks.area[passes],
        predicted_iou=decoded.predicted_iou.cpu().numpy()[kept],
        stability_score=masks.stability[passes],
        points=points[decoded.point_index.cpu().numpy()[kept]],
        crop=np.full(len(kept), crop_index, np.int64),
    )


def _as_array(logits: Tensor) -> np.ndarray | Tensor:
    """What kernels take: a CUDA GPU's own, not moved; NumPy's from everywhere else."""
    return logits if logits.is_cuda else logits.cpu().numpy()


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


def without_small_regions_of_logits(
    decoded: DecodedMasks, most_area: int, threshold: float
) -> DecodedMasks:
    """Close holes and drop islands of up to ``most_area`` pixels of the logits (8-connected).

    What SAM 2 does before masks are cut: ten above the threshold, or below it. Both are told by
    the logits as they came.
    """
    logits = decoded.logits.cpu().numpy().copy()
    for one in logits:
        inside = one > threshold
        for regions, value in ((~inside, _SURE), (inside, -_SURE)):
            labels, sizes = _regions(regions)
            one[np.append(False, sizes <= most_area)[labels]] = threshold + value
    return replace(decoded, logits=torch.from_numpy(logits).to(decoded.logits.device))


def _regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label (H, W) of each connected region, 0 outside, and the regions' sizes (R,)."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return labels, stats[1:, cv2.CC_STAT_AREA]
