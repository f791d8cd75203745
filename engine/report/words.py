"""Numbers in the words of the page; a no-break space ties each to its unit."""

import math
from datetime import datetime

NOTHING = "–"


def count(value: float | None) -> str:
    """1234567 → 1,234,567."""
    return NOTHING if value is None else f"{value:,.0f}"


def share(value: float | None) -> str:
    """0.1234 → 12.3 %; what is not nothing does not read as nothing, nor nearly all as all."""
    if value is None or math.isnan(value):
        return NOTHING
    if 0 < value < 0.0005:
        return "<\u00a00.1\u00a0%"
    if 0.9995 <= value < 1:
        return ">\u00a099.9\u00a0%"
    return f"{100 * value:.1f}\u00a0%"


def seconds(value: float | None) -> str:
    """Three figures, and a unit that suits: 0.00123 → 1.23 ms."""
    if value is None or math.isnan(value):
        return NOTHING
    if value == 0:
        return "0\u00a0s"
    if value < 1:
        return f"{_three(value * 1000)}\u00a0ms"
    return f"{_three(value)}\u00a0s"


def duration(value: float | None) -> str:
    """3725 → 1 h 2 min."""
    if value is None:
        return NOTHING
    if value < 60:
        return seconds(value)
    whole = round(value)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours >= 48:
        return f"{hours // 24}\u00a0d {hours % 24}\u00a0h"
    return (
        f"{hours}\u00a0h {minutes}\u00a0min" if hours else f"{minutes}\u00a0min {whole % 60}\u00a0s"
    )


def rate(value: float | None) -> str:
    """Three figures: 0.01234 → 0.0123."""
    return NOTHING if value is None else _three(value)


def moment(value: datetime | None) -> str:
    """A date and time as they are read aloud, with the time zone where it is known."""
    if value is None:
        return NOTHING
    return f"{value.day} {value:%B %Y, %H:%M} {value.tzname() or ''}".rstrip()


def _three(value: float) -> str:
    if not value:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(0, digits)}f}"
