"""A segmentation model of random weights that shows several classes, and small images for it."""

import os

import numpy as np
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin

from alps.trainer.segmentation.card import ModelCard
from alps.trainer.segmentation.models import build_model, save_model

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is ever fetched

NAMES = ("grass", "road", "roof")
COLOURS = ((10, 200, 30), (90, 90, 90), (220, 40, 20))
CARD = ModelCard(32, "float32", 1, colours=COLOURS)


def make_model(folder, names=NAMES, card=CARD, seed=0):
    """Save a model whose classes depend on the image, though nobody taught it."""
    model = build_model("segformer_mini", names, seed)
    with torch.no_grad():
        model.decode_head.classifier.weight *= 100
    folder.mkdir(parents=True)
    save_model(model, folder, card)
    return folder


def blobs(seed, size):
    """Coarse colours, (H, W, 3) uint8, of ``size`` (width, height)."""
    random = np.random.default_rng(seed)
    small = random.integers(1, 255, (size[1] // 12 + 1, size[0] // 12 + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)).clip(1, 255)


def save_tiff(path, pixels):
    """A GeoTIFF whose black is nodata."""
    with rasterio.open(
        path, "w", driver="GTiff", width=pixels.shape[1], height=pixels.shape[0], count=3,
        dtype="uint8", nodata=0, crs="EPSG:32631", transform=from_origin(5e5, 4e6, 0.5, 0.5),
    ) as file:  # fmt: skip
        file.write(np.moveaxis(pixels, -1, 0))


def results(out):
    """The bytes of all that must not depend on how often a run was stopped."""
    rooms = ("labels", "confidence", "probabilities", "predicted")
    paths = [path for room in rooms for path in sorted((out / room).rglob("*")) if path.is_file()]
    paths.append(out / "classes.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}
