"""The look that all objects of one scene share: season, materials in use, sun."""

from dataclasses import dataclass

import numpy as np

Colours = np.ndarray  # (n, 3) float, RGB 0-255

_GRASS = {
    "lush": (98, 124, 72),
    "dry": (152, 142, 98),
    "autumn": (124, 122, 76),
    "spring": (112, 140, 76),
}
_TREE = {
    "lush": [(50, 78, 42), (60, 90, 48), (44, 68, 44), (74, 98, 54)],
    "dry": [(74, 86, 52), (62, 76, 48), (88, 94, 62)],
    "autumn": [(92, 86, 46), (118, 86, 42), (60, 76, 44), (136, 104, 52)],
    "spring": [(84, 116, 56), (64, 98, 50), (100, 126, 66), (52, 80, 44)],
}
_CROPS = {
    "lush": [
        (82, 112, 58),
        (106, 132, 68),
        (72, 98, 52),
        (126, 142, 82),
        (150, 146, 92),
        (124, 100, 76),
    ],
    "dry": [
        (186, 164, 116),
        (168, 144, 100),
        (198, 180, 134),
        (140, 112, 82),
        (96, 116, 64),
        (122, 98, 74),
    ],
    "autumn": [
        (132, 108, 80),
        (112, 90, 70),
        (150, 132, 94),
        (104, 118, 66),
        (172, 152, 108),
        (90, 76, 62),
    ],
    "spring": [
        (92, 132, 62),
        (118, 150, 74),
        (136, 112, 84),
        (186, 178, 72),
        (110, 92, 72),
        (78, 116, 58),
    ],
}
_ROOFS = {
    "terracotta": [(172, 98, 72), (158, 88, 66), (184, 116, 86), (144, 84, 66)],
    "shingle": [(112, 104, 98), (92, 88, 88), (128, 112, 98), (142, 134, 124), (100, 82, 72)],
    "mixed": [(170, 96, 72), (118, 114, 112), (88, 88, 94), (178, 172, 162), (124, 92, 74)],
    "light": [(206, 200, 188), (188, 180, 166), (222, 220, 214), (170, 158, 140)],
}
_FLAT_ROOFS = [
    (190, 188, 184),
    (150, 148, 146),
    (214, 214, 212),
    (122, 122, 124),
    (166, 156, 144),
    (92, 94, 98),
]
_METAL_ROOFS = [
    (186, 192, 198),
    (204, 206, 208),
    (140, 152, 162),
    (128, 146, 134),
    (158, 126, 112),
    (226, 228, 228),
]
_VEHICLES = [
    (222, 222, 222),
    (238, 238, 236),
    (60, 62, 66),
    (34, 35, 38),
    (140, 142, 146),
    (176, 178, 182),
    (138, 40, 38),
    (46, 66, 112),
    (96, 100, 92),
]


@dataclass(frozen=True)
class Style:
    """Colours (RGB 0-255), sun and habits of one scene."""

    season: str
    grass: np.ndarray
    soil: np.ndarray
    sand: np.ndarray
    asphalt: np.ndarray
    pavement: np.ndarray
    water: np.ndarray
    trees: Colours
    crops: Colours
    roofs: Colours
    hipped: float  # share of pitched roofs with four faces
    flat: float  # share of houses with flat roofs
    shadow_per_metre: np.ndarray  # (2,) where the top of a 1 m high body throws its shadow
    towards_sun: np.ndarray  # (2,) unit vector on the ground

    def pick(
        self, rng: np.random.Generator, colours: Colours, count: int, spread: float
    ) -> Colours:
        """Draw ``count`` colours from a list, each varied in brightness and a little in hue."""
        chosen = colours[rng.integers(len(colours), size=count)]
        return vary(rng, chosen, spread)

    def roof_colours(self, rng: np.random.Generator, count: int) -> Colours:
        """Colours of houses' roofs."""
        return self.pick(rng, self.roofs, count, 0.08)

    def flat_roof_colours(self, rng: np.random.Generator, count: int) -> Colours:
        """Colours of flat roofs."""
        return self.pick(rng, np.array(_FLAT_ROOFS, float), count, 0.07)

    def hall_colours(self, rng: np.random.Generator, count: int) -> Colours:
        """Colours of halls and barns."""
        return self.pick(rng, np.array(_METAL_ROOFS, float), count, 0.06)

    def vehicle_colours(self, rng: np.random.Generator, count: int) -> Colours:
        """Colours of cars."""
        return self.pick(rng, np.array(_VEHICLES, float), count, 0.08)


def vary(rng: np.random.Generator, colours: Colours, spread: float) -> Colours:
    """Change brightness by a factor of about 1 ± spread, and each channel by a third of that."""
    count = len(colours)
    factor = 1 + spread * rng.standard_normal((count, 1))
    factor = factor * (1 + spread / 3 * rng.standard_normal((count, 3)))
    return np.clip(colours * factor, 6, 248)


def make_style(rng: np.random.Generator, kind: str) -> Style:
    """Draw a scene's look."""
    season = str(rng.choice(["lush", "lush", "spring", "dry", "autumn"]))
    if kind == "desert":
        season = "dry"
    sun = rng.uniform(0, 2 * np.pi)
    elevation = np.deg2rad(rng.uniform(28, 68))
    towards = np.array([np.cos(sun), np.sin(sun)])
    roofs = str(rng.choice(list(_ROOFS)))

    def near(colour: tuple[float, float, float], spread: float) -> np.ndarray:
        return vary(rng, np.array([colour], float), spread)[0]

    grey = rng.uniform(82, 138)
    water = [(44, 66, 74), (70, 82, 70), (32, 54, 66), (92, 96, 80), (52, 84, 92)]
    soils = [(148, 118, 88), (168, 134, 98), (124, 100, 80), (160, 104, 74), (176, 156, 126)]
    return Style(
        season=season,
        grass=near(_GRASS[season], 0.10),
        soil=near(soils[int(rng.integers(len(soils)))], 0.08),
        sand=near((208, 188, 150), 0.07),
        asphalt=near((grey, grey, grey + 2), 0.03),
        pavement=near((168, 163, 154), 0.09),
        water=near(water[int(rng.integers(len(water)))], 0.10),
        trees=vary(rng, np.array(_TREE[season], float), 0.06),
        crops=vary(rng, np.array(_CROPS[season], float), 0.06),
        roofs=np.array(_ROOFS[roofs], float),
        hipped=float(rng.choice([0.1, 0.4, 0.8])),
        flat=float(rng.choice([0.0, 0.1, 0.5, 0.95], p=[0.4, 0.3, 0.15, 0.15])),
        shadow_per_metre=-towards / np.tan(elevation),
        towards_sun=towards,
    )
