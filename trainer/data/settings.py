"""Which images and labels a training reads, and how; the command line reads defaults from here."""

from dataclasses import dataclass
from typing import ClassVar

from alps.engine.base.errors import SettingsError
from alps.engine.settings import ReadSettings, check_reading, setting
from alps.trainer.checks import check_range

TARGETS = ("classes", "masks", "vectors", "shuffled")
PAINTED = ("classes", "shuffled", "masks")  # one of them is what arrays of labels hold
UNITS = ("crop", "image", "scene")


@dataclass(frozen=True)
class DataSettings(ReadSettings):
    """What stands in DATA's dataset.json need not be given; what is given wins."""

    SECTION: ClassVar[str] = "Data"

    classes: str | None = setting(
        None, "Names of the classes in order, with commas. Default: DATA's, else 0, 1, 2, …"
    )
    train: str | None = setting(
        None, "Glob of the images to learn from; without --test some of them are held out."
    )
    test: str | None = setting(None, "Glob of the images to test on; not learnt from.")
    scene: str | None = setting(
        None,
        "Regular expression whose match in an image's name is its scene; scenes are held out "
        "whole. Default: each image is one.",
    )
    hold_out: float = setting(
        0.2, "Share of the scenes to test on, where neither DATA nor --test names them."
    )
    label_threshold: float | None = setting(
        None, "Labels above it are class 1, others class 0: for masks of grey values, 127."
    )
    label_ignore: int | None = setting(None, "Label value that is no class. Default: 255.")
    label_values: str | None = setting(
        None,
        "Label values of the classes in their order, where these are not numbered 0, 1, 2, …: "
        "0,128,255 say.",
    )
    reduce_zero: bool = setting(False, "Label 0 is no class, 1 is the first one.")
    image_suffix: str = setting("", "Ending of images' stems that their labels' lack: _RGB.")
    label_suffix: str = setting("", "Ending of labels' stems that their images' lack: _label.")
    shrink: int = setting(1, "Read images and labels so many times smaller.")
    skip_bad: bool = setting(False, "Go on without the pairs that the report of bad data names.")


@dataclass(frozen=True)
class PseudoSettings:
    """What of a run folder is learnt: only for pre-training."""

    SECTION: ClassVar[str] = "Pseudo-labels"

    targets: str = setting(
        "classes",
        "One or several, with commas: classes; masks (inside an object of SAM's masks or on its "
        "edge); vectors (what the region's embeddings are clustered by); as a control, shuffled in "
        "place of classes (each object gets the class of a random region).",
    )
    margin_weight: bool = setting(
        False, "Weigh pixels by their region's margin, full weight from the median on."
    )
    margin_cut: float = setting(
        0.0, "Ignore this share of the regions: those most doubtful by their margin."
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The targets, in the order of ``TARGETS`` whatever order they were given in."""
        given = {part.strip() for part in self.targets.split(",")}
        return tuple(name for name in TARGETS if name in given)

    @property
    def painted(self) -> str:
        """Which of them the arrays of labels hold; regions' numbers tell the others."""
        return next(name for name in PAINTED if name in self.names)

    @property
    def with_regions(self) -> bool:
        """Whether numbers of regions and objects are kept beside the labels."""
        return len(self.names) > 1


def check_data(data: DataSettings) -> None:
    """Raise SettingsError where a value cannot work."""
    check_reading(data)
    check_range(data, "hold_out", 0, 0.9)
    check_range(data, "shrink", 1, 64)
    check_range(data, "label_ignore", 0, 65535)


def check_pseudo(pseudo: PseudoSettings) -> None:
    """Raise SettingsError where a value cannot work."""
    given = [part.strip() for part in pseudo.targets.split(",")]
    wrong = [part for part in given if part not in TARGETS]
    if wrong or len(set(given)) < len(given):
        raise SettingsError(
            f"--targets {pseudo.targets}: give some of {', '.join(TARGETS)}, each once"
        )
    if {"classes", "shuffled"} <= set(given):
        raise SettingsError("--targets: shuffled stands in place of classes; give one of the two")
    if not set(given) & set(PAINTED):
        raise SettingsError("--targets vectors: give classes or masks beside them")
    check_range(pseudo, "margin_cut", 0, 0.95)
