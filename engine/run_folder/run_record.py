"""run.json: what it must be like, and the checksum that it carries of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from msgspec import Meta

from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import SettingsError
from alps.engine.base.records import BadRecordError, Count, Name, as_record
from alps.engine.settings import RunSettings, check_ranges

SUM = "sum"
# What a run folder is of: the command that makes it. Runs of before do not say, and are label's.
LABEL, PREDICT = "label", "predict"


@dataclass(frozen=True)
class ModelRecord:
    """The model of a run."""

    name: str
    sha256: str
    parameters: Count = 0


@dataclass(frozen=True)
class LimitsRecord:
    """A stretch that several files share."""

    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class ComputedOn:
    """The device that computed a run's segments, and what it took at once: they depend on it."""

    device: Name  # the GPU's model, or cpu
    images_at_once: Annotated[int, Meta(ge=1)]
    points_in_a_pass: Annotated[int, Meta(ge=1)]
    torch: str  # version


@dataclass(frozen=True)
class RunRecord:
    """Keys of run.json that stages rely on; each stage says which must be there."""

    source: str = ""
    config_hash: str = ""
    kind: str = LABEL
    model: ModelRecord | None = None
    settings: RunSettings = field(default_factory=RunSettings)
    also: dict[str, Any] = field(default_factory=dict)
    stretches: dict[str, LimitsRecord] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    stages: dict[str, Annotated[float, Meta(ge=0)]] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    machines: Annotated[int, Meta(ge=1)] | None = None
    computed_on: ComputedOn | None = None  # older runs do not say


def check_run(values: Mapping[str, Any]) -> None:
    """Raise BadRecordError for values that no run writes, or that were changed since."""
    refuse_wrong_sum(values)
    record = as_record(values, RunRecord)
    try:
        for part in fields(RunSettings):
            settings = getattr(record.settings, part.name)
            check_ranges(settings, type(settings))
    except SettingsError as error:
        raise BadRecordError(str(error)) from error


def refuse_wrong_sum(values: Mapping[str, Any]) -> None:
    """Raise BadRecordError where values carry a checksum that is not theirs."""
    if SUM in values and with_sum(values)[SUM] != values[SUM]:
        raise BadRecordError(
            f"its checksum is not that of its content, it was damaged or edited (who edited it on "
            f"purpose takes the key {SUM} out)"
        )


def with_sum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with the checksum of all others."""
    others = {name: value for name, value in values.items() if name != SUM}
    return others | {SUM: fingerprint(others)}
