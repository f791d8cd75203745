"""SAM's automatic mode: a grid of points, three masks each, and what is left after filtering.

``MaskGenerator.generate`` gives the records of ``segment_anything.SamAutomaticMaskGenerator``;
``MaskGenerator.segment`` gives arrays, and the mean embedding of each mask, for the pipeline.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from alps.engine.candidates import (
    Candidates,
    Gate,
    StabilityRule,
    box_of,
    candidates_of,
    pack,
    without_small_regions,
)
from alps.engine.crops import Crop, crops_of, network_pixels, point_grid
from alps.engine.errors import ModelError, SettingsError, SourceError
from alps.engine.runtime import Runtime, TorchRuntime
from alps.engine.sam import Sam
from alps.kernels import rle
from alps.kernels.nms import box_nms
from alps.kernels.pool import cell_shares, pool_embeddings

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")

PointGrid = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class EverythingSettings:
    """Settings of everything mode, with stock SAM's names, order and defaults.

    Raises:
        SettingsError: a value cannot work.
    """

    points_per_side: int | None = 32  # None: point_grids says which points
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    point_grids: Sequence[Any] | None = None  # a grid (n, 2) in 0…1, x first, for each layer
    min_mask_region_area: int = 0  # pixels
    output_mode: str = "binary_mask"

    def __post_init__(self) -> None:
        _require(
            (self.points_per_side is None) != (self.point_grids is None),
            "give exactly one of points_per_side and point_grids",
        )
        for name, least in (
            ("points_per_side", 1),
            ("points_per_batch", 1),
            ("crop_n_layers", 0),
            ("crop_n_points_downscale_factor", 1),
            ("min_mask_region_area", 0),
        ):
            value = getattr(self, name)
            if value is not None:
                whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
                _require(
                    whole and value >= least,
                    f"{name} is {value!r}; it must be a whole number of at least {least}",
                )
        for name in ("pred_iou_thresh", "stability_score_thresh", "stability_score_offset"):
            value = getattr(self, name)
            _require(np.isfinite(value), f"{name} is {value!r}; it must be a finite number")
        for name in ("box_nms_thresh", "crop_nms_thresh", "crop_overlap_ratio"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"{name} is {value!r}; it must lie within 0 and 1")
        _require(
            self.output_mode in OUTPUT_MODES,
            f"output_mode is {self.output_mode!r}; it must be one of {', '.join(OUTPUT_MODES)}",
        )
        if self.point_grids is not None:
            object.__setattr__(self, "point_grids", tuple(map(_plain_grid, self.point_grids)))
            _require(
                len(self.point_grids) > self.crop_n_layers,
                f"point_grids has {len(self.point_grids)} grids; {self.crop_n_layers} crop layers "
                f"need {self.crop_n_layers + 1}, the first is for the whole image",
            )
        else:
            _require(
                self._per_side(self.crop_n_layers) >= 1,
                "crop_n_points_downscale_factor leaves no point in the last crop layer; lower it, "
                "or raise points_per_side",
            )

    def grid(self, layer: int) -> np.ndarray:
        """Points of a crop of this layer, (n, 2) x, y in 0…1 of the crop's size."""
        if self.point_grids is not None:
            return np.array(self.point_grids[layer], np.float64).reshape(-1, 2)
        return point_grid(self._per_side(layer))

    def _per_side(self, layer: int) -> int:
        return int(self.points_per_side / self.crop_n_points_downscale_factor**layer)


@dataclass
class Segments:
    """The masks of one image that passed, by descending predicted IoU, S of them."""

    size: tuple[int, int]  # height, width of the image
    counts: list[bytes]  # S COCO compressed run-length codes of the whole image
    boxes: np.ndarray  # (S, 4) int32 x, y, width, height in pixels
    area: np.ndarray  # (S,) int32 pixels
    predicted_iou: np.ndarray  # (S,) float32
    stability_score: np.ndarray  # (S,) float32
    points: np.ndarray  # (S, 2) float32 x, y of the prompt in image pixels
    embeddings: np.ndarray  # (S, C) float32, mean of the image embedding over the mask
    prompted: int  # points that were asked
    seconds: dict[str, float]  # by stage: encode, decode, filter, pool

    def __len__(self) -> int:
        return len(self.counts)


@dataclass
class _Found:
    """Masks of an image before they take their final form."""

    crops: list[Crop]
    candidates: Candidates = field(default_factory=Candidates)
    embeddings: dict[int, np.ndarray] = field(default_factory=dict)  # crop index -> (C, h, w)
    prompted: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("encode", "decode", "filter", "pool"), 0.0)
    )


class MaskGenerator:
    """Segments everything in an image; takes the place of stock's SamAutomaticMaskGenerator.

    Args:
        model: SAM's network, or a runtime that runs one.
        settings: fields of ``EverythingSettings``, by name or in their order, which is stock's.

    Raises:
        SettingsError: a setting cannot work.
        ModelError: the model is neither.
    """

    def __init__(self, model: Sam | Runtime, *settings: Any, **named: Any) -> None:
        if isinstance(model, Sam):
            model = TorchRuntime(model)
        if not isinstance(model, Runtime):
            raise ModelError(
                f"MaskGenerator cannot run a {type(model).__name__}; give it what load_sam returns "
                "first, or a Runtime"
            )
        self.runtime = model
        self.settings = EverythingSettings(*settings, **named)

    def generate(self, image: np.ndarray) -> list[dict[str, Any]]:
        """Masks of an image as stock SAM's records, in stock's order.

        image: (H, W, 3) uint8 RGB.

        Each record holds ``segmentation`` ((H, W) bool, or a dict of size and counts, depending
        on output_mode), ``area`` in pixels, ``bbox`` as x, y, last column - x, last row - y (as
        stock has it, one less than the pixels counted), ``predicted_iou``, ``point_coords``
        [[x, y]], ``stability_score`` and ``crop_box`` as x, y, width, height.

        Raises:
            SourceError: the array is not such an image.
        """
        found = self._find(_checked(image), Gate())
        return [self._record(found, i, image.shape[:2]) for i in range(len(found.candidates))]

    def segment(
        self,
        image: np.ndarray,
        valid: np.ndarray | None = None,
        max_area: float = 1.0,
        min_area: int = 0,
    ) -> Segments:
        """Masks of an image as arrays, with the mean embedding of each.

        Args:
            image: (H, W, 3) uint8 RGB.
            valid: (H, W) bool; points lie on these pixels only, and masks keep these only.
            max_area: masks that cover a greater share of H x W are dropped before NMS.
            min_area: masks of fewer pixels are dropped before NMS; empty ones always are.

        Raises:
            SourceError: the arrays are not such an image.
        """
        height, width = _checked(image).shape[:2]
        if valid is not None and (valid.shape != (height, width) or valid.dtype != bool):
            raise SourceError(
                f"valid is {valid.dtype} of shape {valid.shape}; it must be bool of the image's "
                f"{(height, width)}"
            )
        gate = Gate(valid, max(1, min_area), max_area * height * width)
        found = self._find(image, gate)
        order = np.argsort(-found.candidates.predicted_iou, kind="stable")
        kept = found.candidates = found.candidates.take(order)

        started = time.perf_counter()
        counts = [rle.encode(kept.mask(i, height, width)) for i in range(len(kept))]
        found.seconds["filter"] += time.perf_counter() - started
        started = time.perf_counter()
        embeddings = self._pooled(found, (height, width))
        found.seconds["pool"] += time.perf_counter() - started
        first, last = kept.boxes[:, :2], kept.boxes[:, 2:]
        return Segments(
            size=(height, width),
            counts=counts,
            boxes=np.concatenate([first, last - first + 1], axis=1).astype(np.int32),
            area=kept.area.astype(np.int32),
            predicted_iou=kept.predicted_iou,
            stability_score=kept.stability_score,
            points=kept.points.astype(np.float32),
            embeddings=embeddings,
            prompted=found.prompted,
            seconds=found.seconds,
        )

    def _find(self, image: np.ndarray, gate: Gate) -> _Found:
        """All masks of an image that pass, in stock's order."""
        s = self.settings
        crops = crops_of(*image.shape[:2], s.crop_n_layers, s.crop_overlap_ratio)
        found = _Found(crops)
        parts = [self._find_in_crop(image, gate, found, index) for index in range(len(crops))]
        started = time.perf_counter()
        masks = Candidates.join(parts)
        if len(crops) > 1:
            # Of duplicates the one from the smaller crop stays: it was seen larger.
            crop_area = np.array([crop.height * crop.width for crop in crops])[masks.crop]
            masks = masks.take(box_nms(masks.boxes, 1 / crop_area, s.crop_nms_thresh))
        if s.min_mask_region_area > 0:
            masks = self._without_small_regions(masks, gate, image.shape[:2])
        found.candidates = masks
        found.seconds["filter"] += time.perf_counter() - started
        return found

    def _find_in_crop(self, image: np.ndarray, gate: Gate, found: _Found, index: int) -> Candidates:
        """Masks of one crop; notes its embedding, points and seconds in ``found``."""
        s, crop, size = self.settings, found.crops[index], self.runtime.config.image_size
        points = s.grid(crop.layer) * (crop.width, crop.height)  # (N, 2) in crop pixels
        if gate.valid is not None:
            points = points[_on_valid(points, crop.of(gate.valid))]
        if len(points) == 0:
            return Candidates()

        started = time.perf_counter()
        embedding = self.runtime.encode(network_pixels(image, crop, size)[None])[0]
        found.seconds["encode"] += time.perf_counter() - started
        found.prompted += len(points)

        input_height, input_width = crop.input_size(size)
        to_input = (input_width / crop.width, input_height / crop.height)
        stability = StabilityRule(s.stability_score_offset, s.stability_score_thresh)
        parts = []
        for first in range(0, len(points), s.points_per_batch):
            batch = points[first : first + s.points_per_batch]
            started = time.perf_counter()
            asked = torch.from_numpy(batch * to_input)
            decoded = self.runtime.decode(embedding, asked, s.pred_iou_thresh)
            decoded_at = time.perf_counter()
            parts.append(
                candidates_of(
                    decoded,
                    batch + np.array([crop.x0, crop.y0]),
                    crop,
                    stability,
                    gate,
                    image_size=size,
                    crop_index=index,
                    whole=image.shape[:2],
                )
            )
            found.seconds["decode"] += decoded_at - started
            found.seconds["filter"] += time.perf_counter() - decoded_at
        started = time.perf_counter()
        masks = Candidates.join(parts)
        masks = masks.take(box_nms(masks.boxes, masks.predicted_iou, s.box_nms_thresh))
        found.embeddings[index] = embedding.float().cpu().numpy()
        found.seconds["filter"] += time.perf_counter() - started
        return masks

    def _without_small_regions(
        self, masks: Candidates, gate: Gate, size: tuple[int, int]
    ) -> Candidates:
        """Drop small islands and holes, then duplicates; masks that needed no change win."""
        unchanged = np.ones(len(masks))
        for index in range(len(masks)):
            before = masks.mask(index, *size)
            after = without_small_regions(before, self.settings.min_mask_region_area)
            if after is before:
                continue
            if gate.valid is not None:
                after &= gate.valid  # a filled hole may have been nodata
            unchanged[index] = 0
            masks.boxes[index] = box = box_of(after)
            masks.area[index] = np.count_nonzero(after)
            masks.bits[index] = pack(after, box)
        threshold = max(self.settings.box_nms_thresh, self.settings.crop_nms_thresh)
        masks = masks.take(box_nms(masks.boxes, unchanged, threshold))
        return masks.take(gate.passes(masks.area))

    def _pooled(self, found: _Found, size: tuple[int, int]) -> np.ndarray:
        """Mean embedding (S, C) of each mask, from the crop it was found in."""
        config, masks = self.runtime.config, found.candidates
        pooled = np.zeros((len(masks), config.embedding_channels), np.float32)
        for index, embedding in found.embeddings.items():
            crop = found.crops[index]
            input_height, input_width = crop.input_size(config.image_size)
            scale = (
                config.patch_size * crop.height / input_height,
                config.patch_size * crop.width / input_width,
            )
            own = np.flatnonzero(masks.crop == index)
            shares = [
                cell_shares(crop.of(masks.mask(i, *size))[None], embedding.shape[1:], scale)
                for i in own
            ]
            if shares:
                pooled[own] = pool_embeddings(embedding, np.concatenate(shares))
        return pooled

    def _record(self, found: _Found, index: int, size: tuple[int, int]) -> dict[str, Any]:
        masks = found.candidates
        crop = found.crops[masks.crop[index]]
        mask = masks.mask(index, *size)
        if self.settings.output_mode == "uncompressed_rle":
            segmentation = {"size": list(size), "counts": rle.run_lengths(mask).tolist()}
        elif self.settings.output_mode == "coco_rle":
            segmentation = {"size": list(size), "counts": rle.encode(mask).decode("ascii")}
        else:
            segmentation = mask
        x0, y0, x1, y1 = masks.boxes[index].tolist()
        return {
            "segmentation": segmentation,
            "area": int(masks.area[index]),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "predicted_iou": float(masks.predicted_iou[index]),
            "point_coords": [masks.points[index].tolist()],
            "stability_score": float(masks.stability_score[index]),
            "crop_box": [crop.x0, crop.y0, crop.width, crop.height],
        }


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SettingsError(otherwise)


def _plain_grid(grid: Any) -> PointGrid:
    """A grid as plain numbers, so that settings compare and go into JSON."""
    points = np.asarray(grid, np.float64)
    inside = points.ndim == 2 and points.shape[1] == 2 and ((points >= 0) & (points <= 1)).all()
    _require(bool(inside), "point_grids must hold arrays (n, 2) of x, y within 0 and 1")
    return tuple(map(tuple, points.tolist()))


def _checked(image: np.ndarray) -> np.ndarray:
    good = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
    if not good or image.shape[2] != 3 or image.size == 0:
        got = (
            f"{image.dtype} of shape {image.shape}"
            if isinstance(image, np.ndarray)
            else type(image).__name__
        )
        raise SourceError(f"an image must be RGB, uint8 of shape (H, W, 3); this one is {got}")
    return image


def _on_valid(points: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Whether points (N, 2) x, y lie on valid pixels (H, W): (N,) bool."""
    height, width = valid.shape
    x, y = np.floor(points).astype(np.int64).T
    return valid[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
