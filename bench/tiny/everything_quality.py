"""Everything mode against real objects, beside Felzenszwalb with as many segments.

    python -m alps.bench.tiny.everything_quality 'IMAGES/tile7*' LABELS --model tiny --crop 512
    python -m alps.bench.tiny.everything_quality --scenes 12 --model tiny --picture best_worst.png

Square crops are segmented with the thresholds that travel with the model. Per crop: how many masks,
what share of its pixels lies under one, and for every true segment of at least 200 px (a
connected piece of one class; an object of a generated scene) the IoU of the mask that fits it best.
The rival pools Felzenszwalb's segments of three scales, a factor of four apart, all
moved together until they are as many as the masks. LABELS are as for
``alps.bench.tiny.point_prompts``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from skimage.segmentation import felzenszwalb

from alps.bench.tiny.best_worst import (
    Crop,
    best_and_worst,
    draw_crop,
    write_picture,
)
from alps.bench.tiny.point_prompts import LEAST_PIXELS, crops_of_pair, image_pairs
from alps.engine.base.device import choose_device
from alps.engine.base.errors import SettingsError
from alps.engine.base.progress import Progress
from alps.engine.cli.options import device_option, model_option
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.checkpoints import load_sam
from alps.engine.models.registry import find_model
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.sam import ModelDefaults
from alps.engine.settings import RunSettings
from alps.kernels.masks import coco
from alps.kernels.masks.pixels import masks_of

SCALES = tuple(12.5 * 2**step for step in range(13))
_APART = 2  # places in SCALES between two pooled scales
SCENE_SEED = 2**31 + 5000  # training draws its seeds below 2^31
SCENE_METRES = (0.2, 0.4, 0.8, 1.6)


@dataclass
class Tally:
    """What one method did: one value a crop, and one a true segment."""

    masks: list[int] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        """The means, for people."""
        return (
            f"{name}: {np.mean(self.masks):.1f} masks a crop, coverage "
            f"{np.mean(self.coverage):.3f}, best IoU {np.mean(self.best):.3f} "
            f"({len(self.best)} true segments, {len(self.masks)} crops)"
        )


def overlaps(truth: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """IoU of every mask with every true segment of at least ``LEAST_PIXELS``.

    Args:
        truth: (H, W) int32 segment ids, 0 none.
        masks: (M, H, W) bool

    Returns:
        (M, T) float64, true segments in the order of their ids.
    """
    ids, index = np.unique(truth, return_inverse=True)
    index = index.reshape(truth.shape)
    areas = np.bincount(index.ravel(), minlength=len(ids))
    ious = np.zeros((len(masks), len(ids)))
    for row, mask in zip(ious, masks, strict=True):
        both = np.bincount(index[mask], minlength=len(ids))
        row[:] = both / np.maximum(areas + mask.sum() - both, 1)
    return ious[:, (ids > 0) & (areas >= LEAST_PIXELS)]


def best_ious(truth: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The IoU of the mask that fits each true segment best, (T,); 0 where there is no mask."""
    return overlaps(truth, masks).max(0, initial=0)


def best_ious_of_partition(truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same with the regions of a partition, (H, W) ids from 0, as masks."""
    ids, index = np.unique(truth, return_inverse=True)
    regions = int(labels.max()) + 1
    both = np.bincount(
        index.ravel() * regions + labels.ravel(), minlength=len(ids) * regions
    ).reshape(len(ids), regions)
    areas, sizes = both.sum(1), both.sum(0)
    best = (both / (areas[:, None] + sizes - both)).max(1)
    return best[(ids > 0) & (areas >= LEAST_PIXELS)]


def scales_for(counts: list[int], masks: int) -> tuple[int, ...]:
    """Which three scales, as places in ``SCALES``, have together nearest to ``masks`` segments."""
    triples = [
        (first, first + _APART, first + 2 * _APART) for first in range(len(counts) - 2 * _APART)
    ]
    return min(triples, key=lambda triple: abs(sum(counts[place] for place in triple) - masks))


def felzenszwalb_beside(rgb: np.ndarray, truth: np.ndarray, masks: int) -> tuple[int, np.ndarray]:
    """Felzenszwalb pooled over three scales: how many segments, and their best IoUs."""
    partitions = [felzenszwalb(rgb, scale=scale, channel_axis=-1) for scale in SCALES]
    chosen = scales_for([int(labels.max()) + 1 for labels in partitions], masks)
    found = [best_ious_of_partition(truth, partitions[place]) for place in chosen]
    return sum(int(partitions[place].max()) + 1 for place in chosen), np.max(found, axis=0)


def labelled_crops(images: str, labels: str, crop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Square crops (n, n, 3) of images with their segment ids (n, n)."""
    for image, truth in image_pairs(images, labels):
        yield from crops_of_pair(image, truth, crop)


def scene_crops(count: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Generated scenes that no training has seen, with their objects."""
    for number in range(count):
        metres = SCENE_METRES[number % len(SCENE_METRES)]
        scene = make_scene(SCENE_SEED + number, SceneSettings(size=size, metres_per_pixel=metres))
        yield scene.image, scene.segments


def given_crops(
    images: str | None, labels: str | None, scenes: int, crop: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """So many generated scenes, or else crops of images; each with its segment ids."""
    if scenes:
        return list(scene_crops(scenes, crop))
    if images is None or labels is None:
        raise SettingsError("give IMAGES and LABELS, or a number of --scenes")
    return list(labelled_crops(images, labels, crop))


def crop_options(command: Callable) -> Callable:
    """What is segmented, and by which model: the arguments of ``given_crops`` and two options."""
    for option in (
        device_option,
        click.option("--crop", default=512, show_default=True, help="Side of a crop in pixels."),
        model_option,
        click.option("--scenes", default=0, help="Generated scenes instead of images."),
        click.argument("labels", required=False),
        click.argument("images", required=False),
    ):
        command = option(command)
    return command


def generator_for(
    model: str, given: Mapping[str, float | None], device: str
) -> tuple[MaskGenerator, float]:
    """Everything mode as the main job runs a model, and the largest area of a mask it keeps."""
    sam, info = load_sam(find_model(model))
    fields = {name: value for name, value in given.items() if value is not None}
    defaults = ModelDefaults(**(info.defaults.given() | fields))
    settings = RunSettings().for_model(defaults).segment
    runtime = TorchRuntime(sam.to(choose_device(device)))
    return MaskGenerator.for_run(runtime, settings), settings.max_area


@click.command()
@crop_options
@click.option("--points-per-side", type=int, help="Instead of the model's own.")
@click.option("--pred-iou-thresh", type=float, help="Instead of the model's own.")
@click.option("--stability-score-thresh", type=float, help="Instead of the model's own.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    help="Draw the best and the worst crops, without the images' pixels.",
)
@click.option("--pictured", default=4, show_default=True, help="How many of each.")
def main(
    images: str | None,
    labels: str | None,
    scenes: int,
    model: str,
    crop: int,
    device: str,
    picture: Path | None,
    pictured: int,
    **thresholds: float | None,
) -> None:
    """Print how well everything mode finds what is there."""
    generator, max_area = generator_for(model, thresholds, device)
    crops = given_crops(images, labels, scenes, crop)
    ours, rival = Tally(), Tally()
    drawn: list[Crop] = []
    with Progress(len(crops), "crops", "segmenting") as progress:
        for rgb, truth in crops:
            found = generator.segment(rgb, max_area=max_area)
            masks = masks_of(coco.decode(found.counts, found.size))
            ours.masks.append(len(masks))
            ours.coverage.append(float(masks.any(0).mean()))
            ious = best_ious(truth, masks)
            ours.best.extend(ious)
            if picture is not None and len(ious):
                drawn.append(draw_crop(rgb, masks, truth, float(ious.mean())))
            segments, best = felzenszwalb_beside(rgb, truth, len(masks))
            rival.masks.append(segments)
            rival.coverage.append(1.0)
            rival.best.extend(best)
            progress.advance(1)
    click.echo(ours.line(model))
    click.echo(rival.line("Felzenszwalb"))
    if picture is not None and drawn:
        write_picture(best_and_worst(drawn, pictured), picture)


if __name__ == "__main__":
    main()
