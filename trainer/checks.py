"""Checks that the settings of every training share."""

from typing import Any

from alps.engine.base.errors import SettingsError

PRECISIONS = ("auto", "float32", "bfloat16")


def check_range(owner: Any, name: str, low: float, high: float) -> None:
    """Raise SettingsError where a field lies outside of low … high; None is left open and fine."""
    value = getattr(owner, name)
    if value is not None and not low <= value <= high:
        raise SettingsError(f"{option(name)} {value}: must be between {low:g} and {high:g}")


def check_choice(owner: Any, name: str, choices: tuple[str, ...]) -> None:
    """Raise SettingsError where a field is none of the words it may be."""
    value = getattr(owner, name)
    if value not in choices:
        raise SettingsError(f"{option(name)} {value}: give one of {', '.join(choices)}")


def option(name: str) -> str:
    """The command line's name of a field."""
    return "--" + name.replace("_", "-")
