"""Measures of a segmentation, as the benchmarks define them, from one confusion matrix."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from alps.engine.base.records import BadRecordError, Count, as_record


class Confusion:
    """counts[t, p]: pixels of class t that were predicted as p."""

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Count the pixels whose truth is a class; both of one shape, any integer dtype."""
        classes = len(self.counts)
        known = truth < classes
        pairs = truth[known].astype(np.int64) * classes + predicted[known]
        self.counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class ScoresRecord:
    """``Scores`` as JSON has them, which knows no NaN."""

    iou: dict[str, float | None]
    f1: dict[str, float | None]
    mean_iou: float | None
    mean_f1: float | None
    overall_accuracy: float | None
    pixels: Count
    without: "ScoresRecord | None" = None


@dataclass(frozen=True)
class Scores:
    """Shares of 1. NaN for a class that is neither there nor predicted; means pass over it."""

    classes: tuple[str, ...]
    iou: tuple[float, ...]
    f1: tuple[float, ...]
    mean_iou: float
    mean_f1: float
    overall_accuracy: float
    pixels: int
    without: "Scores | None" = None  # the means without the classes that are left out

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "mean_iou": _or_none(self.mean_iou),
            "mean_f1": _or_none(self.mean_f1),
            "overall_accuracy": _or_none(self.overall_accuracy),
            "pixels": self.pixels,
            "iou": dict(zip(self.classes, map(_or_none, self.iou), strict=True)),
            "f1": dict(zip(self.classes, map(_or_none, self.f1), strict=True)),
            "without": None if self.without is None else self.without.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Scores":
        """Read what ``to_dict`` wrote. Raises BadRecordError where it is something else."""
        return cls._of(as_record(values, ScoresRecord))

    @classmethod
    def _of(cls, record: "ScoresRecord") -> "Scores":
        if record.iou.keys() != record.f1.keys():
            raise BadRecordError("iou and f1 are of other classes")
        return cls(
            tuple(record.iou),
            tuple(map(_or_nan, record.iou.values())),
            tuple(_or_nan(record.f1[name]) for name in record.iou),
            _or_nan(record.mean_iou),
            _or_nan(record.mean_f1),
            _or_nan(record.overall_accuracy),
            record.pixels,
            None if record.without is None else cls._of(record.without),
        )

    def table(self) -> str:
        """A row a class, then the means."""
        width = max(map(len, (*self.classes, "overall accuracy")))
        lines = [f"{'':<{width}}    IoU     F1"]
        for name, iou, f1 in zip(self.classes, self.iou, self.f1, strict=True):
            lines.append(f"{name:<{width}}  {iou:5.3f}  {f1:5.3f}")
        lines.append(f"{'mean':<{width}}  {self.mean_iou:5.3f}  {self.mean_f1:5.3f}")
        lines.append(f"{'overall accuracy':<{width}}  {self.overall_accuracy:5.3f}")
        if self.without is not None:
            gone = ", ".join(name for name in self.classes if name not in self.without.classes)
            lines.append(
                f"without {gone}: mean IoU {self.without.mean_iou:.3f}, "
                f"mean F1 {self.without.mean_f1:.3f}"
            )
        return "\n".join(lines)


def scores(counts: np.ndarray, classes: tuple[str, ...], left_out: tuple[str, ...] = ()) -> Scores:
    """IoU = TP / (TP + FP + FN), F1 = 2 TP / (2 TP + FP + FN), accuracy = all TP / all pixels.

    counts: (C, C) int64, truth by prediction. left_out: classes that ``without`` is told without:
    means over the others, of the same confusion matrix, as results on Potsdam are told without
    clutter; a pixel of clutter taken for a building is a false one all the same.
    """
    true = np.diag(counts).astype(float)
    truth, predicted = counts.sum(axis=1).astype(float), counts.sum(axis=0).astype(float)
    with np.errstate(invalid="ignore"):
        iou = true / (truth + predicted - true)
        f1 = 2 * true / (truth + predicted)
    pixels = int(counts.sum())
    accuracy = float(true.sum() / pixels) if pixels else math.nan

    def told(chosen: list[int], without: Scores | None) -> Scores:
        return Scores(
            tuple(classes[index] for index in chosen),
            tuple(iou[chosen].tolist()),
            tuple(f1[chosen].tolist()),
            _mean(iou[chosen]),
            _mean(f1[chosen]),
            accuracy,
            pixels,
            without,
        )

    kept = [index for index, name in enumerate(classes) if name not in left_out]
    without = told(kept, None) if len(kept) < len(classes) else None
    return told(list(range(len(classes))), without)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
