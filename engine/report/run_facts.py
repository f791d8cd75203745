"""What run.json says, in the words of the page. Optional keys may be missing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

NOT_SET = "–"
# Numbers of `alps quality`, in this order; others follow under their own names.
QUALITY_NAMES = {
    "miou": ("Mean IoU", "over the real classes; unlabelled pixels count as misses"),
    "accuracy": ("Accuracy", "share of truth pixels with the right class"),
    "nmi": ("NMI", "normalised mutual information, over labelled pixels"),
    "purity": ("Purity", "share of labelled pixels in their class's main real class"),
    "coverage": ("Coverage", "share of truth pixels that are labelled"),
}


@dataclass(frozen=True)
class QualityNumbers:
    """Label quality, sorted for showing."""

    headline: list[tuple[str, float, str]]  # name, share of 1, what it means
    classes: list[dict[str, Any]]
    others: list[tuple[str, str]]


def flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name nested settings with dots: {"gate": {"max_area": 0.3}} gives gate.max_area."""
    if isinstance(settings, dict) and settings:
        for name, value in settings.items():
            yield from flat(value, f"{prefix}{name}.")
    elif prefix:
        yield prefix.rstrip("."), settings


def changed_settings(run: dict[str, Any]) -> list[tuple[str, str, str]] | None:
    """(name, value, default) of settings that differ; None where defaults are not recorded."""
    if not isinstance(run.get("defaults"), dict):
        return None
    defaults = dict(flat(run["defaults"]))
    return [
        (name, plain(value), plain(defaults.get(name)))
        for name, value in flat(run.get("settings"))
        if name in defaults and value != defaults[name]
    ]


def plain(value: Any) -> str:
    """A setting as a reader would write it."""
    if value is None:
        return NOT_SET
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or NOT_SET
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def read_time(text: Any) -> datetime | None:
    """An ISO date and time; None where it is none."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def run_seconds(run: dict[str, Any]) -> float | None:
    """What the stages took, or else from start to finish, which counts the pauses of a run."""
    stages = sum(stage_seconds(run).values())
    if stages:
        return stages
    started, finished = read_time(run.get("started")), read_time(run.get("finished"))
    # One with and one without time zone cannot be subtracted.
    if started and finished and (started.tzinfo is None) == (finished.tzinfo is None):
        return max(0.0, (finished - started).total_seconds())
    return None


def stage_seconds(run: dict[str, Any]) -> dict[str, float]:
    """Seconds of each stage that has a number."""
    stages = run.get("stages")
    stages = stages if isinstance(stages, dict) else {}
    return {str(name): float(s) for name, s in stages.items() if _is_number(s)}


def quality_numbers(quality: Any) -> QualityNumbers | None:
    """Sort what `alps quality` measured; None where there is nothing."""
    if not isinstance(quality, dict) or not quality:
        return None
    headline = [
        (name, float(quality[key]), meaning)
        for key, (name, meaning) in QUALITY_NAMES.items()
        if _is_number(quality.get(key))
    ]
    classes = quality.get("classes")
    classes = [c for c in classes if isinstance(c, dict)] if isinstance(classes, list) else []
    others = [
        (str(key).replace("_", " "), f"{value:,}" if isinstance(value, int) else plain(value))
        for key, value in quality.items()
        if key not in QUALITY_NAMES and (_is_number(value) or isinstance(value, str))
    ]
    return QualityNumbers(headline, classes, others)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
