"""A scene from a seed: settings in, image and labels out."""

from dataclasses import dataclass

import numpy as np

from alps.engine.base.errors import SettingsError
from alps.engine.demo.scenes.canvas import Canvas
from alps.engine.demo.scenes.kinds import RECIPES
from alps.engine.demo.scenes.labels import extract_labels
from alps.engine.demo.scenes.render import render
from alps.engine.demo.scenes.style import make_style

KINDS: tuple[str, ...] = tuple(RECIPES)


@dataclass(frozen=True)
class SceneSettings:
    """What a scene shall be like; ``kind`` None lets the seed choose among ``KINDS``.

    Raises SettingsError when a value cannot work.
    """

    size: int = 512  # pixels, width and height
    metres_per_pixel: float = 0.5
    kind: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.size, int | np.integer) or not 32 <= self.size <= 4096:
            raise SettingsError(
                f"scene settings: size is {self.size!r}; give a whole number of pixels, 32 to 4096"
            )
        if not 0.05 <= self.metres_per_pixel <= 10:  # also refuses NaN
            raise SettingsError(
                f"scene settings: metres_per_pixel is {self.metres_per_pixel!r}; give 0.05 to 10"
            )
        if self.kind is not None and self.kind not in RECIPES:
            raise SettingsError(
                f"scene settings: unknown kind {self.kind!r}; give one of {', '.join(RECIPES)}"
            )


@dataclass(frozen=True)
class Scene:
    """An aerial-like image and what is on it."""

    image: np.ndarray  # (size, size, 3) uint8 RGB
    classes: np.ndarray  # (size, size) uint8, index into CLASS_NAMES
    segments: np.ndarray  # (size, size) int32, 1..n: each one connected object of one class
    parts: np.ndarray  # (size, size) int32, 1..m: refines segments
    metres_per_pixel: float
    kind: str


def make_scene(seed: int, settings: SceneSettings | None = None) -> Scene:
    """Draw the scene of a seed; the same seed and settings give the same bytes.

    Raises SettingsError when the seed is negative.
    """
    settings = SceneSettings() if settings is None else settings
    if seed < 0:
        raise SettingsError(f"scene seed is {seed}; give a whole number from 0 on")
    # Streams of their own, so that a change in drawing does not change the choice of kind or look.
    choice, look, layout, photo = (np.random.default_rng([seed, k]) for k in range(4))
    kind = settings.kind or str(choice.choice(KINDS))
    style = make_style(look, kind)
    canvas = Canvas(int(settings.size), float(settings.metres_per_pixel))
    RECIPES[kind](canvas, style, layout)
    labels = extract_labels(canvas)
    return Scene(
        image=render(canvas, photo, style.towards_sun),
        classes=labels.classes,
        segments=labels.segments,
        parts=labels.parts,
        metres_per_pixel=canvas.metres_per_pixel,
        kind=kind,
    )
