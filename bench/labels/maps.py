"""What each step towards a label map without seams is worth: a ladder, a row a step.

    python -m alps.bench.labels.maps DATA WORK --out bench/results/label_maps.md \\
        --with min_patch=0 --with superpixels=3000,min_patch=0

DATA holds `naip` and `neon`, with images, and `dubai` and `openaerialmap`, with `images` and
`labels`. WORK keeps run folders, for the next time and for alps.bench.labels.quality. Each --with
is a variant: settings of a run that differ from the defaults. Variants that only cluster or paint
otherwise share a run folder; those with other --superpixels share its masks and are cut anew.

Everything is a mean over seeds; how seams, patches and objects are measured says alps.bench.seams.
mIoU, apart and boundary F1 are those of `alps quality`; apart is, for Dubai's tiles 1 to 6, each
tile read by what its classes are on the other five. Between years: NMI of the maps of one place in
two years, mean over pairs; of a map and itself shifted by a pixel, it is what the edges alone cost.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import numpy as np

from alps.bench.commands import KeywordArguments
from alps.bench.labels.quality import SEEDS, model_name, segmented
from alps.bench.seams import MapMeasures, measure_run, pooled, read_labels
from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import AlpsError, SettingsError
from alps.engine.quality.measure import ious_of, measure_quality, normalised_mutual_information
from alps.engine.quality.settings import QualitySettings
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.run_folder.plan import Plan
from alps.engine.settings import RunSettings
from alps.engine.stages.label import cluster_stage, paint_stage

SEAMLESS = 1.1  # highest seam ratio of an image that counts as without seams
MEASURES = {
    "seam ratio": ".2f",
    "null": ".2f",
    f"images > {SEAMLESS}": ".1f",
    "patches/Mpx": ".0f",
    "under 10 px": ".0f",
    "classes an object": ".2f",
    "mIoU": ".3f",
    "apart": ".3f",
    "boundary F1": ".3f",
    "NMI between years": ".3f",
    "shifted": ".3f",
    "cutting, s/Mpx": ".2f",
}


@dataclass(frozen=True)
class Part:
    """Images of a data set that are a row of the table."""

    title: str
    images: str = "*"  # glob of their names
    scored: QualitySettings | None = None  # None: there is no truth
    apart: tuple[QualitySettings, ...] = ()  # whose confusions are added
    is_one_place: bool = False  # in several years


@dataclass(frozen=True)
class DataSet:
    """Images that are clustered together."""

    name: str
    parts: tuple[Part, ...]

    def images(self, data: Path) -> Path:
        """The folder of its images."""
        return data / self.name / "images" if self.has_truth else data / self.name

    @property
    def has_truth(self) -> bool:
        """Whether there is a folder of labels beside its images."""
        return any(part.scored is not None for part in self.parts)


DRONE = QualitySettings(truth_threshold=127)
TILES = tuple(
    QualitySettings(fit_only=f"tile[!{tile}7]*", only=f"tile{tile}*") for tile in range(1, 7)
)
TILE_7 = QualitySettings(only="tile7*")
DATA = (
    DataSet("naip", (Part("NAIP", is_one_place=True),)),
    DataSet("neon", (Part("NEON"),)),
    DataSet(
        "dubai",
        (
            Part("Dubai 1-6", "tile[1-6]*", QualitySettings(only="tile[1-6]*"), TILES),
            Part("Dubai 7", "tile7*", TILE_7, (replace(TILE_7, fit_only="tile[1-6]*"),)),
        ),
    ),
    DataSet(
        "openaerialmap", (Part("OpenAerialMap", scored=DRONE, apart=(replace(DRONE, folds=5),)),)
    ),
)


def settings_of(given: dict[str, Any]) -> RunSettings:
    """The defaults with other values. Raises SettingsError for a name that is no setting."""
    settings = RunSettings()
    for name, value in given.items():
        for item in fields(settings):
            group = getattr(settings, item.name)
            if name in {field.name for field in fields(group)}:
                if isinstance(getattr(group, name), str):
                    value = str(value)
                changed = replace(group, **{name: value})
                settings = replace(settings, **{item.name: changed})
                break
        else:
            raise SettingsError(f"--with {name}={value}: no setting of a run has that name")
    return settings


def run_for(work: Path, name: str, images: Path, settings: RunSettings, model: str) -> RunFolder:
    """A run folder in which a data set is segmented, and cut or ready to be."""
    stock = RunSettings()
    same_cut = replace(settings.segment, superpixels=stock.segment.superpixels)
    masks = replace(stock, source=settings.source, segment=same_cut)
    root = work / f"{model_name(model)}-{name}"
    if masks != stock:
        root = root.with_name(f"{root.name}-{fingerprint(masks.to_dict())[:8]}")
    folder = segmented(root, images, masks, model)
    if settings.segment == same_cut:
        return folder
    number = settings.segment.superpixels
    other = RunFolder(root.with_name(f"{root.name}-cut{number:g}"))
    if not other.run_json.exists():
        copy_masks(folder, other, number)
    return other


def copy_masks(folder: RunFolder, other: RunFolder, superpixels: float) -> None:
    """Make a run folder with the masks of another, which are on the disk once, to be cut anew."""
    paths = [folder.tiles, *folder.journal.glob("*.parquet"), *folder.segments(0).parent.iterdir()]
    for path in paths:
        target = other.root / path.relative_to(folder.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(path, target)
    run = folder.read_run() | {"done": {}, "stages": {}}
    run["settings"]["segment"]["superpixels"] = superpixels
    run["config_hash"] = fingerprint(run["config_hash"], superpixels)
    other.update_run(**run)


def measure(folder: RunFolder, data: DataSet, truth: Path) -> list[dict[str, float]]:
    """MEASURES of a painted run, part by part; nan for what cannot be measured."""
    found = list(measure_run(folder))
    return [_measure_part(folder, part, found, truth) for part in data.parts]


def _measure_part(
    folder: RunFolder, part: Part, found: list[tuple[str, MapMeasures]], truth: Path
) -> dict[str, float]:
    own = [measures for name, measures in found if fnmatchcase(name, part.images)]
    if not own:
        raise SettingsError(f"{folder.root} has no label map of {part.title} ({part.images})")
    total = pooled(own)
    ratios = np.array([one.ratio for one in own if not np.isnan(one.ratio)])
    values = dict.fromkeys(MEASURES, np.nan) | {
        "seam ratio": total.ratio,
        "null": total.null,
        f"images > {SEAMLESS}": float((ratios > SEAMLESS).sum()) if len(ratios) else np.nan,
        "patches/Mpx": total.patches_per_megapixel,
        "under 10 px": float(total.dust),
        "classes an object": total.classes_per_object,
        "cutting, s/Mpx": _cutting_seconds(folder),
    }
    if part.scored is not None:
        same = measure_quality(folder.root, truth, part.scored)
        values |= {"mIoU": same.miou, "boundary F1": same.boundary_f1}
        values["apart"] = apart_miou(folder, truth, part.apart)
    if part.is_one_place:
        values["NMI between years"], values["shifted"] = years(folder)
    return values


def apart_miou(folder: RunFolder, truth: Path, apart: Sequence[QualitySettings]) -> float:
    """mIoU of several parts together, each read by what classes are elsewhere."""
    confusion: dict[tuple[int, int], int] = {}
    for settings in apart:
        found = measure_quality(folder.root, truth, settings)
        names = [one.value for one in found.classes]
        for real, row in zip(names, found.confusion, strict=True):
            for read, pixels in zip([*names, -1], row, strict=True):
                confusion[real, read] = confusion.get((real, read), 0) + pixels
    values = sorted({real for real, _ in confusion})
    table = np.array([[confusion.get((t, k), 0) for k in [*values, -1]] for t in values])
    return float(np.nanmean(ious_of(table[:, :-1], table.sum(1))))


def years(folder: RunFolder) -> tuple[float, float]:
    """Mean NMI of all pairs of a run's label maps, and of each with itself shifted by a pixel.

    First pixels coincide; what one map has beyond another is left out.
    """
    paths = [folder.label(tiles[0].label) for tiles in Plan.of(folder).sources()]
    maps = [read_labels(path) for path in paths if path.exists()]
    pairs = [agreement(one, other, empty) for (one, empty), (other, _) in combinations(maps, 2)]
    shifted = [agreement(one[1:, 1:], one[:-1, :-1], empty) for one, empty in maps]
    return float(np.mean(pairs)) if pairs else np.nan, float(np.mean(shifted))


def agreement(one: np.ndarray, other: np.ndarray, unlabelled: int) -> float:
    """NMI of two label maps (H, W) of one place where both are labelled."""
    height, width = (min(sizes) for sizes in zip(one.shape, other.shape, strict=True))
    one, other = one[:height, :width], other[:height, :width]
    both = (one != unlabelled) & (other != unlabelled)
    if not both.any():
        return np.nan
    a, b = one[both].astype(np.int64), other[both].astype(np.int64)
    count = int(max(a.max(), b.max())) + 1
    joint = np.bincount(a * count + b, minlength=count**2).reshape(count, count)
    return normalised_mutual_information(joint)


def _cutting_seconds(folder: RunFolder) -> float:
    pixels = sum(tile.source_width * tile.source_height for tile in Plan.of(folder).firsts())
    return folder.read_run()["stages"].get("regions", np.nan) / pixels * 1e6


def rows_of(
    data: DataSet, folder: Path, work: Path, given: dict[str, Any], model: str, seeds: Sequence[int]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Titles and mean measures of a data set's parts, labelled with some settings.

    folder: the parent of the data set's. given: settings that are not the defaults.
    """
    settings = settings_of(given)
    run = run_for(work, data.name, data.images(folder), settings, model)
    found = []
    for seed in seeds:
        with locked(run):
            cluster_stage(run, replace(settings.cluster, seed=seed))
            paint_stage(run, settings.paint)
        found.append(measure(run, data, folder / data.name / "labels"))
    for place, part in enumerate(data.parts):
        own = [of_seed[place] for of_seed in found]
        yield part.title, {name: float(np.mean([one[name] for one in own])) for name in MEASURES}


def table(rows: list[tuple[str, str, dict[str, float]]], seeds: Sequence[int]) -> str:
    """Markdown: a line a row of title, variant and measures, data set by data set."""
    titles = dict.fromkeys(row[0] for row in rows)
    lines = [f"Means over seeds {', '.join(map(str, seeds))}.", ""]
    lines.append(f"| images | variant | {' | '.join(MEASURES)} |")
    lines.append("|---" * (2 + len(MEASURES)) + "|")
    for title in titles:
        for own, variant, found in rows:
            if own == title:
                cells = [
                    "–" if np.isnan(found[name]) else format(found[name], how)
                    for name, how in MEASURES.items()
                ]
                lines.append(f"| {title} | {variant} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@click.command(context_settings={"show_default": True})
@click.argument("folder", metavar="DATA", type=click.Path(path_type=Path, exists=True))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The table's file.")
@click.option(
    "--with",
    "variants",
    multiple=True,
    type=KeywordArguments(),
    help="One more variant, min_patch=0,colour_weight=0.3 say.",
)
@click.option("--only", "names", multiple=True, help="Names of data sets. Default: all.")
@click.option("--seed", "seeds", multiple=True, type=int, default=SEEDS)
@click.option("--model", default="tiny")
def main(
    folder: Path,
    work: Path,
    out: Path | None,
    variants: tuple[dict[str, Any], ...],
    names: tuple[str, ...],
    seeds: tuple[int, ...],
    model: str,
) -> None:
    """Label the images in DATA with the defaults, then with each variant; keep runs in WORK."""
    rows: list[tuple[str, str, dict[str, float]]] = []
    try:
        for given in ({}, *variants):
            settings_of(given)  # before anything takes long
        for data in DATA:
            if names and data.name not in names:
                continue
            for given in ({}, *variants):
                variant = ", ".join(f"{n} {v}" for n, v in given.items()) or "defaults"
                for title, found in rows_of(data, folder, work, given, model, seeds):
                    rows.append((title, variant, found))
                    shown = {n: round(v, 3) for n, v in found.items() if not np.isnan(v)}
                    click.echo(f"{title}, {variant}: {shown}", err=True)
                if out is not None:  # what is there is kept, should it be stopped
                    out.write_text(table(rows, seeds), encoding="utf-8")
    except AlpsError as error:
        raise click.ClickException(str(error)) from error
    click.echo(table(rows, seeds))


if __name__ == "__main__":
    main()
