"""SAM 2.1's image part in PyTorch: Hiera, its neck, and a decoder that sees finer features.

What SAM 2 remembers of a video (memory attention, memory encoder, object pointers) has no part in
images: the embedding of a frame without memories is the encoder's plus one learned vector.
"""

from typing import TYPE_CHECKING, Any

from alps.engine.sam.config import config_of
from alps.engine.sam2.config import OFFICIAL, SAM2_DEFAULTS, Sam2Config

if TYPE_CHECKING:
    from alps.engine.sam2.model import Sam2

__all__ = ["OFFICIAL", "SAM2_DEFAULTS", "Sam2", "Sam2Config", "config_of"]


def __getattr__(name: str) -> Any:
    """Load the network when it is asked for: settings need no torch."""
    if name == "Sam2":
        from alps.engine.sam2.model import Sam2

        return Sam2
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
