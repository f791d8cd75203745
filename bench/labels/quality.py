"""How right labels are, ours beside others', on images with real labels: one table.

    python -m alps.bench.labels.quality DATA WORK --out bench/results/label_quality.md

DATA holds `dubai`, `openaerialmap` and `maps`, each with `images` and `labels`. WORK keeps what
takes long, masks by the model's SHA-256 and superpixels, for the next time. Every method puts the
segments of all images of a data set into the same number of classes, seeds 0, 1 and 2; of `maps`
there are `val_*` alone, a region by itself. Label maps are scored as `alps quality` does, on Dubai
tile 7 and on all of the others: a class is read as the true one that it overlaps most, and
unlabelled pixels are misses. That is learnt on the scored images, and once more ("apart") on
others: Dubai's tiles 1 to 6, and four of five parts. The truth of `maps` leaves out a rim between
classes, so that it has no boundary to be near to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from alps.bench.labels.baselines import (
    METHODS,
    BaselineSettings,
    cluster_colours,
    paint_file,
    segment_to_file,
)
from alps.bench.labels.published_recipe import label_published
from alps.engine.base.errors import AlpsError
from alps.engine.base.progress import Progress
from alps.engine.images.sources import find_sources
from alps.engine.models.checkpoints import load_sam
from alps.engine.models.registry import find_model
from alps.engine.quality.measure import Quality, measure_quality
from alps.engine.quality.settings import QualitySettings
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages.label import (
    RunOptions,
    cluster_stage,
    paint_stage,
    segment_stage,
)
from alps.engine.stages.segment import shards_missing

SEEDS = (0, 1, 2)
NAMES = {"ours": "ALPS", "published": "published recipe", "mended": "the same, encoded properly"}
NAMES |= {"slic": "SLIC + colour", "felzenszwalb": "Felzenszwalb + colour"}
MEASURES = ("miou", "apart", "nmi", "purity", "boundary_f1", "coverage")


@dataclass(frozen=True)
class Data:
    """A data set, and what of it is scored how."""

    name: str
    title: str
    scored: QualitySettings  # mapping learnt on the scored images
    apart: QualitySettings  # mapping learnt on others
    images: str = ""  # glob of the names of those that are labelled; empty: all


DATA = (
    Data(
        "dubai",
        "Dubai tile 7",
        QualitySettings(only="tile7*"),
        QualitySettings(fit_only="tile[1-6]*", only="tile7*"),
    ),
    Data(
        "openaerialmap",
        "OpenAerialMap",
        QualitySettings(truth_threshold=127),
        QualitySettings(truth_threshold=127, folds=5),
    ),
    Data(
        "maps",
        "New York (`maps`, val)",
        QualitySettings(only="val_*"),
        QualitySettings(only="val_*", folds=5),
        images="val_*",
    ),
)


@dataclass(frozen=True)
class Place:
    """Where the images of a data set lie and where results go."""

    images: Path  # a folder, or a glob
    truth: Path
    work: Path
    data: Data
    model: str
    clusters: int

    def run(self) -> RunFolder:
        """Masks and regions of all images; made where they are not there yet."""
        root = self.work / f"{model_name(self.model)}-{self.data.name}"
        return segmented(root, self.images, RunSettings(), self.model)


def model_name(model: str) -> str:
    """A model's name and the first digits of its SHA-256."""
    _, info = load_sam(find_model(model))
    return f"{Path(model).stem}-{info.sha256[:12]}"


def segmented(root: Path, images: Path, settings: RunSettings, model: str) -> RunFolder:
    """A run folder with masks and regions of all images; made where they are not there yet."""
    folder = RunFolder(root)
    if not folder.run_json.exists() or shards_missing(folder):
        with locked(folder):
            segment_stage(folder, images, settings, RunOptions(model=model))
    return folder


def label_ours(place: Place, seed: int) -> Path:
    """Our label maps for a seed, with the defaults of everything else."""
    run = place.run()
    with locked(run):
        cluster_stage(run, ClusterSettings(clusters=place.clusters, seed=seed))
        paint_stage(run)
    return run.root


def label_by_recipe(name: str) -> Callable[[Place, int], Path]:
    """The published recipe's label maps, on the same model's masks; ``mended``, or as it is."""

    def label(place: Place, seed: int) -> Path:
        model, _ = load_sam(find_model(place.model))
        out = place.work / f"labels-{name}-{place.data.name}-{seed}"
        mended = name == "mended"
        return label_published(place.run(), model, out, place.clusters, seed, mended=mended)

    return label


def label_by_superpixels(method: str) -> Callable[[Place, int], Path]:
    """Label maps of one of the baselines; its segments are kept for other seeds."""

    def label(place: Place, seed: int) -> Path:
        settings = BaselineSettings(method=method, clusters=place.clusters, seed=seed)
        folder = place.work / f"{method}-{place.data.name}"
        folder.mkdir(parents=True, exist_ok=True)
        sources = find_sources(place.images)
        files = [folder / f"{index:05d}.npz" for index in range(len(sources))]
        with Progress(len(sources), "images", method) as progress:
            for source, file in zip(sources, files, strict=True):
                if not file.exists():
                    part = file.with_name(f".part-{file.name}")
                    segment_to_file(source, part, settings)
                    part.rename(file)
                progress.advance(1)
        colours, pixels = [], []
        for file in files:
            with np.load(file) as kept:
                colours.append(kept["colours"])
                pixels.append(kept["pixels"])
        assigned = cluster_colours(np.concatenate(colours), np.concatenate(pixels), settings)
        out = place.work / f"labels-{method}-{place.data.name}-{seed}"
        ends = np.cumsum([len(own) for own in colours])
        for source, file, classes in zip(
            sources, files, np.split(assigned, ends[:-1]), strict=True
        ):
            paint_file(source, file, classes, out / "labels", place.clusters)
        return out

    return label


LABELLERS: dict[str, Callable[[Place, int], Path]] = {
    "ours": label_ours,
    **{name: label_by_recipe(name) for name in ("published", "mended")},
    **{method: label_by_superpixels(method) for method in METHODS},
}


def score(folder: Path, place: Place) -> tuple[dict[str, float], Quality]:
    """MEASURES of a folder of label maps, and all that was measured on the scored images."""
    same = measure_quality(folder, place.truth, place.data.scored)
    found = {name: getattr(same, name) for name in MEASURES if name != "apart"}
    found["apart"] = measure_quality(folder, place.truth, place.data.apart).miou
    if np.isnan(same.boundary_recall):  # the truth has none
        found["boundary_f1"] = np.nan
    return found, same


def table(rows: list[tuple[str, str, int, dict[str, float], Quality]], clusters: int) -> str:
    """Markdown: a line a method with the mean over seeds, then a line a seed."""
    head = "| images | labels | mIoU | apart | NMI | purity | boundary F1 | coverage |"
    lines = [f"K = {clusters}, means over seeds {', '.join(map(str, SEEDS))}:", "", head]
    lines.append("|---" * 8 + "|")
    for title, name in dict.fromkeys((row[0], row[1]) for row in rows):
        runs = [row[3] for row in rows if row[:2] == (title, name)]
        means = [float(np.mean([one[measure] for one in runs])) for measure in MEASURES]
        lines.append(f"| {title} | {name} | " + " | ".join(map(_cell, means)) + " |")
    lines += ["", "Seed by seed:", ""]
    lines += ["| images | labels | seed | mIoU | apart | IoU of each class |", "|---" * 6 + "|"]
    for title, name, seed, found, same in rows:
        ious = " ".join(f"{c.iou:.3f}" for c in same.classes)
        lines.append(
            f"| {title} | {name} | {seed} | {found['miou']:.3f} | {found['apart']:.3f} | {ious} |"
        )
    return "\n".join(lines) + "\n"


def _cell(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


@click.command(context_settings={"show_default": True})
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The table's file.")
@click.option("--model", default="tiny")
@click.option("--clusters", default=46, type=click.IntRange(2, 254))
@click.option("--only", "names", multiple=True, type=click.Choice(list(LABELLERS)))
@click.option(
    "--data",
    "sets",
    multiple=True,
    type=click.Choice([data.name for data in DATA]),
    help="Data sets. Default: all.",
)
@click.option(
    "--images", help="Glob of the names of images that are labelled, fewer; needs another WORK."
)
def main(
    folder: Path,
    work: Path,
    out: Path | None,
    model: str,
    clusters: int,
    names: tuple[str, ...],
    sets: tuple[str, ...],
    images: str | None,
) -> None:
    """Score label maps of the images in FOLDER, ours and others'; keep what takes long in WORK."""
    rows = []
    try:
        for data in DATA:
            if sets and data.name not in sets:
                continue
            inside, truth = folder / data.name / "images", folder / data.name / "labels"
            place = Place(inside / (images or data.images), truth, work, data, model, clusters)
            for name in names or LABELLERS:
                for seed in SEEDS:
                    found, same = score(LABELLERS[name](place, seed), place)
                    rows.append((data.title, NAMES[name], seed, found, same))
                    click.echo(f"{data.title}, {NAMES[name]}, seed {seed}: {found}")
    except AlpsError as error:
        raise click.ClickException(str(error)) from error
    text = table(rows, clusters)
    click.echo(text)
    if out is not None:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
