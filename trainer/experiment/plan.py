"""Which trainings an experiment is made of, and the settings it has besides theirs."""

from dataclasses import dataclass

from alps.engine.base.errors import SettingsError
from alps.engine.settings import setting
from alps.trainer.checks import check_range

# What a model starts from before it is fine-tuned: nothing, or a pre-training on these targets.
TARGETS = {"scratch": None, "alps": "classes", "masks": "masks", "shuffled": "shuffled"}
TOLD = {
    "scratch": "from scratch",
    "alps": "ALPS pre-training",
    "masks": "control: masks without classes",
    "shuffled": "control: random classes",
}


@dataclass(frozen=True)
class ExperimentSettings:
    """Everything else is set as for alps pretrain and alps finetune."""

    arms: str = setting(
        "scratch,alps,masks,shuffled",
        "What is compared: scratch, alps, and the controls masks (inside a region or on its edge) "
        "and shuffled (each region the class of a random one).",
    )
    fractions: str = setting("0.01,0.05,0.1,1", "Shares of the labels to fine-tune on.")
    seeds: int = setting(3, "Repetitions, each with other subsets, head and order: 0, 1, 2, …")
    pretrain_seeds: int = setting(
        1, "Pre-trainings an arm; repetition i starts from number i modulo this."
    )
    pretrain_steps: int = setting(2000, "Steps of each pre-training.")
    finetune_steps: int = setting(1000, "Steps of each fine-tuning.")
    pretrain_rate: float = setting(5e-4, "Highest learning rate of pre-training.")


@dataclass(frozen=True)
class Pretraining:
    """A start to fine-tune from."""

    arm: str
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
    wrong = [arm for arm in arms if arm not in TARGETS]
    if wrong or len(set(arms)) < len(arms):
        raise SettingsError(f"--arms {settings.arms}: give some of {', '.join(TARGETS)}, each once")
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
        (arm, seed): Pretraining(arm, seed)
        for seed in range(settings.pretrain_seeds)
        for arm in arms
        if TARGETS[arm] is not None
    }
    finetunings = tuple(
        Finetuning(arm, fraction, seed, starts.get((arm, seed % settings.pretrain_seeds)))
        for seed in range(settings.seeds)
        for fraction in fractions
        for arm in arms
    )
    return Plan(arms, fractions, tuple(starts.values()), finetunings)
