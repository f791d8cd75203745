"""What is exported, and how."""

from dataclasses import dataclass

LOCAL_FILES = "/data/local-files/?d="  # how Label Studio serves files of its own machine


@dataclass(frozen=True)
class Splits:
    """Which images are held out: whole scenes, by lot."""

    val: float = 0.0  # share of the scenes
    seed: int = 0
    scene: str | None = None  # regular expression of what in a name is its scene; None: all of it


@dataclass(frozen=True)
class ExportSettings:
    """All that decides what is written of a run; the options of `alps export-labels`."""

    format: str  # coco, yolo, mmseg, labelstudio, cvat or stac
    val: float = 0.0  # share of the scenes that are held out
    seed: int = 0  # which scenes these are
    scene: str | None = None  # regular expression of what in a name is its scene; None: all of it
    copy: bool = False  # images are copied, not linked
    url: str = LOCAL_FILES  # before the path of a file, where a tool fetches it

    @property
    def splits(self) -> Splits:
        """Which images are held out."""
        return Splits(self.val, self.seed, self.scene)
