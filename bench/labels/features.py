"""Which features label pixels best: one table, of choices made without Dubai's tile 7.

    python -m alps.bench.labels.features DATA WORK --out bench/results/features.md

DATA and WORK as in `alps.bench.labels.quality`, with which masks and regions are shared. Each row
is another way to make vectors of the same regions; they are put into 46 classes and scored as label
maps on Dubai's tiles 1 to 6 and on OpenAerialMap, by majority mapping, unlabelled pixels being
misses: learnt on the scored images, and on other parts of them ("apart": tile by tile, and four
fifths). No map is painted for that: what each region shows of the truth is counted once, and what a
way of clustering is worth follows from the counts, small patches and all.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from rasterio.windows import Window

from alps.bench.labels.quality import DATA, SEEDS, Place
from alps.engine.base.errors import AlpsError
from alps.engine.clusters.data import MemoryVectors
from alps.engine.clusters.features import FeatureFit, RegionColumns, SegmentColumns
from alps.engine.clusters.fit import fit_clusters
from alps.engine.clusters.region_reader import REGION_COLUMNS, RegionReader
from alps.engine.quality.label_file import LabelFile
from alps.engine.quality.measure import ious_of, majority_mapping, mapped_counts
from alps.engine.quality.truth import TruthRules, class_bands, read_classes
from alps.engine.regions.raster import open_regions
from alps.engine.regions.tables import GroupTables
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import ClusterSettings

FOLDS = 5
HELD_OUT = "tile7"  # sources of this name take no part in anything here
IGNORE = 255


@dataclass(frozen=True)
class Truth:
    """What n regions show of T classes, by pixels."""

    counts: np.ndarray  # (n, T) int64
    source: np.ndarray  # (n,) index of the source
    unlabelled: np.ndarray  # (S, T) pixels of each source in no region
    names: list[str]  # of sources

    @property
    def groups(self) -> np.ndarray:
        """Part that each source's mapping is learnt apart from: (S,) int."""
        tiles = [name.split("_")[0] for name in self.names]
        if len(set(tiles)) <= FOLDS + 1 and self.names[0].startswith("tile"):
            return np.unique(tiles, return_inverse=True)[1]
        return np.random.default_rng(0).permutation(len(tiles)) % FOLDS


@dataclass(frozen=True)
class Variant:
    """A way to make vectors of regions, and to cluster them."""

    name: str
    settings: ClusterSettings
    change: Callable[[RegionColumns, ClusterSettings], np.ndarray]


def count_truth(run: RunFolder, truth: Path, rules: TruthRules, classes: int) -> Truth:
    """Count every source's regions against its truth, a file of the same stem."""
    files = {path.stem: path for path in truth.iterdir()}
    counts, source, unlabelled = [], [], []
    names: list[str] = []
    for group in Plan.of(run).groups():
        tables = GroupTables(run, group.number, ())
        for first, *_ in group.sources:
            count = len(tables.rows_of(first.source_index))
            found = np.zeros((count + 1, classes), np.int64)
            with (
                LabelFile(files[Path(first.label).stem]) as real,
                open_regions(run.region_raster(first.label)) as raster,
            ):
                bands = class_bands(real, rules)
                for top, strip in raster.values(np.arange(count), count):
                    window = Window(0, top, strip.shape[1], strip.shape[0])
                    values, valid = read_classes(real, bands, window, rules)
                    keys = strip[valid] * classes + values[valid]
                    found += np.bincount(keys, minlength=found.size).reshape(found.shape)
            counts.append(found[:-1])
            source.append(np.full(count, len(names)))
            unlabelled.append(found[-1])
            names.append(first.source)
    return Truth(np.concatenate(counts), np.concatenate(source), np.array(unlabelled), names)


def score(labels: np.ndarray, clusters: int, truth: Truth) -> tuple[float, float]:
    """mIoU of regions' classes (n,), the mapping learnt on the same sources, and apart."""
    sources, classes = truth.unlabelled.shape
    table = np.zeros((sources, clusters, classes), np.int64)
    np.add.at(table, (truth.source, labels), truth.counts)
    table = table.transpose(0, 2, 1)
    total = table.sum((0, 2)) + truth.unlabelled.sum(0)
    whole = table.sum(0)
    same = np.nanmean(ious_of(mapped_counts(whole, majority_mapping(whole)), total))
    mapped = np.zeros((classes, classes), np.int64)
    for group in range(truth.groups.max() + 1):
        own = truth.groups == group
        mapping = majority_mapping(table[~own].sum(0))
        mapped += mapped_counts(table[own].sum(0), mapping)
    return float(same), float(np.nanmean(ious_of(mapped, total)))


def columns_of(run: RunFolder) -> RegionColumns:
    """All regions of a run, in the order of its files."""
    groups = Plan.of(run).group_numbers()
    tables = [read_table(run.regions(group), list(REGION_COLUMNS)) for group in groups]
    return RegionReader(run).columns(pa.concat_tables(tables))


def held_in(columns: RegionColumns, truth: Truth) -> tuple[RegionColumns, Truth]:
    """Both without the sources that nothing is chosen on."""
    kept = np.array([not name.startswith(HELD_OUT) for name in truth.names])
    rows = kept[truth.source]
    number = np.cumsum(kept) - 1
    names = [name for name, keep in zip(truth.names, kept, strict=True) if keep]
    rest = Truth(truth.counts[rows], number[truth.source[rows]], truth.unlabelled[kept], names)
    return _seen(columns.take(np.flatnonzero(rows))), rest


def _seen(columns: RegionColumns) -> RegionColumns:
    """The same without segments that no region saw, which statistics would count."""
    used, entry = np.unique(columns.entry, return_inverse=True)
    segments = SegmentColumns(
        *(getattr(columns.segments, item.name)[used] for item in fields(SegmentColumns))
    )
    return replace(columns, segments=segments, source=columns.source[used], entry=entry)


# --- ways to make vectors: given columns and settings, (n, D) float32


def as_set(columns: RegionColumns, settings: ClusterSettings) -> np.ndarray:
    """As `alps cluster` makes them."""
    fit = FeatureFit(settings)
    fit.add_segments(columns.segments)
    fit.add_colours(columns.colour)
    return fit.solve().transform(columns)


def of_one_window(columns: RegionColumns, settings: ClusterSettings) -> np.ndarray:
    """Of each region only the segment with the largest share, so nothing is blended."""
    region = np.repeat(np.arange(len(columns)), np.diff(columns.starts))
    order = np.lexsort((-columns.share, region))
    best = order[np.flatnonzero(np.diff(region[order], prepend=-1))]
    starts = np.searchsorted(region[best], np.arange(len(columns) + 1))
    share = np.ones(len(best), np.float32)
    alone = replace(columns, starts=starts, entry=columns.entry[best], share=share)
    return as_set(alone, settings)


def colour_alone(width: int) -> Callable[[RegionColumns, ClusterSettings], np.ndarray]:
    """Standardised colours: the first 3 are means, 6 are deviations too."""

    def change(columns: RegionColumns, _: ClusterSettings) -> np.ndarray:
        colour = columns.colour.astype(np.float32)[:, :width]
        return (colour - colour.mean(0)) / np.maximum(colour.std(0), 1e-6)

    return change


def variants() -> Iterator[Variant]:
    """The rows of the table: one thing after the other, then the chosen ones with one changed."""
    chosen = ClusterSettings()
    bare = replace(chosen, remove_position=False, components=0, colour_weight=0.0)
    yield Variant("colour alone", bare, colour_alone(3))
    yield Variant("colour and its deviation alone", bare, colour_alone(6))
    step = bare
    steps: tuple[tuple[str, dict[str, Any]], ...] = (
        ("embeddings", {}),
        ("+ place removed", {"remove_position": True}),
        ("+ colour", {"colour_weight": chosen.colour_weight}),
        ("+ whitened: as chosen", {"components": chosen.components}),
    )
    for name, values in steps:
        step = replace(step, **values)
        yield Variant(name, step, as_set)
    yield Variant("as chosen, of one window", chosen, of_one_window)
    others: tuple[tuple[str, dict[str, Any]], ...] = (
        ("embeddings not scaled to length 1", {"normalise": False}),
        ("place not removed", {"remove_position": False}),
        ("centred by image", {"centre_sources": True}),
        ("not weighted by area", {"weight_by_area": False}),
        *((f"colour weight {w}", {"colour_weight": w}) for w in (0.0, 0.3, 0.8, 1.2)),
        *((f"{n} components", {"components": n}) for n in (8, 16, 64)),
    )
    for name, values in others:
        yield Variant(f"as chosen, {name}", replace(chosen, **values), as_set)


def measure(variant: Variant, columns: RegionColumns, truth: Truth) -> np.ndarray:
    """mIoU same and apart, mean over seeds: (2,)."""
    vectors = variant.change(columns, variant.settings).astype(np.float32)
    weights = columns.area if variant.settings.weight_by_area else None
    found = []
    for seed in SEEDS:
        settings = replace(variant.settings, seed=seed)
        labels, _ = fit_clusters(MemoryVectors(vectors, weights), settings).assign(vectors)
        found.append(score(labels, settings.clusters, truth))
    return np.mean(found, axis=0)


def load(place: Place) -> tuple[RegionColumns, Truth]:
    """Regions of a data set and what they show, without what is held out."""
    run = place.run()
    rules = TruthRules((IGNORE,), place.data.scored.truth_threshold)
    classes = 2 if rules.threshold is not None else 5
    kept = run.root / "owned.npz"
    if not kept.exists():
        truth = count_truth(run, place.truth, rules, classes)
        np.savez(kept, **{field.name: getattr(truth, field.name) for field in fields(truth)})
    with np.load(kept) as data:
        truth = Truth(data["counts"], data["source"], data["unlabelled"], data["names"].tolist())
    return held_in(columns_of(run), truth)


@click.command(context_settings={"show_default": True})
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The table's file.")
@click.option("--model", default="tiny")
def main(folder: Path, work: Path, out: Path | None, model: str) -> None:
    """Compare features on the images in FOLDER; keep what takes long in WORK."""
    titles = {"dubai": "Dubai 1-6", "openaerialmap": "OpenAerialMap"}
    head = " | ".join(f"{titles[data.name]} | apart" for data in DATA)
    lines = [f"| features | {head} |", "|---" * (1 + 2 * len(DATA)) + "|"]
    try:
        loaded: dict[str, tuple[RegionColumns, Truth]] = {}
        for variant in variants():
            cells = []
            for data in DATA:
                if data.name not in loaded:
                    images, truth = folder / data.name / "images", folder / data.name / "labels"
                    place = Place(images, truth, work, data, model, variant.settings.clusters)
                    loaded[data.name] = load(place)
                cells += [f"{value:.3f}" for value in measure(variant, *loaded[data.name])]
            lines.append(f"| {variant.name} | {' | '.join(cells)} |")
            click.echo(lines[-1])
    except AlpsError as error:
        raise click.ClickException(str(error)) from error
    if out is not None:
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
