"""SAM's automatic mode: a grid of points, three masks each, and what is left after filtering.

``MaskGenerator.generate`` gives the records of ``segment_anything.SamAutomaticMaskGenerator``;
``MaskGenerator.segment`` gives arrays, and the mean embedding of each mask, for the pipeline.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np
import torch

from alps.engine.base.device import require_gpu_kernels
from alps.engine.base.errors import ModelError, SettingsError, SourceError
from alps.engine.masks.crops import Crop, crop_kind, crops_of, network_pixels
from alps.engine.masks.gate import (
    Candidates,
    Gate,
    candidates_of,
    without_small_regions,
    without_small_regions_of_logits,
)
from alps.engine.masks.settings import EverythingSettings, Sam2EverythingSettings
from alps.engine.pipeline.line import raise_if_over
from alps.engine.runtimes.protocol import (
    Asked,
    BringsImages,
    DecodedMasks,
    DecodesBatches,
    Encoding,
    Runtime,
)
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam.model import Network
from alps.engine.sam2 import Sam2Config
from alps.engine.settings import FilledSegmentSettings
from alps.kernels.colour import LAB_UNIT, lab_of, pool_colours
from alps.kernels.masks import algebra, coco
from alps.kernels.masks.algebra import runs_of_labels
from alps.kernels.masks.pixels import mask_of, runs_of, union
from alps.kernels.masks.runs import Runs
from alps.kernels.nms import box_nms
from alps.kernels.pool import cell_shares, pool_embeddings

# With coarse_to_fine, a point is not asked under a mask of at most so many cells of the grid.
# Larger masks tend to hold objects of their own.
WELL_COVERED_CELLS = 9
# Settings that SAM's generator and SAM 2's have in the same order, from the first on.
SAM2_SAME_PLACES = 5
STAGES = ("encode", "decode", "filter", "runs", "pool")


@dataclass
class Segments:
    """The masks of one image that passed, by descending predicted IoU, S of them."""

    size: tuple[int, int]  # height, width of the image
    counts: list[bytes]  # S COCO compressed run-length codes of the whole image
    boxes: np.ndarray  # (S, 4) int32 x, y, width, height in pixels
    area: np.ndarray  # (S,) int32 pixels
    predicted_iou: np.ndarray  # (S,) float32
    stability_score: np.ndarray  # (S,) float32
    points: np.ndarray  # (S, 2) float32 x, y of the prompt in image pixels, nan without
    embeddings: np.ndarray  # (S, C) float32, mean of the image embedding over the mask
    centres: np.ndarray  # (S, 2) float32 x, y of the middle of what that mean was taken over
    mask: np.ndarray  # (S,) int32, number of the mask that each is a part of, -1 under none
    colours: np.ndarray  # (S, 6) float32, mean and standard deviation of L*, a*, b* over the mask
    covered: int  # pixels under at least one mask
    prompted: int  # points that were asked
    seconds: dict[str, float]  # of each of STAGES

    def __len__(self) -> int:
        return len(self.counts)


@dataclass
class StageClock:
    """Seconds that each stage took."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Count the time within towards a stage."""
        began = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - began


@dataclass
class Found:
    """Masks of an image before they take their final form."""

    size: tuple[int, int]  # height, width of the image
    crops: list[Crop]
    candidates: Candidates
    valid: np.ndarray | None = None  # (H, W) bool: masks keep these pixels only
    embeddings: dict[int, torch.Tensor] = field(default_factory=dict)  # crop index -> (C, h, w)
    prompted: int = 0
    clock: StageClock = field(default_factory=StageClock)


class MaskGenerator:
    """Segments everything in an image; takes the place of stock's SamAutomaticMaskGenerator.

    Args:
        model: SAM's network, or a runtime that runs one.
        settings: fields of ``EverythingSettings``, by name or in their order, which is stock's.
        coarse_to_fine: ask every other point of each row and column first, and of the others only
            those under no small mask so found. Faster, and masks are missed: an option for those
            who have measured what it costs them.

    Raises:
        SettingsError: a setting cannot work, or the model lies on a GPU and a package is missing.
        ModelError: the model is neither.
    """

    def __init__(
        self, model: Network | Runtime, *settings: Any, coarse_to_fine: bool = False, **named: Any
    ) -> None:
        if isinstance(model, Network):
            require_gpu_kernels(model.device)
            model = TorchRuntime(model)
        if not isinstance(model, Runtime):
            raise ModelError(
                f"MaskGenerator cannot run a {type(model).__name__}; give it what load_sam returns "
                "first, or a Runtime"
            )
        self.runtime = model
        kind = EverythingSettings
        if isinstance(model.config, Sam2Config):
            kind = Sam2EverythingSettings
            if len(settings) > SAM2_SAME_PLACES:
                raise SettingsError(
                    f"SAM 2's generator has another order of settings from the "
                    f"{SAM2_SAME_PLACES + 1}th on; give those by name"
                )
        self.settings = kind(*settings, **named)
        self.coarse_to_fine = coarse_to_fine
        if coarse_to_fine and self.settings.point_grids is not None:
            raise SettingsError(
                "coarse_to_fine needs a regular grid of points; give points_per_side instead of "
                "point_grids"
            )

    @classmethod
    def for_run(cls, runtime: Runtime, settings: FilledSegmentSettings) -> "MaskGenerator":
        """Everything mode as the settings of a run want it; fields of one name are one setting."""
        shared = {item.name for item in fields(EverythingSettings)} & vars(settings).keys()
        named = {name: getattr(settings, name) for name in shared}
        return cls(runtime, coarse_to_fine=settings.coarse_to_fine, **named)

    def embed(self, images: Sequence[np.ndarray]) -> list[list[torch.Tensor]]:
        """Image embeddings, to be handed to ``generate`` or ``segment`` as often as wanted.

        All crops of all images go through the encoder in one batch.

        images: each (H, W, 3) uint8 RGB.
        Returns, for each image, (C, h, w) float32 of each crop, on the runtime's device.

        Raises:
            SourceError: an array is not such an image.
        """
        crops = [self.crops(image) for image in images]
        parts = [(image, crop) for image, own in zip(images, crops, strict=True) for crop in own]
        if not parts:
            return []
        embeddings = iter(self._encoding(parts)())
        return [[next(embeddings) for _ in own] for own in crops]

    def encodings(self, images: Sequence[np.ndarray | None]) -> list[Encoding]:
        """Images made ready for the encoder, from any thread: a call for the crops of each number.

        images: each (H, W, 3) uint8 RGB; None: an empty place.
        Each call gives (images, C, h, w) float32, on the runtime's device.
        """
        crops = [[] if image is None else self.crops(image) for image in images]
        return [
            self._encoding(
                [
                    (image, own[number]) if image is not None and number < len(own) else None
                    for image, own in zip(images, crops, strict=True)
                ]
            )
            for number in range(max(map(len, crops), default=0))
        ]

    def crops(self, image: np.ndarray) -> list[Crop]:
        """Of an image (H, W, 3) uint8, in the order of ``encodings``."""
        return self._crops(*_checked(image).shape[:2])

    def _encoding(self, parts: Sequence[tuple[np.ndarray, Crop] | None]) -> Encoding:
        """Crops of images made ready, as bytes where the runtime's device takes those."""
        runtime, size = self.runtime, self.runtime.config.image_size
        if isinstance(runtime, BringsImages):
            encoding = runtime.bring(
                [None if part is None else part[1].part_of(part[0], size) for part in parts]
            )
            if encoding is not None:
                return encoding
        pixels = torch.zeros(len(parts), 3, size, size)
        for place, part in enumerate(parts):
            if part is not None:
                pixels[place] = network_pixels(*part, size)
        return partial(runtime.encode, pixels)

    def generate(
        self, image: np.ndarray, embeddings: Sequence[torch.Tensor] | None = None
    ) -> list[dict[str, Any]]:
        """Masks of an image as stock SAM's records, in stock's order.

        Args:
            image: (H, W, 3) uint8 RGB.
            embeddings: what ``embed`` gave for this image; None: it is encoded.

        Each record holds ``segmentation`` ((H, W) bool, or a dict of size and counts, depending
        on output_mode), ``area`` in pixels, ``bbox`` as x, y, last column - x, last row - y (as
        stock has it, one less than the pixels counted), ``predicted_iou``, ``point_coords``
        [[x, y]], ``stability_score`` and ``crop_box`` as x, y, width, height.

        Raises:
            SourceError: the arrays are not such an image and its embeddings.
        """
        found = self._find(_checked(image), Gate(), embeddings)
        return [self._record(found, i) for i in range(len(found.candidates))]

    def segment(
        self,
        image: np.ndarray,
        valid: np.ndarray | None = None,
        max_area: float = 1.0,
        min_area: int = 0,
        embeddings: Sequence[torch.Tensor] | None = None,
        rest_cells: int = 0,
    ) -> Segments:
        """Masks of an image as arrays, with the mean embedding and the colour of each.

        Args:
            image: (H, W, 3) uint8 RGB.
            valid: (H, W) bool; points lie on these pixels only, and masks keep these only.
            max_area: masks that cover a greater share of H x W are dropped before NMS.
            min_area: masks of fewer pixels are dropped before NMS; empty ones always are.
            embeddings: what ``embed`` gave for this image; None: it is encoded.
            rest_cells: what lies under no mask is given too, cut by a grid of so many cells a
                side, with scores of 0 and embeddings of its own; 0: masks alone.

        Raises:
            SourceError: the arrays are not such an image and its embeddings.
        """
        gate = self.gate(image, valid, max_area, min_area)
        return self.describe(image, self.find(image, gate, embeddings, rest_cells > 0), rest_cells)

    def gate(
        self, image: np.ndarray, valid: np.ndarray | None, max_area: float, min_area: int
    ) -> Gate:
        """Which masks of an image are wanted; arguments and errors as of ``segment``."""
        height, width = _checked(image).shape[:2]
        if valid is not None and (valid.shape != (height, width) or valid.dtype != bool):
            raise SourceError(
                f"valid is {valid.dtype} of shape {valid.shape}; it must be bool of the image's "
                f"{(height, width)}"
            )
        return Gate(valid, max(1, min_area), max_area * height * width)

    def find(
        self,
        image: np.ndarray,
        gate: Gate,
        embeddings: Sequence[torch.Tensor] | None = None,
        with_rest: bool = False,
    ) -> Found:
        """The first half of ``segment``, all that the runtime has a part in.

        with_rest: what lies under no mask will be described too. What comes back is the host's.
        """
        found = self._find(image, gate, embeddings)
        if with_rest and (gate.valid is None or gate.valid.any()):
            self._encode(image, found, 0)  # perhaps no prompt lay on a valid pixel
        with found.clock.timing("pool"):
            found.embeddings = {index: own.cpu() for index, own in found.embeddings.items()}
        return found

    def describe(self, image: np.ndarray, found: Found, rest_cells: int = 0) -> Segments:
        """The second half of ``segment``, for which the CPU is enough; what ``find`` gave."""
        valid = found.valid
        order = np.argsort(-found.candidates.predicted_iou, kind="stable")
        kept = found.candidates = found.candidates.take(order)
        with found.clock.timing("runs"):
            counts = coco.encode(kept.runs)
            covered = union(kept.runs)
        with found.clock.timing("pool"):
            pooled = self._pooled(found)
            lab = lab_of(image)
        mask, runs = np.arange(len(kept), dtype=np.int32), kept.runs
        if rest_cells > 0:
            with found.clock.timing("runs"):
                rest = _rest(covered, valid, rest_cells)
                mask = np.append(mask, np.full(len(rest), -1, np.int32))
                runs = Runs.join([kept.runs, rest], found.size)
                counts += coco.encode(rest)
            if len(rest):
                with found.clock.timing("pool"):
                    pooled = np.concatenate([pooled, self._pooled_over(found, rest, 0)])
        with found.clock.timing("pool"):
            colours = pool_colours(lab, runs) * np.float32(LAB_UNIT)
        boxes = algebra.boxes(runs)
        first, last = boxes[:, :2], boxes[:, 2:]
        whole = np.where(mask[:, None] >= 0, _of_masks(kept.boxes, mask, 0), boxes)
        return Segments(
            size=found.size,
            counts=counts,
            boxes=np.concatenate([first, last - first + 1], axis=1).astype(np.int32),
            area=algebra.areas(runs).astype(np.int32),
            predicted_iou=_of_masks(kept.predicted_iou, mask, 0),
            stability_score=_of_masks(kept.stability_score, mask, 0),
            points=_of_masks(kept.points.astype(np.float32), mask, np.nan),
            embeddings=pooled,
            centres=((whole[:, :2] + whole[:, 2:] + 1) / 2).astype(np.float32),
            mask=mask,
            colours=colours,
            covered=int(covered.sum()),
            prompted=found.prompted,
            seconds=found.clock.seconds,
        )

    def _find(
        self, image: np.ndarray, gate: Gate, embeddings: Sequence[torch.Tensor] | None
    ) -> Found:
        """All masks of an image that pass, in stock's order."""
        s, (height, width) = self.settings, image.shape[:2]
        size = height, width
        crops = self._crops(height, width)
        found = Found(size, crops, Candidates.none(size), gate.valid)
        if embeddings is not None:
            found.embeddings = dict(enumerate(self._checked_embeddings(embeddings, len(crops))))
        parts = [self._find_in_crop(image, gate, found, index) for index in range(len(crops))]
        with found.clock.timing("filter"):
            masks = Candidates.join(parts, size)
            if len(crops) > 1:
                # Of duplicates the one from the smaller crop stays: it was seen larger.
                crop_area = np.array([crop.height * crop.width for crop in crops])[masks.crop]
                masks = masks.take(box_nms(masks.boxes, 1 / crop_area, s.crop_nms_thresh))
            if s.min_mask_region_area > 0 and not s.small_regions_in_logits:
                masks = self._without_small_regions(masks, gate)
        found.candidates = masks
        return found

    def _crops(self, height: int, width: int) -> list[Crop]:
        s, kind = self.settings, crop_kind(self.runtime.config)
        return crops_of(height, width, s.crop_n_layers, s.crop_overlap_ratio, kind)

    def _checked_embeddings(
        self, embeddings: Sequence[torch.Tensor], crops: int
    ) -> Sequence[torch.Tensor]:
        config = self.runtime.config
        shape = (config.encoded_channels, *[config.embedding_size] * 2)
        shapes = [tuple(embedding.shape) for embedding in embeddings]
        if shapes != [shape] * crops:
            raise SourceError(
                f"embeddings of shapes {shapes} do not fit: this image has {crops} crop(s), each "
                f"needs {shape}; pass on what MaskGenerator.embed gave for it, with the same model "
                "and crop settings"
            )
        return embeddings

    def _find_in_crop(self, image: np.ndarray, gate: Gate, found: Found, index: int) -> Candidates:
        """Masks of one crop; notes its embedding, points and seconds in ``found``."""
        crop = found.crops[index]
        points, wanted = self._grid(crop, gate)
        if not wanted.any():
            return Candidates.none(found.size)
        self._encode(image, found, index)
        coarse = np.ones(len(points), bool)
        if self.coarse_to_fine:
            coarse = _every_other(len(points))
        masks = self._ask(points[wanted & coarse], gate, found, index)
        if not coarse.all():
            with found.clock.timing("filter"):
                cell = crop.height * crop.width / len(points)
                covered = union(masks.runs.take(masks.area <= WELL_COVERED_CELLS * cell))
                rest = wanted & ~coarse & ~_on(points, covered)
            more = self._ask(points[rest], gate, found, index)
            with found.clock.timing("filter"):
                masks = self._without_duplicates(Candidates.join([masks, more], found.size))
        return masks

    def points(self, crop: Crop, gate: Gate) -> np.ndarray:
        """Points of a crop that are asked, (N, 2) x, y in image pixels."""
        points, wanted = self._grid(crop, gate)
        return points[wanted]

    def _grid(self, crop: Crop, gate: Gate) -> tuple[np.ndarray, np.ndarray]:
        """All points of a crop, (N, 2) x, y in image pixels, and which lie on valid ones."""
        unit = self.settings.grid(crop.layer)  # (N, 2) in 0…1 of the crop
        points = unit * (crop.width, crop.height) + (crop.x0, crop.y0)
        return points, np.ones(len(points), bool) if gate.valid is None else _on(points, gate.valid)

    def decode(
        self, embedding: torch.Tensor, points: np.ndarray, crop: Crop
    ) -> Iterator[DecodedMasks]:
        """Masks of a crop at points (N, 2) in image pixels, as ``Runtime.decode`` has them."""
        return self.runtime.decode(
            embedding,
            self._in_input(points, crop),
            self.settings.pred_iou_thresh,
            self.settings.points_per_batch,
        )

    def decode_batch(
        self, images: Sequence[tuple[torch.Tensor | None, np.ndarray, Crop]]
    ) -> list[DecodedMasks] | None:
        """All masks of whole images at once, as ``DecodesBatches`` has them; None if none can.

        images: embedding, points (N, 2) in image pixels, and the crop that is all of the image.
        """
        if not isinstance(self.runtime, DecodesBatches):
            return None
        asked = [Asked(own, self._in_input(points, crop)) for own, points, crop in images]
        if all(one.embedding is None for one in asked):
            return None
        threshold = self.settings.pred_iou_thresh
        return self.runtime.decode_batch(asked, threshold, len(self.settings.grid(0)))

    def _in_input(self, points: np.ndarray, crop: Crop) -> torch.Tensor:
        """Points (N, 2) in image pixels -> in pixels of the network's input."""
        input_height, input_width = crop.input_size(self.runtime.config.image_size)
        to_input = (input_width / crop.width, input_height / crop.height)
        return torch.from_numpy((points - (crop.x0, crop.y0)) * to_input)

    def _encode(self, image: np.ndarray, found: Found, index: int) -> None:
        """Note a crop's embedding in ``found`` where it is not there yet."""
        if index not in found.embeddings:
            with found.clock.timing("encode"):
                encode = self._encoding([(image, found.crops[index])])
                found.embeddings[index] = encode()[0]

    def _ask(self, points: np.ndarray, gate: Gate, found: Found, index: int) -> Candidates:
        """Masks of a crop at points (N, 2) in image pixels, duplicates dropped."""
        s, crop, size = self.settings, found.crops[index], self.runtime.config.image_size
        found.prompted += len(points)
        batches = self.decode(found.embeddings[index], points, crop)
        parts = []
        while True:
            raise_if_over()
            with found.clock.timing("decode"):
                decoded = next(batches, None)
            if decoded is None:
                break
            with found.clock.timing("filter"):
                if s.min_mask_region_area > 0 and s.small_regions_in_logits:
                    decoded = without_small_regions_of_logits(
                        decoded, s.min_mask_region_area, s.threshold
                    )
                parts.append(
                    candidates_of(
                        decoded,
                        points,
                        crop,
                        s,
                        gate,
                        image_size=size,
                        crop_index=index,
                        whole=found.size,
                    )
                )
        with found.clock.timing("filter"):
            return self._without_duplicates(Candidates.join(parts, found.size))

    def _without_duplicates(self, masks: Candidates) -> Candidates:
        return masks.take(box_nms(masks.boxes, masks.predicted_iou, self.settings.box_nms_thresh))

    def _without_small_regions(self, masks: Candidates, gate: Gate) -> Candidates:
        """Drop small islands and holes, then duplicates; masks that needed no change win."""
        unchanged, cleaned = np.ones(len(masks)), []
        for index in range(len(masks)):
            before = mask_of(masks.runs, index)
            after = without_small_regions(before, self.settings.min_mask_region_area)
            if after is not before:
                unchanged[index] = 0
                if gate.valid is not None:
                    after &= gate.valid  # a filled hole may have been nodata
            cleaned.append(runs_of(after[None]))
        masks.runs = Runs.join(cleaned, masks.runs.size)
        masks.boxes, masks.area = algebra.boxes(masks.runs), algebra.areas(masks.runs)
        threshold = max(self.settings.box_nms_thresh, self.settings.crop_nms_thresh)
        masks = masks.take(box_nms(masks.boxes, unchanged, threshold))
        return masks.take(gate.passes(masks.area))

    def _pooled(self, found: Found) -> np.ndarray:
        """Mean embedding (S, C) of each mask, from the crop it was found in."""
        config, masks = self.runtime.config, found.candidates
        pooled = np.zeros((len(masks), config.embedding_channels), np.float32)
        for index in found.embeddings:
            own = np.flatnonzero(masks.crop == index)
            pooled[own] = self._pooled_over(found, masks.runs.take(own), index)
        return pooled

    def _pooled_over(self, found: Found, runs: Runs, index: int) -> np.ndarray:
        """Mean embedding (S, C) of a crop over each of S masks of the whole image."""
        config = self.runtime.config
        if not len(runs):
            return np.zeros((0, config.embedding_channels), np.float32)
        crop, embedding = found.crops[index], found.embeddings[index]
        input_height, input_width = crop.input_size(config.image_size)
        scale = (
            config.patch_size * crop.height / input_height,
            config.patch_size * crop.width / input_width,
        )
        rows, columns = embedding.shape[1:]
        shares = cell_shares(runs, (rows, columns), scale, (crop.y0, crop.x0))
        # Whatever lies behind the embedding itself is for the decoder.
        return pool_embeddings(embedding[: config.embedding_channels].numpy(), shares)

    def _record(self, found: Found, index: int) -> dict[str, Any]:
        masks = found.candidates
        crop = found.crops[masks.crop[index]]
        segmentation: np.ndarray | dict[str, Any]
        if self.settings.output_mode == "uncompressed_rle":
            lengths = masks.runs.of(index).tolist()
            segmentation = {"size": list(found.size), "counts": lengths}
        elif self.settings.output_mode == "coco_rle":
            (counts,) = coco.encode(masks.runs.take(np.array([index])))
            segmentation = {"size": list(found.size), "counts": counts.decode("ascii")}
        else:
            segmentation = mask_of(masks.runs, index)
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


def _rest(covered: np.ndarray, valid: np.ndarray | None, cells: int) -> Runs:
    """What of an image's valid pixels is not covered (H, W) by a mask, by cells of a grid."""
    height, width = covered.shape
    bare = ~covered if valid is None else valid & ~covered
    row = np.arange(height) * cells // height
    column = np.arange(width) * cells // width
    number = np.where(bare, row[:, None] * cells + column, -1)
    found, place = np.unique(number[bare], return_inverse=True)
    number[bare] = place
    return runs_of_labels(np.ascontiguousarray(number, np.int32), len(found))


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


def _of_masks(values: np.ndarray, mask: np.ndarray, missing: float) -> np.ndarray:
    """Values (M, …) of the masks at ``mask`` (S,), and ``missing`` where that is -1."""
    at_end = np.full((1, *values.shape[1:]), missing, values.dtype)
    return np.concatenate([values, at_end])[mask]


def _on(points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Whether points (N, 2) x, y lie on set pixels of a mask (H, W): (N,) bool."""
    height, width = mask.shape
    x, y = np.floor(points).astype(np.int64).T
    return mask[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]


def _every_other(points: int) -> np.ndarray:
    """Every other row and column of a regular grid of n² points: (n²,) bool."""
    side = round(points**0.5)
    row, column = np.divmod(np.arange(points), side)
    return (row % 2 == 0) & (column % 2 == 0)
