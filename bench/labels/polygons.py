"""Polygons of label maps beside GDAL's: processor seconds a megapixel, memory, do they fit.

    python -m alps.bench.labels.polygons OUT [OUT ...]

Ours is `alps vectors`, GDAL's is GDALPolygonize, the code behind gdal_polygonize, through rasterio,
and pyogrio writes what it found to the same format. Each side of each run is a process of its own;
its largest resident memory is the kernel's count. "Outlines" is the label map in memory to outlines
in memory, without files and before polygons are objects of Python.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
import rasterio

from alps.engine.labels.classes import read_classes
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan

SIDES = ("ours", "gdal")
REPEATS = 3  # of which the best counts
ROW = "| {} | {} | {:.1f} | {:.3f} | {:.3f} | {:.0f} | {} | {} | {} |"
HEADING = (
    "| run | side | Mpx | outlines, s/Mpx | to a GeoPackage, s/Mpx | memory, MB | polygons | valid "
    "| neighbours share borders |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Took:
    """What a side took for a run, and what came of it."""

    megapixels: float
    outlines: float  # seconds
    written: float  # seconds
    polygons: int
    pixels_missing: int  # of the label maps, that no polygon has, or two
    are_valid: bool
    share_borders: bool


def label_maps(out: Path) -> list[Path]:
    """All of a run."""
    folder = RunFolder(out)
    paths = [folder.label(tiles[0].label) for tiles in Plan.of(folder).sources()]
    return [path for path in paths if path.exists()]


def measure(out: Path, side: str, file: Path) -> Took:
    """Write a run's polygons to ``file`` and look at them, in this process."""
    empty = read_classes(RunFolder(out).classes).unlabelled
    draw = _outlines_of_ours if side == "ours" else _outlines_of_gdal
    write = _write_ours if side == "ours" else _write_by_gdal
    draw(np.zeros((2, 2), np.uint8), 1)  # compiled, loaded
    outlines, pixels, labelled = 0.0, 0, 0
    paths = label_maps(out)
    for path in paths:
        with rasterio.open(path) as dataset:
            labels = dataset.read(1)
        outlines += _best(partial(draw, labels, empty))
        pixels += labels.size
        labelled += int((labels != empty).sum())

    def anew() -> None:
        file.unlink(missing_ok=True)
        write(out, empty, file)

    return Took(pixels / 1e6, outlines, _best(anew), *_looked_at(file, labelled, paths[0]))


def _best(work: Callable[[], None]) -> float:
    """Seconds of a processor, of the best of a few times: what is loaded once is loaded then, and
    a busy machine changes little.
    """
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def _outlines_of_ours(labels: np.ndarray, empty: int) -> None:
    from alps.kernels.outlines import outlines

    outlines(np.where(labels == empty, np.int32(-1), labels.astype(np.int32)))


def _outlines_of_gdal(labels: np.ndarray, empty: int) -> None:
    from rasterio.features import shapes

    # All is found before the first one is handed out; the rest is Python's.
    next(shapes(labels, mask=labels != empty, connectivity=4), None)


def _write_ours(out: Path, empty: int, file: Path) -> None:
    from alps.engine.polygons.export import write_polygons
    from alps.engine.polygons.settings import PolygonSettings

    write_polygons(out, file, PolygonSettings())


def _write_by_gdal(out: Path, empty: int, file: Path) -> None:
    import geopandas
    import shapely
    from rasterio.features import shapes

    for path in label_maps(out):
        with rasterio.open(path) as dataset:
            labels = dataset.read(1)
            found = shapes(labels, labels != empty, transform=dataset.transform, connectivity=4)
            pairs = [(shapely.geometry.shape(one), int(value)) for one, value in found]
            geometry = [one for one, _ in pairs]
            table = geopandas.GeoDataFrame(
                {"class": [value for _, value in pairs]}, geometry=geometry, crs=dataset.crs
            )
        mode = "a" if file.exists() else "w"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # where there is none
            table.to_file(file, layer="classes", mode=mode, engine="pyogrio")


def _looked_at(file: Path, labelled: int, label_map: Path) -> tuple[int, int, bool, bool]:
    """Polygons, pixels that are missing or there twice, whether all are valid, and share borders.

    Those of the last image are looked at for borders: images may lie on each other.
    """
    import geopandas
    import shapely

    with rasterio.open(label_map) as dataset:
        pixel = abs(dataset.transform.determinant)
    table = geopandas.read_file(file, layer="classes")
    shapes = table.geometry.values
    missing = round(labelled - float(shapely.area(shapes).sum()) / pixel)
    if "source" in table:
        shapes = shapes[(table["source"] == table["source"].iloc[-1]).to_numpy()]
    fit = bool(shapely.coverage_is_valid(shapes)) if len(shapes) else True
    return len(table), missing, bool(table.is_valid.all()), fit


def run_side(out: Path, side: str) -> tuple[Took, float]:
    """What a side took in a process of its own, and its memory in MB.

    Raises ClickException where it fails.
    """
    with tempfile.TemporaryDirectory() as work:
        words = [str(out), "--side", side, "--work", work]
        process = subprocess.Popen(
            [sys.executable, "-m", "alps.bench.labels.polygons", *words], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"{side} failed on {out}; what it says is above")
    answer = json.loads(said)
    return Took(**answer), usage.ru_maxrss / 1024


@click.command()
@click.argument(
    "outs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False)
)
@click.option("--side", type=click.Choice(SIDES), hidden=True)
@click.option("--work", type=click.Path(path_type=Path), hidden=True)
def main(outs: tuple[Path, ...], side: str | None, work: Path | None) -> None:
    """Polygons of the label maps of OUTS, by ours and by GDAL, as a table."""
    if side is not None and work is not None:
        click.echo(json.dumps(asdict(measure(outs[0], side, work / "found.gpkg"))))
        return
    click.echo(HEADING)
    for out in outs:
        took = {}
        for one in SIDES:
            took[one], megabytes = run_side(out, one)
            each = took[one]
            click.echo(
                ROW.format(
                    out.name, one, each.megapixels, each.outlines / each.megapixels,
                    each.written / each.megapixels, megabytes, each.polygons,
                    "yes" if each.are_valid else "no", "yes" if each.share_borders else "no",
                )
            )  # fmt: skip
        ours, gdal = took["ours"], took["gdal"]
        click.echo(
            f"{out.name}: outlines {gdal.outlines / ours.outlines:.1f} times as fast as GDAL's, "
            f"files {gdal.written / ours.written:.1f} times; {ours.pixels_missing} pixels missing "
            f"or there twice (GDAL's: {gdal.pixels_missing})"
        )


if __name__ == "__main__":
    main()
