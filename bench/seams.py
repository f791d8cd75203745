"""How label maps show the way they were cut: seams where windows met, dust, and torn objects.

    python -m alps.bench.seams RUN [RUN ...]

Seam ratio: the share of pixel pairs that change class across the borders between the windows'
cores, over the median of that share over all other lines of the map. 1 means that nobody can tell
where windows met. Few borders make it noisy, so the null stands beside it: the ratio that the same
map gives for borders moved by 60 and 100 pixels, where nothing was ever cut.

A map in one class has no seams either, and edges may be moved away from the borders instead of
mended: so the classes inside the largest objects are counted too, as exp of their entropy by area.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click
import numpy as np
from rasterio.windows import Window as RasterWindow

from alps.engine.base.errors import AlpsError, RunFolderError
from alps.engine.images.windows import Window, cores
from alps.engine.quality.label_file import open_image, read_bands
from alps.engine.quality.truth import unlabelled_value
from alps.engine.regions.packing import NOWHERE
from alps.engine.regions.raster import open_regions
from alps.engine.regions.tables import GroupTables
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan, PlannedTile
from alps.kernels.regions import pieces

MOVED = (-100, -60, 60, 100)  # pixels, of the null
DUST = 10  # pixels; smaller patches are dust
LEAST_PAIRS = 16  # of labelled pixels that a line must have to count in the median
LARGEST = 10  # objects of an image whose classes are counted
HEAD = (
    "image", "seam ratio", "null", "null, lowest to highest", "at borders", "elsewhere",
    "patches/Mpx", f"under {DUST} px", "smallest", "classes an object",
)  # fmt: skip


@dataclass(frozen=True)
class MapMeasures:
    """Seams and patches of a label map, or the sum of several."""

    at_borders: np.ndarray  # (2,) int64: pixel pairs across borders that change class, and pairs
    moved: np.ndarray  # (4, 2) int64: the same for borders moved by each of MOVED
    elsewhere: np.ndarray  # (L,) share of pairs that change, of each other line
    labelled: int  # pixels
    patches: int  # 4-connected, of one class
    dust: int  # patches under DUST pixels
    smallest: int  # pixels of the smallest patch; 0 where there is none
    objects: np.ndarray  # (O,) effective number of classes of each of the largest objects

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.at_borders + other.at_borders,
            self.moved + other.moved,
            np.concatenate([self.elsewhere, other.elsewhere]),
            self.labelled + other.labelled,
            self.patches + other.patches,
            self.dust + other.dust,
            min(filter(None, (self.smallest, other.smallest)), default=0),
            np.concatenate([self.objects, other.objects]),
        )

    @property
    def median(self) -> float:
        """Median share of change over all lines that are no border; nan where there is none."""
        return float(np.median(self.elsewhere)) if len(self.elsewhere) else math.nan

    @property
    def ratio(self) -> float:
        """The seam ratio; nan without borders, and where the median line never changes."""
        return self.ratio_of(self.at_borders)

    @property
    def null(self) -> float:
        """The ratio of all moved borders together."""
        return self.ratio_of(self.moved.sum(0))

    @property
    def patches_per_megapixel(self) -> float:
        """Of labelled pixels."""
        return self.patches / self.labelled * 1e6 if self.labelled else math.nan

    @property
    def classes_per_object(self) -> float:
        """Mean effective number of classes of the largest objects; nan where none are known."""
        return float(self.objects.mean()) if len(self.objects) else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for nan."""
        found = {
            "seam_ratio": self.ratio,
            "null": self.null,
            "null_of_each": [self.ratio_of(one) for one in self.moved],
            "at_borders": _share(self.at_borders),
            "elsewhere": self.median,
            "labelled_pixels": self.labelled,
            "patches": self.patches,
            "patches_per_megapixel": self.patches_per_megapixel,
            "dust": self.dust,
            "smallest": self.smallest,
            "classes_per_object": self.classes_per_object,
        }
        return json.loads(json.dumps(found), parse_constant=lambda _: None)

    def ratio_of(self, found: np.ndarray) -> float:
        """The share of changes ``found`` (2,), as ``at_borders``, over the median elsewhere."""
        return _share(found) / self.median if self.median > 0 else math.nan


def measure_map(
    labels: np.ndarray, windows: list[Window], unlabelled: int, objects: np.ndarray | None = None
) -> MapMeasures:
    """Measure a label map (H, W) of a scene that was read in ``windows``, a whole grid.

    objects: (O,) of ``classes_of_objects``, where they are known.
    """
    owned = cores(windows)
    at_borders, moved, elsewhere = np.zeros(2, int), np.zeros((len(MOVED), 2), int), []
    for axis, starts in ((1, {core.x for core in owned}), (0, {core.y for core in owned})):
        lines = _lines(labels, unlabelled, axis)
        borders = np.array(sorted(starts)[1:], int)
        at_borders += lines[borders].sum(0)
        for place, by in enumerate(MOVED):
            at = borders + by
            at = at[(at > 0) & (at < len(lines)) & ~np.isin(at, borders)]
            moved[place] += lines[at].sum(0)
        others = np.delete(lines, borders, axis=0)
        others = others[others[:, 1] >= LEAST_PAIRS]
        elsewhere.append(others[:, 0] / others[:, 1])
    patch, first = pieces(labels, unlabelled)
    area = np.bincount(patch[patch >= 0], minlength=len(first))
    return MapMeasures(
        at_borders,
        moved,
        np.concatenate(elsewhere),
        int(area.sum()),
        len(area),
        int((area < DUST).sum()),
        int(area.min()) if len(area) else 0,
        np.zeros(0) if objects is None else objects,
    )


def _lines(labels: np.ndarray, unlabelled: int, axis: int) -> np.ndarray:
    """Pixel pairs that change class, and pairs labelled on both sides, across each line.

    axis 1: line i lies between columns i - 1 and i; 0: between rows. (n, 2) int64, 0 at i = 0.
    """
    turned = labels if axis == 1 else labels.T
    both = (turned[:, 1:] != unlabelled) & (turned[:, :-1] != unlabelled)
    change = (turned[:, 1:] != turned[:, :-1]) & both
    found = np.zeros((turned.shape[1], 2), np.int64)
    found[1:, 0], found[1:, 1] = change.sum(0), both.sum(0)
    return found


def _share(found: np.ndarray) -> float:
    return float(found[0] / found[1]) if found[1] else math.nan


def classes_of_objects(classes: np.ndarray, objects: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Effective number of classes, exp of their entropy by area, of the LARGEST objects.

    Args:
        classes: (R,) of each region, -1 none.
        objects: (R,) of each region, -1 none.
        area: (R,) pixels.

    Returns (O,) float64, of the largest object first; fewer where there are fewer.
    """
    known = (classes >= 0) & (objects >= 0)
    classes, objects, area = classes[known], objects[known], area[known].astype(np.float64)
    total = np.bincount(objects, area)
    largest = np.argsort(-total, kind="stable")[:LARGEST]
    found = []
    for one in largest[total[largest] > 0]:
        share = np.bincount(classes[objects == one], area[objects == one]) / total[one]
        share = share[share > 0]
        found.append(np.exp(-(share * np.log(share)).sum()))
    return np.array(found)


def measure_run(folder: RunFolder) -> Iterator[tuple[str, MapMeasures]]:
    """Each source of a run that has a label map: its name, and what was measured of it.

    A label map is held in memory whole. Raises RunFolderError where there is none.
    """
    measured = False
    for tiles in Plan.of(folder).sources():
        if folder.label(tiles[0].label).exists():
            measured = True
            yield tiles[0].source, _measure_source(folder, tiles)
    if not measured:
        raise RunFolderError(f"{folder.root} has no label maps; make them with: alps label SRC OUT")


def read_labels(path: Path) -> tuple[np.ndarray, int]:
    """A label map (H, W), and its value that means no class."""
    with open_image(path) as file:
        whole = RasterWindow(0, 0, file.width, file.height)
        return read_bands(file, 1, whole), unlabelled_value(file)


def _measure_source(folder: RunFolder, tiles: list[PlannedTile]) -> MapMeasures:
    labels, unlabelled = read_labels(folder.label(tiles[0].label))
    return measure_map(
        labels,
        [tile.window for tile in tiles],
        unlabelled,
        _objects_of_source(folder, tiles, labels, unlabelled),
    )


def _objects_of_source(
    folder: RunFolder, tiles: list[PlannedTile], labels: np.ndarray, unlabelled: int
) -> np.ndarray | None:
    """As ``classes_of_objects``, of what a label map shows; None where regions were not kept."""
    path, group = folder.region_raster(tiles[0].label), Plan.of(folder).group_of(tiles)
    if not path.exists() or not folder.regions(group).exists():
        return None
    table = GroupTables(folder, group, ("area", "object")).of_source(tiles[0].source_index)
    objects, area = (table.column(name).to_numpy() for name in ("object", "area"))
    classes = np.full(len(area), -1)
    with open_regions(path, (labels.shape[1], labels.shape[0])) as raster:
        for y, numbers in raster.strips():
            strip = labels[y : y + len(numbers)].astype(int)
            shown = (numbers != NOWHERE) & (strip != unlabelled)
            classes[numbers[shown]] = strip[shown]  # a region shows one class
    return classes_of_objects(classes, objects, area)


def pooled(measures: Iterable[MapMeasures]) -> MapMeasures:
    """Several label maps as one; there is at least one."""
    first, *others = measures
    for other in others:
        first += other
    return first


def table_row(name: str, found: MapMeasures) -> str:
    """A line of a Markdown table whose columns are HEAD."""
    each = np.array([found.ratio_of(one) for one in found.moved])
    known = each[np.isfinite(each)]
    span = f"{known.min():.2f} to {known.max():.2f}" if len(known) else "–"
    cells = [
        name, _cell(found.ratio), _cell(found.null), span,
        _cell(_share(found.at_borders), ".1%"), _cell(found.median, ".1%"),
        _cell(found.patches_per_megapixel, ".0f"), str(found.dust), str(found.smallest),
        _cell(found.classes_per_object),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _cell(value: float, how: str = ".2f") -> str:
    return "–" if math.isnan(value) else format(value, how)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--json", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write all here too."
)
def main(runs: tuple[Path, ...], target: Path | None) -> None:
    """Seams, dust and torn objects of the label maps of RUNS: a row an image, one for each run."""
    click.echo(f"| {' | '.join(HEAD)} |\n{'|---' * len(HEAD)}|")
    rows = []
    try:
        for run in runs:
            found = []
            for name, measures in measure_run(RunFolder(run)):
                found.append(measures)
                rows.append({"run": str(run), "image": name, **measures.as_dict()})
                click.echo(table_row(name, measures))
            rows.append({"run": str(run), "image": None, **pooled(found).as_dict()})
            click.echo(table_row(f"**{run.name}**, {len(found)} images", pooled(found)))
    except AlpsError as error:
        raise click.ClickException(str(error)) from error
    if target is not None:
        target.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
