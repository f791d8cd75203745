"""Masks of everything mode by an export, beside PyTorch's: what the numbers come to for a user."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from alps.engine.base.errors import ArtefactError
from alps.engine.masks.generator import MaskGenerator, Segments
from alps.engine.runtimes.protocol import Runtime
from alps.engine.sam import ModelDefaults
from alps.engine.settings import RunSettings
from alps.kernels.masks import coco
from alps.kernels.masks.iou import best_ious

LEVELS = (0.99, 0.9, 0.75)  # of IoU


@dataclass(frozen=True)
class Bound:
    """What share of PyTorch's masks an export must find again, and how exactly."""

    iou: float
    share: float

    def allows(self, masks: int) -> int:
        """How many of so many masks may be lost; of few, one may."""
        return max(1, int((1 - self.share) * masks + 1e-6))


BOUNDS: Mapping[str, Bound] = {
    "fp32": Bound(0.99, 0.99),
    "fp16": Bound(0.9, 0.95),
    "bf16": Bound(0.9, 0.90),
    "int8": Bound(0.75, 0.90),
}


@dataclass(frozen=True)
class MaskAgreement:
    """Masks of both sides on the same tiles, and the seconds they took."""

    tiles: int
    masks: int  # PyTorch's
    own_masks: int
    found: dict[str, float]  # level -> share of PyTorch's masks with one of the export's
    own: dict[str, float]  # level -> share of the export's masks with one of PyTorch's
    mean_iou: float  # of each of PyTorch's with its best match
    encode_seconds: tuple[float, float]  # a tile, PyTorch's and the export's
    decode_seconds: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)

    def lost(self, level: float) -> int:
        """The greater number of masks without a match, of either side."""
        return max(
            round((1 - self.found[str(level)]) * self.masks),
            round((1 - self.own[str(level)]) * self.own_masks),
        )


def compare_masks(
    reference: Runtime, runtime: Runtime, images: Sequence[np.ndarray], defaults: ModelDefaults
) -> MaskAgreement | None:
    """Everything mode on images (H, W, 3) uint8 RGB, with the model's own thresholds.

    Returns None where neither side finds a mask.
    """
    settings = RunSettings().for_model(defaults).segment
    sides = [_segment(MaskGenerator.for_run(r, settings), images) for r in (reference, runtime)]
    pairs = list(zip(*sides, strict=True))
    decoded = [tuple(coco.decode(side.counts, side.size) for side in pair) for pair in pairs]
    found = np.concatenate([best_ious(theirs, ours) for theirs, ours in decoded])
    own = np.concatenate([best_ious(ours, theirs) for theirs, ours in decoded])
    if not len(found) and not len(own):
        return None
    return MaskAgreement(
        len(images), len(found), len(own), _shares(found), _shares(own),
        float(found.mean()) if len(found) else 0.0,
        encode_seconds=(_seconds(sides[0], "encode"), _seconds(sides[1], "encode")),
        decode_seconds=(_seconds(sides[0], "decode"), _seconds(sides[1], "decode")),
    )  # fmt: skip


def refuse_lost(agreement: MaskAgreement, bound: Bound) -> None:
    """Raise ArtefactError where too many masks have no match."""
    lost, masks = agreement.lost(bound.iou), max(agreement.masks, agreement.own_masks)
    if lost > bound.allows(masks):
        share = math.ceil(100 * lost / masks) / 100
        raise ArtefactError(
            f"the export loses {lost} of {masks} masks on {agreement.tiles} tiles (IoU below "
            f"{bound.iou:g}), more than {bound.allows(masks)} are allowed; nothing was written. "
            f"Take a higher --precision, or allow it: --max-loss {share:.2f}"
        )


def _segment(generator: MaskGenerator, images: Sequence[np.ndarray]) -> list[Segments]:
    generator.segment(images[0][:64, :64])  # the first call sets up threads and buffers
    return [generator.segment(image) for image in images]


def _seconds(side: Sequence[Segments], stage: str) -> float:
    """Of a tile."""
    return sum(segments.seconds[stage] for segments in side) / len(side)


def _shares(best: np.ndarray) -> dict[str, float]:
    return {str(level): float((best >= level).mean()) if len(best) else 1.0 for level in LEVELS}
