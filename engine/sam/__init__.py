"""SAM's network in PyTorch, in the layout of the official checkpoints."""

from typing import TYPE_CHECKING, Any

from alps.engine.sam.config import (
    OFFICIAL,
    ModelDefaults,
    ModelInfo,
    SamConfig,
)

if TYPE_CHECKING:
    from alps.engine.sam.mask_decoder import DecodedPrompts
    from alps.engine.sam.model import Sam

__all__ = ["OFFICIAL", "DecodedPrompts", "ModelDefaults", "ModelInfo", "Sam", "SamConfig"]


def __getattr__(name: str) -> Any:
    """Load the network when it is asked for: `alps --help` needs the settings, not torch."""
    if name == "Sam":
        from alps.engine.sam.model import Sam

        return Sam
    if name == "DecodedPrompts":
        from alps.engine.sam.mask_decoder import DecodedPrompts

        return DecodedPrompts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
