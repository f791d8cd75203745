"""Which trainings an experiment is made of, and the settings it has besides theirs."""

from dataclasses import dataclass
from typing import ClassVar

from alps.engine.base.errors import SettingsError
from alps.engine.settings import setting
from alps.trainer.checks import check_range
from alps.trainer.data.settings import TARGETS, PseudoSettings, check_pseudo

SCRATCH, BASELINE = "scratch", "baseline"
# Arms of a name of their own: what is pre-trained on, None for nothing. Others are named by their
# targets, masks+vectors say.
SELF_TRAINED = "+unlabelled"  # ends an arm that learns from the images of LABELS in fine-tuning
NAMED = {SCRATCH: None, BASELINE: None, "alps": PseudoSettings.targets}
TOLD = {
    SCRATCH: "from scratch",
    BASELINE: "from the checkpoint of --init-baseline",
    "alps": "ALPS pre-training",
    "masks": "control: masks without classes",
    "shuffled": "control: random classes",
}


def targets_of(start: str) -> str | None:
    """What a start is pre-trained on, as --targets has it; None for nothing."""
    return NAMED[start] if start in NAMED else start.replace("+", ",")


def start_of(arm: str) -> str:
    """An arm without what its fine-tuning does besides."""
    return arm.removesuffix(SELF_TRAINED)


def told(arm: str) -> str:
    """What a table calls an arm."""
    start = start_of(arm)
    words = TOLD.get(start, "pre-trained on " + start.replace("+", ", "))
    return words if start == arm else f"{words}, self-training"


@dataclass(frozen=True)
class ExperimentSettings:
    """Everything else is set as for alps pretrain and alps finetune."""

    SECTION: ClassVar[str] = "Experiment"

    arms: str = setting(
        "scratch,alps,masks,shuffled",
        "What is compared: scratch; alps, with the default --targets of alps pretrain; other "
        "targets, joined by a plus: masks, shuffled (controls), classes+vectors, …; baseline, from "
        "the checkpoint of --init-baseline. With +unlabelled (scratch+unlabelled) fine-tuning is "
        "self-training too, on LABELS.",
    )
    fractions: str = setting("0.01,0.05,0.1,1", "Shares of the labels to fine-tune on.")
    seeds: int = setting(3, "Repetitions, each with other subsets, head and order: 0, 1, 2, …")
    pretrain_seeds: int = setting(
        1, "Pre-trainings an arm; repetition i starts from number i modulo this."
    )
    pretrain_steps: int = setting(2000, "Steps of each pre-training.")
    finetune_steps: int = setting(1000, "Steps of each fine-tuning.")
    pretrain_rate: float = setting(5e-4, "Highest learning rate of pre-training.")
    init_baseline: str | None = setting(
        None,
        "Checkpoint that the arm baseline starts from, as --init of alps finetune takes one: an "
        "encoder from ImageNet, say.",
    )


@dataclass(frozen=True)
class Pretraining:
    """A start to fine-tune from."""

    arm: str  # the first that starts from it, without its self-training
    seed: int

    @property
    def name(self) -> str:
        """Its folder below OUT/pretrain."""
        return f"{self.arm}-seed{self.seed}"


@dataclass(frozen=True)
class Finetuning:
    """One cell of the table, once."""

    arm: str
    fraction: float
    seed: int
    start: Pretraining | None

    @property
    def name(self) -> str:
        """Its folder below OUT/finetune."""
        return f"{self.arm}-{self.fraction:g}-seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """All trainings, in the order in which they are carried out."""

    arms: tuple[str, ...]
    fractions: tuple[float, ...]
    pretrainings: tuple[Pretraining, ...]
    finetunings: tuple[Finetuning, ...]


def make_plan(settings: ExperimentSettings) -> Plan:
    """Seeds are the outer loop: a run that is stopped early has whole repetitions.

    Raises:
        SettingsError: an arm that is none, or a fraction or a number that cannot work.
    """
    arms = tuple(part.strip() for part in settings.arms.split(","))
    _check_arms(arms, settings)
    try:
        fractions = tuple(sorted({float(part) for part in settings.fractions.split(",")}))
    except ValueError:
        raise SettingsError(f"--fractions {settings.fractions}: give shares: 0.01,0.1,1") from None
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise SettingsError(f"--fractions {settings.fractions}: shares are above 0, at most 1")
    check_range(settings, "seeds", 1, 1000)
    check_range(settings, "pretrain_seeds", 1, settings.seeds)
    check_range(settings, "pretrain_steps", 1, 100_000_000)
    check_range(settings, "finetune_steps", 1, 100_000_000)
    check_range(settings, "pretrain_rate", 0, 1)
    starts = {
        (start, seed): Pretraining(start, seed)
        for seed in range(settings.pretrain_seeds)
        for start in map(start_of, arms)
        if targets_of(start) is not None
    }
    finetunings = tuple(
        Finetuning(arm, fraction, seed, starts.get((start_of(arm), seed % settings.pretrain_seeds)))
        for seed in range(settings.seeds)
        for fraction in fractions
        for arm in arms
    )
    return Plan(arms, fractions, tuple(starts.values()), finetunings)


def _check_arms(arms: tuple[str, ...], settings: ExperimentSettings) -> None:
    """Raise SettingsError for an arm that is none, or is there twice."""
    for arm in arms:
        targets = targets_of(start_of(arm))
        try:
            if targets is not None:
                check_pseudo(PseudoSettings(targets))
        except SettingsError:
            raise SettingsError(
                f"--arms {settings.arms}: {arm} is none; give {', '.join(NAMED)}, or targets "
                f"joined by a plus ({', '.join(TARGETS)})"
            ) from None
    if len(set(arms)) < len(arms):
        raise SettingsError(f"--arms {settings.arms}: give each once")
    if (BASELINE in map(start_of, arms)) != (settings.init_baseline is not None):
        raise SettingsError(
            "--init-baseline gives the checkpoint of the arm baseline: give both or neither"
        )
