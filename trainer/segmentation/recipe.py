"""Every setting of a training with its one default; the command line reads them from here."""

from dataclasses import dataclass
from typing import ClassVar

from alps.engine.base.errors import SettingsError
from alps.engine.settings import DEVICES, setting
from alps.trainer.checks import PRECISIONS, check_choice, check_range
from alps.trainer.data.settings import UNITS

KEPT = ("encoder", "decoder", "all")  # of a model that another one starts from
TEACHER = 0.99  # share of the running average that stays, where --ema names none
SCHEDULES = ("poly", "cosine", "constant")
CLASS_WEIGHTS = ("none", "root", "inverse")


@dataclass(frozen=True)
class ModelSettings:
    """The network and its start."""

    SECTION: ClassVar[str] = "Model"

    model: str | None = setting(
        None,
        "segformer_mini, segformer_b0 … b5, upernet_resnet50, upernet_resnet101, upernet_convnext_"
        "tiny | small | base, upernet_swin_tiny | small | base. Default: --init's, else "
        "segformer_b0.",
    )
    init: str | None = setting(
        None,
        "Checkpoint to start from: a folder, an OUT of alps pretrain, or a name on the hub; of a "
        "segmentation model, or of an encoder alone (ImageNet). Default: random weights.",
    )
    keep: str = setting(
        "decoder",
        "What of --init stays: encoder; decoder, which is all but the last layer; or all, where it "
        "has as many classes.",
    )


@dataclass(frozen=True)
class TrainSettings:
    """How a model learns."""

    SECTION: ClassVar[str] = "Training"

    steps: int = setting(2000, "Steps of the optimiser.")
    batch: int = setting(8, "Crops a step, over all processes.")
    accumulate: int = setting(1, "Parts that a process cuts its crops of a step into, for memory.")
    crop: int = setting(512, "Side of a crop in pixels.")
    rate: float = setting(5e-4, "Highest learning rate.")
    head_rate: float = setting(1.0, "Times that rate for what is not the encoder.")
    schedule: str = setting("poly", "How the rate falls: poly, cosine or constant.")
    power: float = setting(1.0, "Of poly.")
    warmup: float = setting(0.05, "Share of the steps in which the rate rises in a straight line.")
    weight_decay: float = setting(0.01, "AdamW's, of matrices alone.")
    clip: float = setting(1.0, "Gradients with a larger norm are scaled down to it.")
    ema: float = setting(0.0, "Keep a running average of the weights, 0.999 say; 0: none.")
    class_weights: str = setting(
        "none", "Rare classes count more: none, root (inverse root of their share) or inverse."
    )
    fraction: float = setting(1.0, "Share of the labels to learn from.")
    fraction_unit: str = setting(
        "crop", "What is chosen whole at random for --fraction: crop, image or scene."
    )
    orientations: bool = setting(True, "Flip and turn crops: all eight ways.")
    scale: float = setting(1.5, "Crops are made up to so many times larger and smaller.")
    colour: float = setting(0.25, "Most that brightness, contrast and saturation change by.")
    precision: str = setting(
        "auto",
        "float32, bfloat16, or auto: bfloat16 where the device computes in it.",
        words=PRECISIONS,
    )
    seed: int = setting(0, "Seed of everything random.")


@dataclass(frozen=True)
class SelfTrainingSettings:
    """What is learnt beside real labels: what the model itself says of images without."""

    unlabelled: str | None = setting(
        None,
        "Run folder of images to learn from too: the running average of the model labels them, by "
        "a vote in each object.",
    )
    confidence: float = setting(
        0.8, "Least mean probability of an object's class for it to be learnt."
    )
    unlabelled_weight: float = setting(1.0, "Of these labels' loss beside that of the real ones.")
    unlabelled_from: float = setting(
        0.25, "Share of the steps after which that begins: before it the model knows little."
    )
    unlabelled_colour: float = setting(
        0.5,
        "Most that brightness, contrast and saturation change by between what the average sees and "
        "what the model sees.",
    )


@dataclass(frozen=True)
class EvaluationSettings:
    """How a model is measured."""

    SECTION: ClassVar[str] = "Evaluation"

    overlap: float = setting(0.34, "Of the windows that slide over an image, as a share of --crop.")
    eval_batch: int = setting(4, "Windows predicted at once.")


@dataclass(frozen=True)
class RunOptions:
    """What does not change the result: where and how a training is carried out."""

    SECTION: ClassVar[str] = "Run"

    device: str = setting("auto", "auto, cpu, cuda, cuda:N or mps.", words=DEVICES)
    checkpoint_every: int = setting(
        200, "Steps between checkpoints; a killed run loses no more than these."
    )
    validate_every: int = setting(
        0, "Steps between measurements on the test images; 0: only at the end."
    )
    log_every: int = setting(20, "Steps that a line of log.jsonl tells of.")
    workers: int = setting(2, "Threads that make crops.")
    tensorboard: bool = setting(False, "Log into OUT/tensorboard too.")
    cache: str | None = setting(
        None, "Folder of decoded images, to share among trainings. Default: OUT/cache."
    )


def check_options(options: RunOptions) -> None:
    """Raise SettingsError where a value cannot work."""
    check_range(options, "checkpoint_every", 1, 10**9)
    check_range(options, "validate_every", 0, 10**9)
    check_range(options, "log_every", 1, 10**9)
    check_range(options, "workers", 1, 1024)


def check(
    model: ModelSettings,
    train: TrainSettings,
    evaluation: EvaluationSettings,
    unlabelled: SelfTrainingSettings,
) -> None:
    """Raise SettingsError where a value cannot work, naming its option."""
    for owner, name, low, high in (
        (train, "steps", 0, 100_000_000),
        (train, "batch", 1, 1 << 16),
        (train, "accumulate", 1, 1 << 12),
        (train, "crop", 32, 8192),
        (train, "rate", 0, 1),
        (train, "head_rate", 0, 1000),
        (train, "power", 0, 10),
        (train, "warmup", 0, 1),
        (train, "weight_decay", 0, 10),
        (train, "clip", 1e-6, 1e6),
        (train, "ema", 0, 0.99999),
        (train, "fraction", 1e-9, 1),
        (train, "scale", 1, 8),
        (train, "colour", 0, 0.9),
        (train, "seed", 0, (1 << 63) - 1),
        (unlabelled, "confidence", 0, 1),
        (unlabelled, "unlabelled_weight", 0, 100),
        (unlabelled, "unlabelled_from", 0, 1),
        (unlabelled, "unlabelled_colour", 0, 0.9),
        (evaluation, "overlap", 0, 0.49),
        (evaluation, "eval_batch", 1, 1 << 12),
    ):
        check_range(owner, name, low, high)
    check_choice(train, "schedule", SCHEDULES)
    check_choice(train, "class_weights", CLASS_WEIGHTS)
    check_choice(train, "precision", PRECISIONS)
    check_choice(train, "fraction_unit", UNITS)
    check_choice(model, "keep", KEPT)
    if model.keep == "all" and model.init is None:
        raise SettingsError("--keep all: there is nothing to keep without --init")
