"""What a distillation came to, as values and as the table that a person reads."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from alps.engine.base.records import Count, Name, as_record
from alps.trainer.distill.agreement import Agreement


@dataclass(frozen=True)
class DistillRecord:
    """``DistillResult`` as distill.json has it."""

    student: Name
    teacher: str
    start: str
    parameters: tuple[Count, Count]
    encoder_parameters: tuple[Count, Count]
    train_windows: Count
    held_out_windows: Count
    held_out_by: str
    steps: Count
    train_seconds: float
    images_per_second: float | None
    unopened: Count
    unread: Count
    agreement: dict[str, int | float | None]


@dataclass(frozen=True)
class DistillResult:
    """Pairs are of teacher and student."""

    student: Path  # the checkpoint
    teacher: str  # its name
    start: str  # what the student began with
    parameters: tuple[int, int]
    encoder_parameters: tuple[int, int]
    train_windows: int
    held_out_windows: int
    held_out_by: str  # "image" or "window"
    steps: int
    train_seconds: float  # in the loop, pauses left out
    images_per_second: float  # NaN where no step was made
    unopened: int  # images that could not be opened
    unread: int  # windows that could not be read when they were drawn
    agreement: Agreement

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rate = None if math.isnan(self.images_per_second) else self.images_per_second
        return asdict(self) | {
            "student": self.student.name,
            "images_per_second": rate,
            "agreement": self.agreement.to_dict(),
            "encoder_speed": _or_none(self.agreement.speed),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], root: Path) -> "DistillResult":
        """Read what ``to_dict`` wrote into the folder ``root``.

        Raises BadRecordError where it is something else.
        """
        record = as_record(values, DistillRecord)
        rate = record.images_per_second
        read = vars(record) | {
            "student": root / PurePath(record.student).name,
            "images_per_second": math.nan if rate is None else rate,
            "agreement": Agreement.from_dict(record.agreement),
        }
        return cls(**read)

    def table(self) -> str:
        """Teacher and student side by side, then how far they agree."""
        agreed = self.agreement
        rows = [
            ("", "teacher", "student", ""),
            ("encoder, million parameters", *_millions(self.encoder_parameters), ""),
            ("network, million parameters", *_millions(self.parameters), ""),
            (
                "encoder, seconds a window",
                _number(agreed.teacher_seconds, ".3f"),
                _number(agreed.student_seconds, ".3f"),
                f"{_number(agreed.speed, '.2f')} times as fast",
            ),
            (
                "masks a window",
                _number(agreed.teacher_masks, ".1f"),
                _number(agreed.student_masks, ".1f"),
                "",
            ),
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [
            f"{name:<{widths[0]}}  {a:>{widths[1]}}  {b:>{widths[2]}}  {note}".rstrip()
            for name, a, b, note in rows
        ]
        left_out = f" ({agreed.left_out} more show nothing)" if agreed.left_out else ""
        lines += [
            "",
            f"agreement on {agreed.windows} held-out windows{left_out}, {agreed.points} points:",
            f"  embeddings: cosine {_number(agreed.cosine, '.3f')}, "
            f"{_number(agreed.centred_cosine, '.3f')} with channels standardised",
            f"  masks of the same points: mean IoU {_number(agreed.point_iou, '.3f')}; "
            f"IoU of 0.75 for {_number(agreed.point_iou_75, '.1%')}, of 0.9 for "
            f"{_number(agreed.point_iou_90, '.1%')}",
            f"  masks of everything mode: mean best IoU {_number(agreed.mask_iou, '.3f')}",
            f"    of the teacher's the student has {_number(agreed.found_75, '.1%')} at IoU 0.75, "
            f"{_number(agreed.found_90, '.1%')} at 0.9",
            f"    of the student's the teacher has {_number(agreed.true_75, '.1%')} at IoU 0.75, "
            f"{_number(agreed.true_90, '.1%')} at 0.9",
        ]
        return "\n".join(lines)


def _millions(values: tuple[int, int]) -> tuple[str, str]:
    teacher, student = (f"{value / 1e6:.2f}" for value in values)
    return teacher, student


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
