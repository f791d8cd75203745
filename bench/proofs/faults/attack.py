"""What the kinds of attacks have in common."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from alps.bench.proofs.faults.ground import Ground
from alps.bench.proofs.faults.outcome import Outcome


@dataclass(frozen=True)
class Attack:
    """One round, drawn but not begun.

    row: of the table it is counted in.
    name: all that tells it from others of its row.
    """

    row: str
    name: str
    carry_out: Callable[[], Outcome]


# Draws an attack on a ground.
Suite = Callable[[Ground, random.Random], Attack]
