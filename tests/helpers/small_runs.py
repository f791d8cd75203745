"""Small images for runs of stages, and what such a run leaves behind."""

import numpy as np
from PIL import Image

SIDE = 96


def draw(path, seed):
    """Write an image of coarse noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (SIDE // 8, SIDE // 8, 3), np.uint8)
    Image.fromarray(pixels).resize((SIDE, SIDE)).save(path)


def results(out):
    """The bytes of everything that must not depend on how often a run was stopped."""
    rooms = ("labels", "segments", "regions", "clusters")
    paths = [path for room in rooms for path in sorted((out / room).rglob("*")) if path.is_file()]
    paths += [out / "clusters.npz", out / "classes.json"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}
