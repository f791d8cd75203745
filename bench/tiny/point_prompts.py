"""One point in a real object: how well do SAM's masks fit it?

    python -m alps.bench.tiny.point_prompts 'IMAGES/tile7*' LABELS --model tiny --crop 512

In square crops, every ground-truth segment of at least 200 px (a connected piece of one class) is
asked for with one random point of it. Averaged over segments: IoU of the best of three masks, of
the mask that the model itself ranks first, and of Felzenszwalb's segment at the point, the best of
three scales. Below that, predicted IoU against the real one, in bins. LABELS are index images of
the images' names; a mask of 0 and 255 has one class, 255.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from skimage.segmentation import felzenszwalb

from alps.engine.base.device import choose_device
from alps.engine.base.errors import SettingsError
from alps.engine.base.progress import Progress
from alps.engine.cli.options import device_option, model_option
from alps.engine.images.raster import RasterReader
from alps.engine.images.sources import Source, find_sources
from alps.engine.images.windows import Window
from alps.engine.masks.crops import Crop, network_pixels
from alps.engine.models.checkpoints import load_sam
from alps.engine.models.registry import find_model
from alps.engine.runtimes.pytorch import TorchRuntime

LEAST_PIXELS = 200
MOST_POINTS = 24  # a crop; drawn among its segments
FELZENSZWALB_SCALES = (50, 150, 400)


@dataclass
class Scores:
    """One value a ground-truth segment."""

    best: list[float] = field(default_factory=list)
    picked: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    felzenszwalb: list[float] = field(default_factory=list)


def score_crop(
    rgb: np.ndarray,
    truth: np.ndarray,
    runtime: TorchRuntime,
    rng: np.random.Generator,
    to: Scores,
    scales: Sequence[int] = FELZENSZWALB_SCALES,
) -> None:
    """Ask for the segments of one crop; rgb (n, n, 3) uint8, truth (n, n) segment ids, 0 none.

    Without ``scales`` there is no rival.
    """
    ids, areas = np.unique(truth[truth > 0], return_counts=True)
    ids = ids[areas >= LEAST_PIXELS]
    if not len(ids):
        return
    ids = rng.permutation(ids)[:MOST_POINTS]
    points = np.array([_point_in(truth == i, rng) for i in ids])
    side, size = len(rgb), runtime.config.image_size
    pixels = network_pixels(rgb, Crop(0, 0, side, side, 0), size)
    embedding = runtime.encode(pixels[None])[0]
    scaled = torch.from_numpy((points * size / side).astype(np.float32))
    (decoded,) = runtime.decode(embedding, scaled, 0.0, points_per_batch=len(scaled))
    logits = torch.nn.functional.interpolate(
        decoded.logits[None], (side, side), mode="bilinear", align_corners=False
    )[0]
    masks = (logits > 0).cpu().numpy().reshape(len(ids), 3, side, side)
    sure = decoded.predicted_iou.cpu().numpy().reshape(len(ids), 3)
    rivals = [felzenszwalb(rgb, scale=scale, channel_axis=-1) for scale in scales]
    for row, (identity, (x, y)) in enumerate(zip(ids, points, strict=True)):
        real = truth == identity
        ious = [_iou(mask, real) for mask in masks[row]]
        to.best.append(max(ious))
        to.picked.append(ious[int(sure[row].argmax())])
        to.predicted.append(float(sure[row].max()))
        if rivals:
            to.felzenszwalb.append(max(_iou(labels == labels[y, x], real) for labels in rivals))


def _point_in(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    ys, xs = np.nonzero(mask)
    pick = rng.integers(len(ys))
    return int(xs[pick]), int(ys[pick])


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def read_pair(image: Source, labels: Source) -> tuple[np.ndarray, np.ndarray]:
    """RGB (H, W, 3) and segment ids (H, W) int32, 0 where there is no label."""
    with RasterReader(image.path) as reader:
        rgb = reader.read(Window(0, 0, reader.width, reader.height)).rgb
    with RasterReader(labels.path) as reader:
        classes = reader.read(Window(0, 0, reader.width, reader.height)).rgb[..., 0]
    if classes.shape != rgb.shape[:2]:
        raise SettingsError(f"{labels.path} is not of the size of {image.path}")
    values = np.unique(classes)
    binary = set(values) <= {0, 255}
    values = values[values > 0] if binary else values[values < 255]
    segments = np.zeros(classes.shape, np.int32)
    for value in values:
        _, pieces = cv2.connectedComponents((classes == value).astype(np.uint8), connectivity=4)
        segments[pieces > 0] = pieces[pieces > 0] + segments.max()
    return rgb, segments


def image_pairs(images: str, labels: str) -> list[tuple[Source, Source]]:
    """Images with the labels of their names."""
    truths = {Path(source.name).stem: source for source in find_sources(labels)}
    return [(source, truths[Path(source.name).stem]) for source in find_sources(images)]


def crops_of_pair(
    image: Source, labels: Source, crop: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Square crops (n, n, 3) of an image, edge to edge, with their segment ids (n, n)."""
    rgb, segments = read_pair(image, labels)
    side = min(crop, *segments.shape)
    for y in range(0, segments.shape[0] - side + 1, side):
        for x in range(0, segments.shape[1] - side + 1, side):
            part = np.s_[y : y + side, x : x + side]
            yield np.ascontiguousarray(rgb[part]), segments[part]


@click.command()
@click.argument("images")
@click.argument("labels")
@model_option
@click.option("--crop", default=512, show_default=True, help="Side of a crop in pixels.")
@device_option
@click.option("--seed", default=0, show_default=True)
def main(images: str, labels: str, model: str, crop: int, device: str, seed: int) -> None:
    """Print the scores of a model's masks at single points."""
    runtime = TorchRuntime(load_sam(find_model(model))[0].to(choose_device(device)))
    pairs = image_pairs(images, labels)
    rng, scores = np.random.default_rng(seed), Scores()
    with Progress(len(pairs), "images", "asking") as progress:
        for image, label in pairs:
            for rgb, segments in crops_of_pair(image, label, crop):
                score_crop(rgb, segments, runtime, rng, scores)
            progress.advance(1)
    click.echo(
        f"{len(scores.best)} segments: best of three {np.mean(scores.best):.3f}, "
        f"own pick {np.mean(scores.picked):.3f}, "
        f"Felzenszwalb's best scale {np.mean(scores.felzenszwalb):.3f}"
    )
    predicted, real = np.array(scores.predicted), np.array(scores.picked)
    for low in np.arange(0, 1, 0.1):
        inside = (predicted >= low) & (predicted < low + 0.1)
        if inside.sum() >= 5:
            click.echo(
                f"predicted {low:.1f}-{low + 0.1:.1f}: real {real[inside].mean():.2f} "
                f"({inside.sum()} masks)"
            )


if __name__ == "__main__":
    main()
