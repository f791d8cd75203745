"""How the learning rate rises and falls: its share of the highest rate, step by step."""

import math
from collections.abc import Callable
from dataclasses import dataclass

Fall = Callable[[int, int, int], float]  # step, first step of the fall, steps in all -> share


@dataclass(frozen=True)
class Schedule:
    """A straight rise over the first steps, then a fall."""

    steps: int  # in all
    rise: int  # of them
    fall: Fall

    def share(self, step: int) -> float:
        """Of the highest rate, 0 … 1, at ``step`` of 0 … steps - 1."""
        if step < self.rise:
            return (step + 1) / self.rise
        return self.fall(step, self.rise, self.steps)


def constant(step: int, first: int, steps: int) -> float:
    """No fall."""
    return 1.0


def polynomial(power: float) -> Fall:
    """A power of the share of the steps that is left, down to 0."""
    return lambda step, first, steps: (1 - _done(step, first, steps)) ** power


def cosine(last: float = 0.0) -> Fall:
    """Half a cosine, down to ``last``."""

    def share(step: int, first: int, steps: int) -> float:
        wave = 0.5 * (1 + math.cos(math.pi * _done(step, first, steps)))
        return last + (1 - last) * wave

    return share


def late_line(part: float, last: float) -> Fall:
    """Constant, then a straight line towards ``last`` over the last ``part`` of all steps.

    A constant middle lets a training be planned anew while it goes on.
    """

    def share(step: int, first: int, steps: int) -> float:
        left = (steps - step) / max(1.0, part * steps)
        return min(1.0, last + (1 - last) * left)

    return share


def _done(step: int, first: int, steps: int) -> float:
    return (step - first) / max(1, steps - first)
