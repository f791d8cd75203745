"""Small images for runs of stages, and what such a run leaves behind."""

import numpy as np
from PIL import Image
from rasterio.transform import from_origin
from rasters import save_raster

from alps.engine.demo.scenes import SceneSettings, make_scene

SIDE = 96


def draw(path, seed):
    """Write an image of coarse noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (SIDE // 8, SIDE // 8, 3), np.uint8)
    Image.fromarray(pixels).resize((SIDE, SIDE)).save(path)


def save_archive(folder):
    """Five generated scenes in two folders, PNG, JPEG and a GeoTIFF with nodata on the left.

    They are cut into 13 windows of Speck's, two to four a scene.
    """
    (folder / "north").mkdir(parents=True)
    sizes = {"a.png": (180, 140), "b.jpg": (120, 150), "north/c.png": (110, 140),
             "north/d.png": (135, 120)}  # fmt: skip
    for seed, (name, (height, width)) in enumerate(sizes.items()):
        image = make_scene(seed, SceneSettings(size=200)).image
        Image.fromarray(image[:height, :width]).save(folder / name)
    image = make_scene(9, SceneSettings(size=200)).image
    image[:, :60] = 0
    place = {"crs": "EPSG:32631", "transform": from_origin(500_000, 4_000_000, 0.5, 0.5)}
    save_raster(folder / "north" / "e.tif", image.transpose(2, 0, 1), nodata=0, **place)
    return folder


def results(out):
    """The bytes of everything that must not depend on how often a run was stopped."""
    rooms = ("labels", "segments", "regions", "clusters")
    paths = [path for room in rooms for path in sorted((out / room).rglob("*")) if path.is_file()]
    paths += [out / "clusters.npz", out / "classes.json"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}
