"""The classes of a scene: one name and one display colour each."""

CLASS_NAMES: tuple[str, ...] = (
    "field",
    "grass",
    "bare soil",
    "sand",
    "road",
    "pavement",
    "building",
    "tree",
    "water",
    "vehicle",
)

# (R, G, B), in the order of CLASS_NAMES.
CLASS_COLOURS: tuple[tuple[int, int, int], ...] = (
    (230, 200, 90),
    (150, 210, 110),
    (160, 110, 70),
    (245, 225, 175),
    (90, 90, 95),
    (180, 180, 185),
    (210, 60, 50),
    (30, 110, 50),
    (50, 120, 200),
    (200, 60, 200),
)

FIELD, GRASS, SOIL, SAND, ROAD, PAVEMENT, BUILDING, TREE, WATER, VEHICLE = range(len(CLASS_NAMES))
