"""Every setting of a distillation with its one default; the command line reads them from here."""

import dataclasses
import json
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from alps.engine.base.errors import SettingsError
from alps.engine.sam.config import ModelDefaults
from alps.engine.settings import (
    FilledSettings,
    FilledSourceSettings,
    RunSettings,
    SegmentSettings,
    SourceSettings,
    setting,
)
from alps.trainer.checks import (
    PRECISIONS,
    check_choice,
    check_range,
    option,
)

# Width and layers; heads are 64 channels wide, as in every ViT of the literature. `half` follows
# the teacher: its width, every second of its layers.
PRESETS: dict[str, tuple[int, int] | None] = {"half": None, "small": (384, 12), "tiny": (192, 12)}
MOBILE = "mobile"  # MobileSAM's encoder, no ViT
STUDENTS = (*PRESETS, MOBILE)

RATE_LEARNT, RATE_RANDOM = 1e-4, 5e-4


@dataclass(frozen=True)
class StudentSettings:
    """The student's encoder. What is not named here is the teacher's: input, patches, channels."""

    SECTION: ClassVar[str] = "Student"

    student: str = setting(
        "half",
        "Shape of the encoder: half (the teacher's width, every second layer), small (width 384, "
        "12 layers), tiny (width 192, 12 layers), or mobile: MobileSAM's, for CPUs.",
    )
    width: int | None = setting(None, "Channels of an image token. Default: the preset's.")
    depth: int | None = setting(None, "Layers. Default: the preset's.")
    heads: int | None = setting(
        None,
        "Attention heads. Default: the teacher's where widths agree, else one for 64 channels.",
    )
    window: int | None = setting(
        None, "Side of attention windows in patches; 0: none. Default: the teacher's."
    )
    global_blocks: int | None = setting(
        None, "Layers that attend globally, evenly spread. Default: as many as the teacher's."
    )
    init: str | None = setting(
        None,
        "Checkpoint whose encoder, with its shape, is the start. Default: layers of the teacher "
        "where widths agree, else random weights.",
    )


@dataclass(frozen=True)
class TrainSettings:
    """How the student learns. Windows are drawn without return, epoch after epoch."""

    SECTION: ClassVar[str] = "Training"

    steps: int = setting(2000, "Steps of the optimiser.")
    batch: int = setting(8, "Windows a step, over all processes.")
    rate: float | None = setting(
        None,
        f"Highest learning rate. Default: {RATE_LEARNT:g} for a student that starts with learnt "
        f"layers, {RATE_RANDOM:g} for a random one.",
    )
    warmup: float = setting(0.1, "Share of the steps in which the rate rises; then a cosine.")
    weight_decay: float = setting(0.05, "AdamW's, of matrices alone.")
    clip: float = setting(1.0, "Gradients with a larger norm are scaled down to it.")
    cosine: float = setting(1.0, "Weight of the cosine's part of the loss, beside squared error.")
    ema: float = setting(0.0, "Keep a running average of the weights, 0.999 say; 0: none.")
    precision: str = setting(
        "auto",
        "float32, bfloat16, or auto: bfloat16 where the device computes in it.",
        words=PRECISIONS,
    )
    augment: bool = setting(
        True, "Flip and turn windows, unless --cache-gb keeps the teacher's embeddings."
    )
    cache_gb: float = setting(
        0.0, "Keep the teacher's embeddings in OUT, up to so many GB, instead of running it anew."
    )
    hold_out: float = setting(0.1, "Share of the windows kept out, to measure agreement on.")
    seed: int = setting(0, "Seed of everything random.")


@dataclass(frozen=True)
class AgreementSettings:
    """How the finished student is compared; may change without training anew."""

    SECTION: ClassVar[str] = "Agreement"

    points_per_side: int | None = setting(
        None, "Prompts a side of a window when agreement is measured. Default: the teacher's."
    )
    agreement_windows: int = setting(16, "Held-out windows that agreement is measured on, at most.")


@dataclass(frozen=True)
class DistillSettings:
    """All that decides what a distillation writes."""

    source: SourceSettings = field(default_factory=SourceSettings)
    student: StudentSettings = field(default_factory=StudentSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    agreement: AgreementSettings = field(default_factory=AgreementSettings)

    def for_teacher(self, teacher: ModelDefaults) -> "FilledDistillSettings":
        """Fill what the teacher decides, windows and prompts, and check everything.

        Raises:
            SettingsError: a value cannot work; the text names the option.
        """
        run = self.everything(teacher)
        prompts = run.segment.points_per_side
        agreement = dataclasses.replace(self.agreement, points_per_side=prompts)
        filled = FilledDistillSettings(run.source, self.student, self.train, agreement)
        _check(filled)
        return filled

    def everything(self, teacher: ModelDefaults) -> FilledSettings:
        """Settings of everything mode that the teacher's masks are made with."""
        prompts = SegmentSettings(points_per_side=self.agreement.points_per_side)
        return RunSettings(self.source, prompts).for_model(teacher)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


@dataclass(frozen=True)
class FilledDistillSettings(DistillSettings):
    """``DistillSettings`` with the teacher's say."""

    source: FilledSourceSettings


def _check(settings: DistillSettings) -> None:
    train, agreement = settings.train, settings.agreement
    for owner, name, low, high in (
        (train, "steps", 0, 100_000_000),
        (train, "batch", 1, 1 << 16),
        (train, "rate", 0, 1),
        (train, "warmup", 0, 1),
        (train, "weight_decay", 0, 10),
        (train, "clip", 1e-6, 1e6),
        (train, "cosine", 0, 1000),
        (train, "ema", 0, 0.99999),
        (train, "cache_gb", 0, 1e6),
        (train, "hold_out", 0, 0.9),
        (train, "seed", 0, (1 << 63) - 1),
        (agreement, "agreement_windows", 1, 100_000),
    ):
        check_range(owner, name, low, high)
    check_choice(train, "precision", PRECISIONS)
    check_choice(settings.student, "student", STUDENTS)
    if settings.student.init is not None:
        _refuse_shape("--init", settings.student, "init")
    elif settings.student.student == MOBILE:
        _refuse_shape(f"--student {MOBILE}", settings.student, "student")


def _refuse_shape(by: str, student: StudentSettings, kept: str) -> None:
    given = [
        option(item.name)
        for item in fields(student)
        if item.name != kept and getattr(student, item.name) != item.default
    ]
    if given:
        raise SettingsError(
            f"{by} brings the encoder's shape along; leave out {', '.join(given)}, or {by}"
        )
