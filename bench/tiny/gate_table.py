"""Which thresholds suit a model: what everything mode finds behind each pair of them.

    python -m alps.bench.tiny.gate_table 'IMAGES/tile6*' LABELS --model OUT/tiny.safetensors
    python -m alps.bench.tiny.gate_table --scenes 12

Crops are segmented once for each threshold of stability, with no threshold of predicted IoU: a mask
that fails it would only have suppressed masks that fail it too. For every pair: masks a crop, the
share of pixels under one, and the mean IoU of the mask that fits each true segment best, as in
``alps.bench.tiny.everything_quality``. Give images that the model was trained on: thresholds chosen
on others are trained on them.
"""

from collections.abc import Sequence

import click
import numpy as np

from alps.bench.tiny.everything_quality import (
    crop_options,
    generator_for,
    given_crops,
    overlaps,
)
from alps.engine.base.progress import Progress
from alps.kernels.masks import coco
from alps.kernels.masks.pixels import masks_of

STABILITIES = (0.0, 0.2, 0.4, 0.6, 0.8)
PREDICTED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def prefixes(
    truth: np.ndarray, masks: np.ndarray, predicted: np.ndarray, thresholds: Sequence[float]
) -> list[tuple[int, float, np.ndarray]]:
    """What is left behind each threshold: number of masks, coverage, best IoUs (T,).

    Args:
        truth: (H, W) segment ids, 0 none.
        masks: (M, H, W) bool by descending predicted IoU.
        predicted: (M,)
        thresholds: of it.
    """
    ious = overlaps(truth, masks)  # (M, T)
    first = np.full(truth.shape, len(masks))  # number of the first mask over each pixel
    for number in range(len(masks) - 1, -1, -1):
        first[masks[number]] = number
    rows = []
    for threshold in thresholds:
        left = int((predicted > threshold).sum())
        rows.append((left, float((first < left).mean()), ious[:left].max(0, initial=0)))
    return rows


@click.command()
@crop_options
@click.option("--most", default=24, show_default=True, help="Crops at most, evenly from all.")
@click.option("--offset", type=float, help="Stability's offset, instead of the model's own.")
def main(
    images: str | None,
    labels: str | None,
    scenes: int,
    model: str,
    crop: int,
    most: int,
    offset: float | None,
    device: str,
) -> None:
    """Print what is found behind each pair of thresholds."""
    crops = given_crops(images, labels, scenes, crop)
    crops = crops[:: -(-len(crops) // most)]
    click.echo("stability  predicted IoU  masks a crop  coverage  best IoU")
    with Progress(len(STABILITIES) * len(crops), "crops", "segmenting") as progress:
        for stability in STABILITIES:
            given = {
                "pred_iou_thresh": 0.0,
                "stability_score_thresh": stability,
                "stability_score_offset": offset,
            }
            generator, max_area = generator_for(model, given, device)
            found = []
            for rgb, truth in crops:
                own = generator.segment(rgb, max_area=max_area)
                masks = masks_of(coco.decode(own.counts, own.size))
                found.append(prefixes(truth, masks, own.predicted_iou, PREDICTED))
                progress.advance(1)
            for threshold, rows in zip(PREDICTED, zip(*found, strict=True), strict=True):
                counts, coverage, ious = zip(*rows, strict=True)
                click.echo(
                    f"{stability:9.2f}  {threshold:13.2f}  {np.mean(counts):12.1f}  "
                    f"{np.mean(coverage):8.3f}  {np.mean(np.concatenate(ious)):8.3f}"
                )


if __name__ == "__main__":
    main()
