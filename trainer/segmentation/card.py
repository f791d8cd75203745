"""What a model says of itself beside its network: how its images were read, how its classes look.

It is a key of config.json, and goes where the model goes.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from alps.engine.base.errors import ModelError
from alps.engine.base.records import Side, read_record
from alps.engine.settings import ReadSettings
from alps.trainer.data.rules import Colour
from alps.trainer.segmentation.recipe import TrainSettings

CARD = "alps"  # the key
Shrink = Annotated[int, Meta(ge=1, le=64)]


@dataclass(frozen=True)
class ModelCard:
    """How a model was taught."""

    crop: Side = TrainSettings.crop  # of the images as the model saw them
    precision: str = TrainSettings.precision
    shrink: Shrink = 1  # so many times smaller than their files
    reading: ReadSettings = field(default_factory=ReadSettings)
    colours: tuple[Colour, ...] | None = None  # of the classes, in their order

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Config:
    alps: ModelCard | None = None


@dataclass(frozen=True, kw_only=True)
class _TrainedSettings(ReadSettings):
    crop: Side
    precision: str
    shrink: Shrink = 1


@dataclass(frozen=True)
class _Trained:
    settings: _TrainedSettings


def read_card(checkpoint: str | Path, folder: str | Path) -> ModelCard:
    """The card of a model; of one without, what its training.json says, else defaults.

    checkpoint: as it was given. folder: where its config.json is, if it is a folder.

    Raises ModelError where one of these files cannot be read.
    """
    mend = "put back a copy, or name another checkpoint"
    try:
        card = read_record(Path(folder) / "config.json", _Config, ModelError, mend).alps
    except (FileNotFoundError, NotADirectoryError):
        card = None
    if card is not None:
        return card
    mend = "put back a copy, or name OUT/model"
    try:
        record = Path(checkpoint) / "training.json"
        known = read_record(record, _Trained, ModelError, mend).settings
    except (FileNotFoundError, NotADirectoryError):
        return ModelCard()
    precision = "float32" if known.precision == "float32" else "auto"
    reading = ReadSettings(known.bands, known.alpha, known.nodata, known.stretch)
    return ModelCard(known.crop, precision, known.shrink, reading)
