"""The kinds of scenes and the recipe that draws each."""

from collections.abc import Callable

import numpy as np

from alps.engine.demo.scenes.canvas import Canvas
from alps.engine.demo.scenes.coast import coast
from alps.engine.demo.scenes.rural import (
    desert,
    farmland,
    forest,
    orchard,
)
from alps.engine.demo.scenes.style import Style
from alps.engine.demo.scenes.suburb import suburb
from alps.engine.demo.scenes.urban import city, industrial

RECIPES: dict[str, Callable[[Canvas, Style, np.random.Generator], None]] = {
    "farmland": farmland,
    "orchard": orchard,
    "forest": forest,
    "desert": desert,
    "suburb": suburb,
    "city": city,
    "industrial": industrial,
    "coast": coast,
}
