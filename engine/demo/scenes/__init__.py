"""Aerial-like scenes with exact segments and classes, drawn from a seed."""

from alps.engine.demo.scenes.classes import CLASS_COLOURS, CLASS_NAMES
from alps.engine.demo.scenes.scene import (
    KINDS,
    Scene,
    SceneSettings,
    make_scene,
)

__all__ = ["CLASS_COLOURS", "CLASS_NAMES", "KINDS", "Scene", "SceneSettings", "make_scene"]
