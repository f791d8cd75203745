"""The README's picture: a demo scene, its masks, its label map and its exact classes side by side.

alps demo demo && python -m alps.bench.labels.demo_picture demo bench/results/demo.png
"""

from pathlib import Path

import click
import cv2
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from alps.engine.demo.scenes import CLASS_COLOURS
from alps.engine.labels.palette import palette
from alps.engine.report.pictures import masks_picture
from alps.kernels.masks import coco

GAP = 6


def masks_of(run: Path, source: str, size: tuple[int, int]) -> np.ndarray:
    """Number of the smallest segment at each pixel of a source (H, W) int32, -1 for none."""
    tiles = {
        tile["tile_id"]: tile
        for tile in pq.read_table(run / "tiles.parquet").to_pylist()
        if tile["source"] == source
    }
    segments = [
        segment
        for segment in pq.read_table(run / "segments").to_pylist()
        if segment["tile_id"] in tiles
    ]
    numbers = np.full(size, -1, np.int32)
    for index, segment in enumerate(sorted(segments, key=lambda s: -s["area"])):
        tile = tiles[segment["tile_id"]]
        mask = coco.decode_mask(segment["counts"], (tile["height"], tile["width"]))
        window = numbers[
            tile["y"] : tile["y"] + tile["height"], tile["x"] : tile["x"] + tile["width"]
        ]
        window[mask] = index
    return numbers


@click.command()
@click.argument("demo", type=click.Path(path_type=Path, exists=True))
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--scene", default=0, show_default=True, help="Which of the demo's scenes.")
@click.option("--side", default=420, show_default=True, help="Pixels a panel.")
def main(demo: Path, picture: Path, scene: int, side: int) -> None:
    """Draw one scene of a finished demo."""
    name = sorted(path.name for path in (demo / "images").iterdir())[scene]
    image = np.asarray(Image.open(demo / "images" / name))
    labels = np.asarray(Image.open(demo / "run" / "labels" / name))
    truth = np.asarray(Image.open(demo / "truth" / name))
    colours = np.zeros((256, 3), np.uint8)
    clusters = int(labels[labels < 255].max(initial=0)) + 1
    colours[:clusters] = palette(clusters)
    panels = [
        image,
        masks_picture(image, masks_of(demo / "run", name, labels.shape)),
        colours[labels],
        np.asarray(CLASS_COLOURS, np.uint8)[truth],
    ]
    small = [cv2.resize(panel, (side, side), interpolation=cv2.INTER_AREA) for panel in panels]
    gap = np.full((side, GAP, 3), 255, np.uint8)
    row = [part for panel in small for part in (panel, gap)][:-1]
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(row, axis=1)).save(picture, optimize=True)


if __name__ == "__main__":
    main()
