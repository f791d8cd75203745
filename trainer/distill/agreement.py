"""How well the student agrees with its teacher, on windows that it never saw.

Three ways, from the embedding to what users see: cosine of the embeddings; masks of the same
points, output by output; masks of everything mode with the teacher's thresholds. Both networks
run side by side in float32, window by window, so that their encoders' seconds can be compared.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alps.engine.base.progress import Progress
from alps.engine.base.records import as_record
from alps.engine.masks.crops import Crop, point_grid
from alps.engine.masks.generator import MaskGenerator
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam.model import SamLike
from alps.engine.settings import FilledSegmentSettings
from alps.kernels.masks.iou import mask_ious
from alps.kernels.masks.pixels import runs_of
from alps.trainer.distill.data import NetworkWindow
from alps.trainer.distill.loss import Statistics, mean_cosine

POINTS_A_PASS = 64
MATCHES = (0.75, 0.9)  # IoU from which two masks of everything mode count as one


@dataclass(frozen=True)
class Agreement:
    """What was measured; NaN where there was nothing to measure on."""

    windows: int
    left_out: int  # windows that show nothing, or could not be read
    points: int
    cosine: float  # of embeddings, a mean over cells that show something
    centred_cosine: float  # likewise, channels standardised by the teacher's statistics
    point_iou: float  # teacher's best mask of a point and the student's of the same output
    point_iou_75: float  # share of points with at least 0.75
    point_iou_90: float
    teacher_masks: float  # of everything mode, a window
    student_masks: float
    mask_iou: float  # of each mask of the teacher with the student's nearest one
    found_75: float  # share of the teacher's masks that the student has with at least 0.75
    found_90: float
    true_75: float  # share of the student's masks that the teacher has with at least 0.75
    true_90: float
    teacher_seconds: float  # the encoder, median over windows
    student_seconds: float

    @property
    def speed(self) -> float:
        """How many times as fast the student's encoder is."""
        return self.teacher_seconds / max(self.student_seconds, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which knows no NaN."""
        return {n: None if math.isnan(value) else value for n, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Agreement":
        """Read what ``to_dict`` wrote. Raises BadRecordError where it is something else."""
        return as_record({n: math.nan if v is None else v for n, v in values.items()}, cls)


@dataclass
class _Row:
    """One window's measurements."""

    cosine: float
    centred_cosine: float
    point_iou: np.ndarray  # (n,) of each point
    mask_iou: np.ndarray  # (M, N) of each mask of the teacher with each of the student
    seconds: tuple[float, ...]  # of the encoders, teacher's first


def measure_agreement(
    teacher: SamLike,
    student: SamLike,
    windows: Iterable[NetworkWindow],
    count: int,
    segment: FilledSegmentSettings,
    statistics: Statistics,
) -> Agreement:
    """Run both networks on windows and compare what comes out.

    Args:
        teacher: on the device to be measured.
        student: on the same one.
        windows: upright; those that show nothing are left out.
        count: how many there are.
        segment: settings of everything mode, filled in for the teacher.
        statistics: the teacher's, by which channels are standardised.
    """
    runtimes = [TorchRuntime(model) for model in (teacher, student)]
    statistics = statistics.to(teacher.device)
    rows: list[_Row] = []
    with Progress(count, "windows", "measuring agreement") as progress:
        for window in windows:
            if window.valid.any():
                if not rows:  # the first passes of a network are slow
                    for runtime in runtimes:
                        _timed_encode(runtime, window.pixels)
                rows.append(_measure(runtimes, window, segment, statistics))
            progress.advance()
    return _summary(rows, count - len(rows))


def _measure(
    runtimes: list[TorchRuntime],
    window: NetworkWindow,
    segment: FilledSegmentSettings,
    statistics: Statistics,
) -> _Row:
    """Teacher and student on one window."""
    timed = [_timed_encode(runtime, window.pixels) for runtime in runtimes]
    embeddings = [embedding for embedding, _ in timed]
    theirs, ours = (embedding[None] for embedding in embeddings)
    weight = window.weight[None].to(theirs.device)
    our_centred, their_centred = (statistics.standardise(each) for each in (ours, theirs))
    grid = _grid(segment.points_per_side, window.valid)
    masks = [_everything(runtime, window, grid, segment) for runtime in runtimes]
    return _Row(
        cosine=mean_cosine(ours, theirs, weight),
        centred_cosine=mean_cosine(our_centred, their_centred, weight),
        point_iou=_point_iou(runtimes, embeddings, window.valid.shape, grid),
        mask_iou=mask_ious(*(runs_of(found) for found in masks)),
        seconds=tuple(seconds for _, seconds in timed),
    )


@torch.inference_mode()
def _timed_encode(runtime: TorchRuntime, pixels: Tensor) -> tuple[Tensor, float]:
    """The embedding (C, h, w) of a window and the seconds it took."""
    pixels = pixels[None].to(runtime.sam.device)
    _finish(pixels.device)
    began = time.perf_counter()
    embedding = runtime.encode(pixels)[0]
    _finish(pixels.device)
    return embedding, time.perf_counter() - began


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _grid(per_side: int, valid: np.ndarray) -> np.ndarray:
    """The grid's points on valid pixels, (n, 2) x, y in 0…1."""
    grid = point_grid(per_side)
    height, width = valid.shape
    x, y = np.floor(grid * (width, height)).astype(int).T
    return grid[valid[y.clip(0, height - 1), x.clip(0, width - 1)]]


def _point_iou(
    runtimes: list[TorchRuntime],
    embeddings: list[Tensor],
    size: tuple[int, int],
    grid: np.ndarray,
) -> np.ndarray:
    """IoU (n,) of the teacher's surest mask of each point with the student's of that output.

    Masks are compared at the decoder's own resolution, (4h, 4w), without what is padding there.
    """
    config = runtimes[0].config
    height, width = Crop(0, 0, size[1], size[0], 0).input_size(config.image_size)
    scale = config.low_resolution_size / config.image_size
    rows, columns = (math.ceil(side * scale) for side in (height, width))
    asked = torch.from_numpy(grid * (width, height))
    decoded = (
        runtime.decode(embedding, asked, 0.0, POINTS_A_PASS)  # 0: all masks of all points
        for runtime, embedding in zip(runtimes, embeddings, strict=True)
    )
    found = [torch.zeros(0)]  # so that there is something to join where no point is asked
    for theirs, ours in zip(*decoded, strict=True):
        best = theirs.predicted_iou.reshape(-1, config.multimask_outputs).argmax(1)
        chosen = torch.arange(len(best), device=best.device) * config.multimask_outputs + best
        a, b = (masks.logits[chosen, :rows, :columns] > 0 for masks in (theirs, ours))
        both, either = (a & b).sum((1, 2)), (a | b).sum((1, 2))
        # Two empty masks agree.
        found.append(torch.where(either > 0, both / either.clamp(min=1), 1.0).cpu())
    return torch.cat(found).numpy()


def _everything(
    runtime: TorchRuntime, window: NetworkWindow, grid: np.ndarray, segment: FilledSegmentSettings
) -> np.ndarray:
    """Masks of everything mode that pass the gate, (M, H, W) bool."""
    if len(grid) == 0:
        return np.zeros((0, *window.valid.shape), bool)
    generator = MaskGenerator(
        runtime,
        points_per_side=None,
        point_grids=[grid],
        points_per_batch=segment.points_per_batch,
        pred_iou_thresh=segment.pred_iou_thresh,
        stability_score_thresh=segment.stability_score_thresh,
        stability_score_offset=segment.stability_score_offset,
        box_nms_thresh=segment.box_nms_thresh,
    )
    records = generator.generate(np.ascontiguousarray(window.rgb))
    masks = np.zeros((len(records), *window.valid.shape), bool)
    for mask, record in zip(masks, records, strict=True):
        mask[:] = record["segmentation"] & window.valid
    area = masks.sum((1, 2))
    kept = (area >= max(1, segment.min_area)) & (area <= segment.max_area * window.valid.size)
    return masks[kept]


def _summary(rows: list[_Row], left_out: int) -> Agreement:
    # Something empty stands first, so that there is something to join where no window was left.
    point = np.concatenate([np.zeros(0), *[row.point_iou for row in rows]])
    found = np.concatenate([np.zeros(0), *[_best(row.mask_iou) for row in rows]])
    true = np.concatenate([np.zeros(0), *[_best(row.mask_iou.T) for row in rows]])
    return Agreement(
        windows=len(rows),
        left_out=left_out,
        points=len(point),
        cosine=_mean([row.cosine for row in rows]),
        centred_cosine=_mean([row.centred_cosine for row in rows]),
        point_iou=_mean(point),
        point_iou_75=_mean(point >= MATCHES[0]),
        point_iou_90=_mean(point >= MATCHES[1]),
        teacher_masks=_mean([row.mask_iou.shape[0] for row in rows]),
        student_masks=_mean([row.mask_iou.shape[1] for row in rows]),
        mask_iou=_mean(found),
        found_75=_mean(found >= MATCHES[0]),
        found_90=_mean(found >= MATCHES[1]),
        true_75=_mean(true >= MATCHES[0]),
        true_90=_mean(true >= MATCHES[1]),
        teacher_seconds=_median([row.seconds[0] for row in rows]),
        student_seconds=_median([row.seconds[1] for row in rows]),
    )


def _best(ious: np.ndarray) -> np.ndarray:
    """The highest IoU (M,) of each row (M, N); 0 where there is nothing to compare with."""
    return ious.max(1, initial=0.0)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else float("nan")
