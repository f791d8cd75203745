"""Which features label pixels best: one table, of choices made without Dubai's tile 7.

    python -m alps.bench.labels.features DATA WORK --out bench/results/features.md

DATA and WORK as in `alps.bench.labels.quality`, with which the segments are shared. Each row is
another way to make vectors of the same segments; they are put into 46 classes and scored as label
maps on Dubai's tiles 1 to 6 and on OpenAerialMap, by majority mapping, unlabelled pixels being
misses: learnt on the scored images, and on other parts of them ("apart": tile by tile, and four
fifths). No map is painted for that: which segment each pixel shows is counted once against the
truth, and what a way of clustering is worth follows from the counts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
from rasterio.windows import Window

from alps.bench.labels.quality import DATA, SEEDS, Place
from alps.engine.base.errors import AlpsError
from alps.engine.clusters.data import MemoryVectors
from alps.engine.clusters.features import (
    FEATURE_COLUMNS,
    SegmentColumns,
    fit_features,
    segment_columns,
)
from alps.engine.clusters.fit import fit_clusters
from alps.engine.clusters.position import fit_position_effect
from alps.engine.clusters.segment_data import longer_sides
from alps.engine.labels.paint import SegmentStore, paint_strips
from alps.engine.quality.measure import ious_of, majority_mapping, mapped_counts
from alps.engine.quality.truth import (
    TruthRules,
    class_bands,
    open_image,
    read_classes,
)
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import PlannedTile, shard_count, sources_of
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import ClusterSettings

FOLDS = 5
HELD_OUT = "tile7"  # sources of this name take no part in anything here
IGNORE = 255
MASKS, PARTS = 0, None  # --superpixels of a run; None is the default


@dataclass(frozen=True)
class Truth:
    """What n segments show of T classes, by pixels of the label maps that they would be on."""

    counts: np.ndarray  # (n, T) int64
    source: np.ndarray  # (n,) index of the source
    unlabelled: np.ndarray  # (S, T) pixels of each source under no segment
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
    """A way to make vectors of segments, and to cluster them."""

    name: str
    superpixels: float | None
    settings: ClusterSettings
    change: Callable[[SegmentColumns, np.ndarray], np.ndarray] | None = None


class OwnerStore(SegmentStore):
    """Segments whose class is their number within their source."""

    COLUMNS = ("tile_id", "area", "predicted_iou", "counts", "cluster", "margin")

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder)
        self.first: dict[int, int] = {}  # of each tile of the source at hand
        self.count = 0

    def start(self, tiles: list[PlannedTile]) -> None:
        """Number the segments of a source's tiles."""
        self.first, self.count = {}, 0
        for tile in tiles:
            self.first[tile.tile_id] = self.count
            self.count += super().of_tile(tile.tile_id).num_rows

    def of_tile(self, tile_id: int) -> pa.Table:
        """The segments of one tile."""
        table = super().of_tile(tile_id)
        numbers = self.first[tile_id] + np.arange(table.num_rows, dtype=np.int32)
        at = table.schema.get_field_index("cluster")
        return table.set_column(at, table.schema.field(at), pa.array(numbers))


def count_truth(run: RunFolder, truth: Path, rules: TruthRules, classes: int) -> Truth:
    """Count every source's segments against its truth, a file of the same stem."""
    store = OwnerStore(run)
    files = {path.stem: path for path in truth.iterdir()}
    counts, source, unlabelled, names = [], [], [], []
    for tiles in sources_of(read_table(run.plan)):
        store.start(tiles)
        found = np.zeros((store.count + 1, classes), np.int64)
        with open_image(files[Path(tiles[0].label).stem]) as real:
            bands = class_bands(real, rules)
            for top, strip in paint_strips(tiles, store, max(store.count, 256)):
                window = Window(0, top, strip.shape[1], strip.shape[0])
                values, valid = read_classes(real, bands, window, rules)
                owner = np.minimum(strip[valid].astype(np.int64), store.count)
                keys = owner * classes + values[valid]
                found += np.bincount(keys, minlength=found.size).reshape(found.shape)
        counts.append(found[:-1])
        source.append(np.full(store.count, len(names)))
        unlabelled.append(found[-1])
        names.append(tiles[0].source)
    return Truth(np.concatenate(counts), np.concatenate(source), np.array(unlabelled), names)


def score(labels: np.ndarray, clusters: int, truth: Truth) -> tuple[float, float]:
    """mIoU of segments' classes (n,), the mapping learnt on the same sources, and apart."""
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


def columns_of(run: RunFolder) -> SegmentColumns:
    """All segments of a run, in the order of its files."""
    shards = range(shard_count(read_table(run.plan)))
    tables = [read_table(run.segments(s), list(FEATURE_COLUMNS)) for s in shards]
    return segment_columns(pa.concat_tables(tables), longer_sides(read_table(run.plan)))


def held_in(columns: SegmentColumns, truth: Truth) -> tuple[SegmentColumns, Truth]:
    """Both without the sources that nothing is chosen on."""
    kept = np.array([not name.startswith(HELD_OUT) for name in truth.names])
    rows = kept[truth.source]
    number = np.cumsum(kept) - 1
    names = [name for name, keep in zip(truth.names, kept, strict=True) if keep]
    rest = Truth(truth.counts[rows], number[truth.source[rows]], truth.unlabelled[kept], names)
    return columns.take(rows), rest


# --- what else was tried: given columns and the source of each, other vectors


def centred(columns: SegmentColumns, group: np.ndarray) -> SegmentColumns:
    """Embeddings without the mean of their group, shrunk where a group is small."""
    effect = fit_position_effect([(columns.embedding, columns.place)])
    vectors = effect.remove(columns.embedding, columns.place)
    count = np.bincount(group)
    sums = np.zeros((len(count), vectors.shape[1]))
    np.add.at(sums, group, vectors)
    return replace(
        columns, embedding=(vectors - (sums / (count[:, None] + 10))[group]).astype(np.float32)
    )


def by_source(settings: ClusterSettings) -> Callable[[SegmentColumns, np.ndarray], np.ndarray]:
    """Vectors of embeddings centred image by image."""

    def change(columns: SegmentColumns, source: np.ndarray) -> np.ndarray:
        moved = centred(columns, source)
        return fit_features([moved], replace(settings, remove_position=False)).transform(moved)

    return change


def colour_alone(deviations: bool) -> Callable[[SegmentColumns, np.ndarray], np.ndarray]:
    """Standardised colours: means, or means and deviations."""

    def change(columns: SegmentColumns, source: np.ndarray) -> np.ndarray:
        colour = columns.colour.astype(np.float32)[:, : 6 if deviations else 3]
        return (colour - colour.mean(0)) / colour.std(0)

    return change


def with_size(settings: ClusterSettings) -> Callable[[SegmentColumns, np.ndarray], np.ndarray]:
    """The vectors of settings, and the logarithm of the area beside them."""

    def change(columns: SegmentColumns, source: np.ndarray) -> np.ndarray:
        vectors = fit_features([columns], settings).transform(columns)
        size = np.log(np.maximum(columns.area, 1))
        size = 0.3 * (size - size.mean()) / max(size.std(), 1e-6)
        return np.concatenate([vectors, size[:, None].astype(np.float32)], axis=1)

    return change


def variants() -> Iterator[Variant]:
    """The rows of the table: what was there before, one thing after the other, and the rest."""
    chosen = ClusterSettings()
    bare = replace(chosen, components=0, colour_weight=0.0)
    for where, superpixels in (("masks", MASKS), ("parts", PARTS)):
        yield Variant(f"{where}: embeddings", superpixels, replace(bare, remove_position=False))
        yield Variant(f"{where}: place removed", superpixels, bare)
        yield Variant(f"{where}: colour alone", superpixels, bare, colour_alone(False))
        yield Variant(
            f"{where}: colour and its deviation alone", superpixels, bare, colour_alone(True)
        )
        yield Variant(f"{where}: place removed, colour", superpixels, replace(chosen, components=0))
        yield Variant(f"{where}: place removed, whitened, colour", superpixels, chosen)
    for name, settings in (
        ("embeddings not scaled to length 1", replace(chosen, normalise=False)),
        ("place not removed", replace(chosen, remove_position=False)),
        ("not weighted by area", replace(chosen, weight_by_area=False)),
        *((f"colour weight {w}", replace(chosen, colour_weight=w)) for w in (0.3, 0.8, 1.2)),
        *((f"{n} components", replace(chosen, components=n)) for n in (8, 16, 64)),
    ):
        yield Variant(f"parts: as chosen, {name}", PARTS, settings)
    yield Variant("parts: as chosen, centred by image", PARTS, chosen, by_source(chosen))
    yield Variant("parts: as chosen, with size", PARTS, chosen, with_size(chosen))


def measure(variant: Variant, columns: SegmentColumns, truth: Truth) -> np.ndarray:
    """mIoU same and apart, mean over seeds: (2,)."""
    if variant.change is None:
        vectors = fit_features([columns], variant.settings).transform(columns)
    else:
        vectors = variant.change(columns, truth.source)
    weights = columns.area if variant.settings.weight_by_area else None
    found = []
    for seed in SEEDS:
        settings = replace(variant.settings, seed=seed)
        model = fit_clusters(MemoryVectors(vectors.astype(np.float32), weights), settings)
        labels, _ = model.assign(vectors.astype(np.float32))
        found.append(score(labels, settings.clusters, truth))
    return np.mean(found, axis=0)


def load(place: Place, superpixels: float | None) -> tuple[SegmentColumns, Truth]:
    """Segments of a data set and what they show, without what is held out."""
    run = place.run(superpixels)
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
        loaded: dict[tuple[str, float | None], tuple[SegmentColumns, Truth]] = {}
        for variant in variants():
            cells = []
            for data in DATA:
                key = data.name, variant.superpixels
                if key not in loaded:
                    images, truth = folder / data.name / "images", folder / data.name / "labels"
                    place = Place(images, truth, work, data, model, variant.settings.clusters)
                    loaded[key] = load(place, variant.superpixels)
                cells += [f"{value:.3f}" for value in measure(variant, *loaded[key])]
            lines.append(f"| {variant.name} | {' | '.join(cells)} |")
            click.echo(lines[-1])
    except AlpsError as error:
        raise click.ClickException(str(error)) from error
    if out is not None:
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
