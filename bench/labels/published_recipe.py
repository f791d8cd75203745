"""The published recipe's way from masks to label maps, its faults included, to measure against.

Written anew from a description of the reference code of ALPS (arXiv 2406.10855):

- the image goes through SAM's encoder a second time, in 0...1, with blue and red exchanged and
  without the normalisation that the encoder was trained with;
- a mask's embedding is the sum of the products of mask and embedding, both brought to a quarter of
  the network's input, divided by the number of products that are not zero;
- masks over 0.3 of the image are dropped;
- k-means sees each mask once, in the order of files, 512 at a time;
- masks are painted in the order of their files' names, a later one over an earlier one, and a
  mask's pixels are 1 times its class: class 0 is what the background is.

Masks are those of a run folder, so what differs is what comes after them. The background counts as
a class of its own, which favours the recipe: no pixel is a miss for being unlabelled. The first of
the faults can be mended, so that nobody has to wonder what the rest is worth.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor
from torch.nn import functional as F

from alps.bench.pipeline.published import BATCH, FINER, MAX_AREA, network_input
from alps.engine.base.progress import Progress
from alps.engine.images.raster import RasterReader
from alps.engine.images.windows import cores
from alps.engine.labels.writer import LabelMapWriter, label_dtype
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan, PlannedTile
from alps.engine.run_folder.segment_store import SegmentStore
from alps.engine.run_folder.tables import read_table
from alps.engine.sam import Sam
from alps.kernels.masks import coco
from alps.kernels.masks.pixels import masks_of

Encode = Callable[[Sam, PlannedTile], Tensor]
MASKS_AT_ONCE = 16  # bounds memory: a mask on the network's input is 4 MB
COLUMNS = ("segment_id", "counts")


def label_published(
    run: RunFolder, model: Sam, out: Path, clusters: int, seed: int, *, mended: bool = False
) -> Path:
    """Write a label map for every source of a run below ``out``/labels; returns ``out``.

    mended: the image is encoded as the encoder was trained. The recipe's features are kept beside
    the run for the next seed.
    """
    plan = Plan.of(run)
    encode = _encode if mended else _encode_again
    kept = run.root / f"{'mended' if mended else 'published'}_features.npz"
    if not kept.exists():
        shards = range(plan.shards)
        tables = [_features_of_shard(run, plan, shard, model, encode) for shard in shards]
        rows, features = (np.concatenate(parts) for parts in zip(*tables, strict=True))
        part = kept.with_suffix(".part.npz")
        np.savez(part, rows=rows, features=features)
        part.rename(kept)
    with np.load(kept) as data:
        rows, features = data["rows"], data["features"]  # (n, 2) tile and segment id, (n, C)
    kmeans = MiniBatchKMeans(clusters, random_state=seed, n_init=1)
    for start in range(0, len(features), BATCH):
        batch = features[start : start + BATCH]
        if len(batch) >= clusters:  # the first and the last batch alone could be too small
            kmeans.partial_fit(batch)
    classes = kmeans.predict(features)
    store = SegmentStore(run, COLUMNS)
    for tiles in plan.sources():
        if not tiles[0].reason:
            _paint_source(store, tiles, rows, classes, out, clusters)
    return out


def published_embeddings(embedding: Tensor, masks: Tensor) -> Tensor:
    """Embedding (1, C, s, s) and masks (n, 1, S, S) on the padded input -> (n, C) float32.

    What `mean_of_products` gives a mask, for many with one product of matrices: a product is zero
    where the mask is, as no value of an embedding is zero to the last bit.
    """
    side = masks.shape[-1] // FINER
    fine = F.interpolate(embedding, size=(side, side), mode="bilinear")[0].flatten(1)  # (C, pixels)
    small = F.interpolate(masks, size=(side, side), mode="bilinear").flatten(1)
    means = small @ fine.T / torch.count_nonzero(small, dim=1)[:, None]
    return torch.nan_to_num(means, nan=0.0)


def _features_of_shard(
    run: RunFolder, plan: Plan, shard: int, model: Sam, encode: Encode
) -> tuple[np.ndarray, np.ndarray]:
    """Tile and segment id (n, 2) and embedding (n, C) of a shard's masks that are not too large."""
    table = read_table(run.segments(shard), ["tile_id", "segment_id", "mask", "area", "counts"])
    names = ("tile_id", "segment_id", "mask", "area")
    ids, segment, mask, areas = (table.column(name).to_numpy() for name in names)
    rows = [np.zeros((0, 2), np.int64)]
    features = [np.zeros((0, model.config.embedding_channels), np.float32)]
    tiles = plan.tiles_of(shard)
    with Progress(len(tiles), "tiles", f"encoding shard {shard} again") as progress:
        for tile in tiles:
            small = areas <= MAX_AREA * tile.width * tile.height
            own = np.flatnonzero((ids == tile.tile_id) & (mask >= 0) & small)
            if len(own):
                embedding = encode(model, tile)
                side = model.config.image_size
                rows.append(np.stack([ids[own], segment[own]], axis=1))
                for start in range(0, len(own), MASKS_AT_ONCE):
                    masks = _masks(table, own[start : start + MASKS_AT_ONCE], tile)
                    inputs = [network_input(mask.astype(np.float32), side) for mask in masks]
                    found = published_embeddings(embedding, torch.cat(inputs))
                    features.append(found.numpy())
            progress.advance(1)
    return np.concatenate(rows), np.concatenate(features)


def _masks(table: pa.Table, rows: np.ndarray, tile: PlannedTile) -> np.ndarray:
    """(n, H, W) bool."""
    counts = table.column("counts").take(pa.array(rows)).to_pylist()
    return masks_of(coco.decode(counts, (tile.height, tile.width)))


def _encode_again(model: Sam, tile: PlannedTile) -> Tensor:
    """The embedding (1, C, s, s) of blue, green, red in 0...1, padded with zeros."""
    image = np.ascontiguousarray(_rgb(tile)[..., ::-1])
    with torch.inference_mode():
        return model.encode(network_input(image, model.config.image_size))


def _encode(model: Sam, tile: PlannedTile) -> Tensor:
    """The embedding (1, C, s, s) of the image as the encoder was trained to see it."""
    image, side = _rgb(tile), model.config.image_size
    height, width = (round(length * side / max(image.shape[:2])) for length in image.shape[:2])
    rgb = 255 * network_input(image, side)[..., :height, :width]
    with torch.inference_mode():
        return model.encode(model.normalise(rgb))


def _rgb(tile: PlannedTile) -> np.ndarray:
    with RasterReader(tile.path) as reader:
        return reader.read(tile.window).rgb


def _paint_source(
    store: SegmentStore,
    tiles: list[PlannedTile],
    rows: np.ndarray,
    classes: np.ndarray,
    out: Path,
    clusters: int,
) -> None:
    """One label map, put together from its windows without their overlaps."""
    first = tiles[0]
    labels = np.zeros((first.source_height, first.source_width), label_dtype(clusters))
    for tile, core in zip(tiles, cores([tile.window for tile in tiles]), strict=True):
        window = _paint_window(store, tile, rows, classes)
        top, left = core.y - tile.y, core.x - tile.x
        labels[core.y : core.y + core.height, core.x : core.x + core.width] = window[
            top : top + core.height, left : left + core.width
        ]
    with (
        RasterReader(first.path) as reader,
        LabelMapWriter.like(reader, out / "labels" / first.label, clusters) as writer,
    ):
        writer.write_rows(0, labels)


def _paint_window(
    store: SegmentStore, tile: PlannedTile, rows: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    labels = np.zeros((tile.height, tile.width), np.uint16)
    own = np.flatnonzero(rows[:, 0] == tile.tile_id)
    if len(own):
        # Names are sorted here; the recipe takes them as the file system hands them out.
        own = own[np.argsort([f"{rows[i, 1]}.png" for i in own], kind="stable")]
        table = store.of_tile(tile.tile_id)
        at = np.searchsorted(table.column("segment_id").to_numpy(), rows[own, 1])
        for row, mask in zip(own, _masks(table, at, tile), strict=True):
            labels[mask] = classes[row]
    return labels
