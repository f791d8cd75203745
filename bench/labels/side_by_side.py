"""Label maps of several runs beside each other, a row an image.

    python -m alps.bench.labels.side_by_side PICTURE RUN RUN --image PATH --maps-of PATH

A row begins with the image, unless its licence keeps it out of a picture: then --maps-of instead of
--image.
"""

from pathlib import Path

import click
import numpy as np
import rasterio
from PIL import Image

from alps.bench.seams import read_labels
from alps.engine.images.raster import RasterReader
from alps.engine.images.windows import Window

GAP = 6
WHITE = 255


def label_map(run: Path, image: Path) -> np.ndarray:
    """A run's label map of an image in its palette's colours, (H, W, 3) uint8, white where none.

    Raises ClickException where the run has none.
    """
    found = [path for path in (run / "labels").rglob(f"{image.stem}.*") if path.suffix != ".xml"]
    if not found:
        raise click.ClickException(f"{run} has no label map of {image.name}")
    labels, unlabelled = read_labels(found[0])
    with rasterio.open(found[0]) as file:
        colours = file.colormap(1)
    table = np.full((unlabelled + 1, 3), WHITE, np.uint8)
    for value, colour in colours.items():
        if value < unlabelled:
            table[value] = colour[:3]
    return table[labels]


def row_of(image: Path, runs: tuple[Path, ...], shows_image: bool, width: int) -> Image.Image:
    """The panels of an image from left to right, each ``width`` pixels wide."""
    with RasterReader(image) as reader:
        rgb = reader.read(Window(0, 0, reader.width, reader.height)).rgb
    height = round(width * rgb.shape[0] / rgb.shape[1])
    row = Image.new("RGB", ((width + GAP) * (len(runs) + 1) - GAP, height), "white")
    if shows_image:
        row.paste(Image.fromarray(rgb).resize((width, height), Image.Resampling.LANCZOS))
    for number, run in enumerate(runs, 1):
        panel = Image.fromarray(label_map(run, image))
        panel = panel.resize((width, height), Image.Resampling.NEAREST)
        row.paste(panel, (number * (width + GAP), 0))
    return row


@click.command()
@click.argument("picture", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--image", "images", multiple=True, type=click.Path(path_type=Path, exists=True))
@click.option("--maps-of", "hidden", multiple=True, type=click.Path(path_type=Path, exists=True))
@click.option("--side", default=480, show_default=True, help="Pixels a panel is wide.")
def main(
    picture: Path,
    runs: tuple[Path, ...],
    images: tuple[Path, ...],
    hidden: tuple[Path, ...],
    side: int,
) -> None:
    """Draw the label maps that RUNS have of images."""
    rows = [row_of(image, runs, True, side) for image in images]
    rows += [row_of(image, runs, False, side) for image in hidden]
    if not rows:
        raise click.ClickException("give an --image, or --maps-of one")
    whole = Image.new("RGB", (rows[0].width, sum(row.height + GAP for row in rows) - GAP), "white")
    top = 0
    for row in rows:
        whole.paste(row, (0, top))
        top += row.height + GAP
    whole.quantize(255).save(picture, optimize=True)


if __name__ == "__main__":
    main()
