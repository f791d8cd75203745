"""Memory of the whole job on one large source beside a small one.

    python -m alps.bench.labels.large IMAGES WORK --side 3000 --side 30000

A scene of each size is made of images in IMAGES, cut at random, turned, and made lighter or
darker, with one river from its left edge to its right. It is labelled stage by stage, each a
process of its own, whose largest resident memory the kernel counts. So that hours are not spent
on masks, windows may be larger than the model's own: --tile.

Scenes and runs stay in WORK; a stopped bench goes on.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window as RasterWindow

from alps.engine.base.atomic import whole
from alps.engine.regions.packing import NOWHERE
from alps.engine.regions.raster import open_regions
from alps.engine.regions.tables import GroupTables
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan

CELL = 512  # pixels, side of a piece of an image
RIVER = 120  # pixels across
STAGES = ("segment", "cluster", "paint")
METRES = 0.5  # of a pixel


@dataclass(frozen=True)
class Stage:
    """What a stage of the job took."""

    megabytes: float  # largest resident memory
    seconds: float


def make_scene(path: Path, images: list[Path], size: tuple[int, int], seed: int = 0) -> None:
    """Write a GeoTIFF of ``size`` (width, height) pixels, row of cells by row of cells."""
    full, height = size
    rng = np.random.default_rng(seed)
    pieces = [piece for image in images for piece in _pieces(image)]
    profile = {
        "driver": "GTiff", "width": full, "height": height, "count": 3, "dtype": "uint8",
        "tiled": True, "blockxsize": CELL, "blockysize": CELL, "compress": "jpeg",
        "photometric": "ycbcr", "jpeg_quality": 90, "crs": "EPSG:32640", "bigtiff": "if_safer",
        "transform": from_origin(300000, 2800000, METRES, METRES),
    }  # fmt: skip
    with whole(path) as part, rasterio.open(part, "w", **profile) as file:
        for top in range(0, height, CELL):
            rows = min(CELL, height - top)
            strip = np.empty((rows, full, 3), np.uint8)
            for left in range(0, full, CELL):
                cell = _altered(pieces[rng.integers(len(pieces))], rng)
                width = min(CELL, full - left)
                strip[:, left : left + width] = cell[:rows, :width]
            _flood(strip, top, size, rng)
            file.write(strip.transpose(2, 0, 1), window=RasterWindow(0, top, full, rows))


def _pieces(image: Path) -> list[np.ndarray]:
    """Squares of CELL pixels that an image is cut into."""
    with rasterio.open(image) as file:
        rgb = file.read([1, 2, 3]).transpose(1, 2, 0)
    height, width = rgb.shape[:2]
    return [
        rgb[y : y + CELL, x : x + CELL]
        for y in range(0, height - CELL + 1, CELL)
        for x in range(0, width - CELL + 1, CELL)
    ]


def _altered(piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    turned = np.rot90(piece, int(rng.integers(4)))
    turned = turned[:, ::-1] if rng.integers(2) else turned
    return np.clip(turned * rng.uniform(0.75, 1.25), 0, 255).astype(np.uint8)


def middle_of_river(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The row in which the river's middle lies, of columns ``x`` of a scene (width, height)."""
    width, height = size
    return height / 2 + height / 4 * np.sin(x / width * 2 * np.pi) + 60 * np.sin(x / 700)


def _flood(strip: np.ndarray, top: int, size: tuple[int, int], rng: np.random.Generator) -> None:
    """Paint what a strip holds of the river."""
    y = top + np.arange(len(strip))[:, None]
    water = np.abs(y - middle_of_river(np.arange(size[0]), size)[None]) < RIVER / 2
    count = int(water.sum())
    if count:
        colour = np.array([28, 60, 92]) + rng.normal(0, 2, (count, 3))
        strip[water] = np.clip(colour, 0, 255).astype(np.uint8)


def run_stage(stage: str, scene: Path, out: Path, given: tuple[str, ...]) -> Stage:
    """Run a stage as a process of its own. Raises ClickException where it fails."""
    where = [str(scene), str(out)] if stage == "segment" else [str(out)]
    words = [*where, *(given if stage == "segment" else ())]
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "alps.engine.cli.main", stage, *words])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"alps {stage} {' '.join(words)} failed; what it says is above")
    return Stage(usage.ru_maxrss / 1024, time.monotonic() - started)


def river_of(out: Path, size: tuple[int, int]) -> tuple[int, float]:
    """Objects that the river's middle line runs through, and the share of the commonest."""
    folder = RunFolder(out)
    plan = Plan.of(folder)
    tiles = next(plan.sources())
    table = GroupTables(folder, plan.group_of(tiles), ("object",)).of_source(tiles[0].source_index)
    objects = np.append(table.column("object").to_numpy(), -1)
    x = np.arange(size[0])
    y = middle_of_river(x, size).round().astype(int)
    along = np.full(size[0], -1)
    with open_regions(folder.region_raster(tiles[0].label), size) as raster:
        for top, numbers in raster.strips():
            here = (y >= top) & (y < top + len(numbers))
            found = numbers[y[here] - top, x[here]].astype(np.int64)
            along[here] = objects[np.where(found == NOWHERE, -1, found)]
    names, counts = np.unique(along[along >= 0], return_counts=True)
    return len(names), float(counts.max(initial=0) / size[0])


def size_of(text: str) -> tuple[int, int]:
    """``3000`` or ``30000x2000`` -> width and height. Raises BadParameter."""
    width, _, height = text.partition("x")
    if not width.isdecimal() or not (height or width).isdecimal():
        raise click.BadParameter(f"{text}: give pixels, 3000 or 30000x2000 say")
    return int(width), int(height or width)


@click.command(context_settings={"show_default": True})
@click.argument("images", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--side", "sizes", multiple=True, default=("3000", "30000"), help="W or WxH pixels.")
@click.option("--tile", type=int, default=1024, help="Side of a window.")
@click.option("--points-per-side", type=int, help="Of a window. Default: the model's.")
def main(
    images: Path, work: Path, sizes: tuple[str, ...], tile: int, points_per_side: int | None
) -> None:
    """Label scenes made of IMAGES, and say how much memory each stage took."""
    work.mkdir(parents=True, exist_ok=True)
    paths = sorted(path for path in images.iterdir() if path.suffix.lower() in (".jpg", ".tif"))
    if not paths:
        raise click.ClickException(f"{images} holds no .jpg or .tif image")
    given: tuple[str, ...] = ("--tile", str(tile))
    if points_per_side is not None:
        given += ("--points-per-side", str(points_per_side))
    click.echo("| pixels | stage | memory, MB | seconds | s/Mpx |\n|---|---|---|---|---|")
    for text, size in [(text, size_of(text)) for text in sizes]:
        scene, out = work / f"scene{text}.tif", work / f"run{text}"
        if not scene.exists():
            make_scene(scene, paths, size)
        for stage in STAGES:
            took = run_stage(stage, scene, out, given)
            click.echo(
                f"| {text} | {stage} | {took.megabytes:.0f} | {took.seconds:.0f} "
                f"| {took.seconds / (size[0] * size[1]) * 1e6:.2f} |"
            )
        objects, share = river_of(out, size)
        click.echo(f"The river of {text} px: {objects} objects, {share:.1%} of its length is one.")


if __name__ == "__main__":
    main()
