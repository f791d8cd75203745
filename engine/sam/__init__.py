"""SAM's network in PyTorch, in the layout of the official checkpoints."""

from alps.engine.sam.config import OFFICIAL, ModelDefaults, ModelInfo, SamConfig
from alps.engine.sam.mask_decoder import DecodedPrompts
from alps.engine.sam.model import Sam

__all__ = ["OFFICIAL", "DecodedPrompts", "ModelDefaults", "ModelInfo", "Sam", "SamConfig"]
