"""What each step from the original to our engine bought: a row a step, each in a fresh process.

    python -m alps.bench.everything.ladder [IMAGES...] --model vit_b --random-weights

Takes the options of `alps bench everything` and prints its tables. Rows build on each other; the
last ones are options that change masks. What a step replaced is kept here, in plain PyTorch, so
that the row before it can be run: the engine itself knows nothing of it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alps.bench.everything.compare import (
    OUR_BUILDER,
    Setup,
    prepared,
    run_rows,
)
from alps.bench.everything.options import EverythingOptions, json_option, stock_from_option
from alps.bench.everything.ours import OurGenerator
from alps.bench.everything.sides import (
    Job,
    Side,
    TileMasks,
    warm_up_picture,
)
from alps.bench.everything.stock import pool_one_by_one, stock_like
from alps.bench.everything.thresholds import keep_all
from alps.engine.base.errors import SettingsError
from alps.engine.cli.options import pick, settings_options
from alps.engine.masks.crops import Crop, network_pixels
from alps.engine.masks.generator import StageClock
from alps.engine.masks.settings import EverythingSettings
from alps.engine.models.checkpoints import load_sam
from alps.engine.runtimes.protocol import Capacity, DecodedMasks
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam import Sam
from alps.kernels.nms import box_nms

BUILDER = "alps.bench.everything.ladder:build"
CHUNK_BYTES = 16 << 20  # of full-size logits at a time


@dataclass(frozen=True)
class Step:
    """A row of the ladder."""

    builder: str = BUILDER
    decoder_form: str = ""  # as in Job
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def _step(decoder: str, masks: str, form: str = "") -> Step:
    return Step(BUILDER, form, MappingProxyType({"decoder": decoder, "masks": masks}))


def _ours(**options: Any) -> Step:
    return Step(OUR_BUILDER, "compiled", MappingProxyType(options))


# After stock AMG, which is the first row of every comparison.
STEPS: Mapping[str, Step] = MappingProxyType(
    {
        "+ predicted IoU first, chunks": _step("per prompt", "full size"),
        "+ first layer shared": _step("plain", "full size"),
        "+ absorbed decoder": _step("absorbed", "full size", "absorbed"),
        "+ compiled decoder": _step("compiled", "full size", "compiled"),
        "+ masks as runs": _step("compiled", "runs", "compiled"),
        "+ encoder in pieces = ours": _ours(),
        "ours, bf16": _ours(precision="bf16"),
        "ours, coarse to fine": _ours(coarse_to_fine=True),
        "ours, bf16, coarse to fine": _ours(precision="bf16", coarse_to_fine=True),
    }
)


class StockEncoded:
    """A runtime whose encoder is still the original's; it decodes as it is told.

    Args:
        sam: the weights.
        decoder: one of TorchRuntime's, or ``per prompt``: the original's, without sharing.
    """

    capacity = Capacity(images=1, points=64)
    on_callers_cores = False

    def __init__(self, sam: Sam, decoder: str) -> None:
        self.config, self.stock = sam.config, stock_like(sam)
        self.runtime = None if decoder == "per prompt" else TorchRuntime(sam, decoder=decoder)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S), normalised -> embeddings (B, C, h, w)."""
        return self.stock.image_encoder(pixels.to(self.stock.device))

    def decode(
        self, embedding: Tensor, points: Tensor, pred_iou_thresh: float, points_per_batch: int
    ) -> Iterator[DecodedMasks]:
        """Masks of points whose predicted IoU passes, as ``Runtime`` says."""
        if self.runtime is not None:
            yield from self.runtime.decode(embedding, points, pred_iou_thresh, points_per_batch)
            return
        for first in range(0, len(points), points_per_batch):
            with torch.inference_mode():
                masks = self._per_prompt(
                    embedding, points[first : first + points_per_batch], pred_iou_thresh
                )
                masks.point_index += first
            yield masks

    def _per_prompt(self, embedding: Tensor, points: Tensor, threshold: float) -> DecodedMasks:
        """The original's decoder, its two halves the other way round: predicted IoU first."""
        decoder, prompts = self.stock.mask_decoder, self.stock.prompt_encoder
        count = len(points)
        points = points.to(embedding.device, torch.float32)[:, None]
        labels = torch.ones(count, 1, device=embedding.device)
        sparse, dense = prompts(points=(points, labels), boxes=None, masks=None)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(count, -1, -1), sparse], dim=1)
        image = embedding.expand(count, -1, -1, -1) + dense
        positions = prompts.get_dense_pe().repeat_interleave(count, dim=0)
        tokens, image = decoder.transformer(image, positions, tokens)
        iou = decoder.iou_prediction_head(tokens[:, 0])[:, 1:]

        passed = iou > threshold if threshold > 0 else torch.ones_like(iou).bool()
        prompt, output = passed.nonzero(as_tuple=True)
        side = self.config.low_resolution_size
        logits = iou.new_zeros(len(prompt), side, side)
        for index in prompt.unique().tolist():
            grid = image[index].T.unflatten(1, embedding.shape[1:])[None]
            fine = decoder.output_upscaling(grid)[0]  # (C / 8, 4h, 4w)
            for row in torch.nonzero(prompt == index)[:, 0].tolist():
                mask = int(output[row]) + 1  # output 0 is the single mask
                vector = decoder.output_hypernetworks_mlps[mask](tokens[index, 1 + mask])
                logits[row] = torch.einsum("c,chw->hw", vector, fine)
        return DecodedMasks(logits, iou[passed], prompt)


class FullSizeGenerator:
    """Everything mode with masks at full size: chunks of float masks, then bits, then codes.

    Args:
        runtime: encodes and decodes.
        settings: SamAutomaticMaskGenerator's keyword arguments; one crop only.
    """

    def __init__(self, runtime: StockEncoded, **settings: Any) -> None:
        self.runtime, self.settings = runtime, EverythingSettings(**settings)
        self._warm = EverythingSettings(**keep_all(settings) | {"points_per_side": 2})
        if self.settings.crop_n_layers:
            raise SettingsError("the ladder runs without crops")

    def warm_up(self) -> None:
        """Load or compile kernels, set up threads and buffers."""
        usual, self.settings = self.settings, self._warm
        self.segment(warm_up_picture())
        self.settings = usual

    def segment(self, image: np.ndarray) -> TileMasks:
        """Masks of an image (H, W, 3) uint8 RGB."""
        s, size = self.settings, self.runtime.config.image_size
        height, width = image.shape[:2]
        crop = Crop(0, 0, width, height, 0)
        input_height, input_width = crop.input_size(size)
        points = torch.from_numpy(s.grid(0) * (input_width, input_height))
        clock = StageClock()
        with clock.timing("encode"):
            embedding = self.runtime.encode(network_pixels(image, crop, size)[None])[0]
        batches = self.runtime.decode(embedding, points, s.pred_iou_thresh, s.points_per_batch)
        bits, boxes, scores = [], [np.zeros((0, 4))], [np.zeros(0)]
        while True:
            with clock.timing("decode"):
                decoded = next(batches, None)
            if decoded is None:
                break
            with clock.timing("filter"):
                masks, kept = self._stable(decoded.logits, crop)
                bits += [np.packbits(mask) for mask in masks]
                boxes.append(np.array([_box(mask) for mask in masks]).reshape(-1, 4))
                scores.append(decoded.predicted_iou.cpu().numpy()[kept])
        with clock.timing("filter"):
            left = box_nms(np.concatenate(boxes), np.concatenate(scores), s.box_nms_thresh)
            final = [
                np.unpackbits(bits[i], count=height * width).reshape(height, width) for i in left
            ]
        with clock.timing("runs"):
            counts = _encoded(final)
        with clock.timing("pool"):
            for mask in final:
                pool_one_by_one(embedding, torch.from_numpy(mask).bool().to(embedding.device))
        return TileMasks(
            size=(height, width),
            counts=counts,
            seconds=clock.seconds,
            total=sum(clock.seconds.values()),
            prompted=len(points),
        )

    def _stable(self, logits: Tensor, crop: Crop) -> tuple[list[np.ndarray], np.ndarray]:
        """Masks (H, W) bool that are stable, and their places among all."""
        s, size = self.settings, self.runtime.config.image_size
        at_once = max(1, CHUNK_BYTES // (4 * max(size**2, crop.height * crop.width)))
        masks, kept = [], []
        for first in range(0, len(logits), at_once):
            full = _full_size(logits[first : first + at_once], crop, size)
            high, low = (
                (full > offset).sum((1, 2)).float()
                for offset in (s.stability_score_offset, -s.stability_score_offset)
            )
            stable = (high / low).cpu().numpy() >= s.stability_score_thresh
            if s.stability_score_thresh <= 0:
                stable[:] = True
            kept += (first + np.flatnonzero(stable)).tolist()
            masks += list((full[torch.from_numpy(stable).to(full.device)] > 0).cpu().numpy())
        return masks, np.array(kept, np.int64)


def _full_size(logits: Tensor, crop: Crop, image_size: int) -> Tensor:
    """(M, 4h, 4w) -> (M, H, W), in the original's two steps."""
    height, width = crop.input_size(image_size)
    square = _resized(logits, (image_size, image_size))
    return _resized(square[:, :height, :width], (crop.height, crop.width))


def _resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First column, first row, last column, last row of a mask (H, W); zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return columns[0], rows[0], columns[-1], rows[-1]


def _encoded(masks: list[np.ndarray]) -> list[bytes]:
    from pycocotools import mask as coco

    return [coco.encode(np.asfortranarray(mask))["counts"] for mask in masks]


def build(job: Job) -> Side:
    """The side of a row that is neither the original nor all of ours."""
    sam, _ = load_sam(job.checkpoint, device=job.device)
    runtime = StockEncoded(sam, job.options["decoder"])
    kinds: dict[str, Callable[..., Side]] = {"full size": FullSizeGenerator, "runs": OurGenerator}
    return kinds[job.options["masks"]](runtime, **job.settings)


def jobs_of(setup: Setup, wanted: tuple[str, ...] = ()) -> list[Job]:
    """Stock's work, then that of each step, or of those whose name contains one of ``wanted``.

    Raises:
        SettingsError: nothing is called so.
    """
    nowhere = [part for part in wanted if not any(part in name for name in STEPS)]
    if nowhere:
        raise SettingsError(f"--only {nowhere[0]}: the rows are {'; '.join(STEPS)}")
    rows = {
        name: step for name, step in STEPS.items() if not wanted or any(w in name for w in wanted)
    }
    return [
        setup.stock(),
        *(setup.job(name, s.builder, s.decoder_form, **s.options) for name, s in rows.items()),
    ]


@click.command()
@click.argument("images", nargs=-1)
@settings_options(EverythingOptions)
@click.option("--only", multiple=True, help="Rows whose name contains this; stock always runs.")
@stock_from_option
@json_option
def main(
    images: tuple[str, ...],
    only: tuple[str, ...],
    stock_from: Path | None,
    target: Path | None,
    **values: Any,
) -> None:
    """Print what each step from the original to our engine bought."""
    with prepared(images, pick(EverythingOptions, values), click.echo) as setup:
        run_rows(setup, jobs_of(setup, only), stock_from=stock_from, target=target, say=click.echo)


if __name__ == "__main__":
    main()
