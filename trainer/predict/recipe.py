"""Settings of predictions, each with its one default; what is left open the model's card says."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from alps.engine.base.errors import SettingsError
from alps.engine.settings import (
    FilledSourceSettings,
    ReadSettings,
    SourceSettings,
    check_ranges,
    check_reading,
    check_tiling,
    setting,
)
from alps.trainer.checks import PRECISIONS, check_choice
from alps.trainer.segmentation.card import ModelCard
from alps.trainer.segmentation.recipe import EvaluationSettings

LEAST_SIDE = 32  # of what a model sees


@dataclass(frozen=True)
class PredictSettings:
    """What is predicted, and how."""

    SECTION: ClassVar[str] = "Prediction"

    confidence: bool = setting(
        False, "Write OUT/confidence too: the probability of each pixel's class, 8 bits."
    )
    probabilities: bool = setting(
        False, "Write OUT/probabilities too: of each class, a band a class, 8 bits."
    )
    batch: int = setting(4, "Windows predicted at once.", 1, 1 << 12)
    precision: str = setting(
        "auto",
        "float32, bfloat16, or auto: as it was taught, where the device computes in it.",
        words=PRECISIONS,
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def check(settings: PredictSettings) -> None:
    """Raise SettingsError where a value cannot work, naming its option."""
    check_ranges(settings, PredictSettings)
    check_choice(settings, "precision", PRECISIONS)


def filled(asked: SourceSettings, card: ModelCard) -> FilledSourceSettings:
    """Settings of sources with the model's say. Raises SettingsError where they cannot work."""
    values = {item.name: getattr(asked, item.name) for item in fields(SourceSettings)}
    for item in fields(ReadSettings):
        if values[item.name] == item.default:
            values[item.name] = getattr(card.reading, item.name)
    tile = values["tile"] = asked.tile or card.crop * card.shrink
    if asked.overlap is None:
        values["overlap"] = int(EvaluationSettings.overlap * tile)
    source = FilledSourceSettings(**values)
    check_ranges(source, SourceSettings)
    check_tiling(source.tile, source.overlap)
    check_reading(source)
    if tile < LEAST_SIDE * card.shrink or tile % card.shrink:
        raise SettingsError(
            f"--tile {tile}: must be at least {LEAST_SIDE * card.shrink}, and a multiple of "
            f"{card.shrink}: the model saw images so many times smaller"
        )
    return source


def plain(settings: Any) -> dict[str, Any]:
    """A dataclass as JSON has it."""
    return json.loads(json.dumps(asdict(settings)))
