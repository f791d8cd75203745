"""The published recipe's way from masks to label maps, its faults included, to measure against.

Written anew from a description of the reference code of ALPS (arXiv 2406.10855):

- the image goes through SAM's encoder a second time, with blue and red exchanged and without the
  normalisation that the encoder was trained with;
- a mask's embedding is the sum of the products of mask and embedding, divided channel by channel
  by the number of products that are not zero;
- masks over 0.3 of the image are dropped;
- k-means sees each mask once, in the order of files, batch by batch;
- masks are painted in the order of their files' names, a later one over an earlier one, and a
  mask's pixels are 1 times its class: class 0 is what the background is.

Masks are those of a run folder, so what differs is what comes after them. The background counts as
a class of its own, which favours the recipe: no pixel is a miss for being unlabelled.
"""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch
from sklearn.cluster import MiniBatchKMeans

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

MAX_AREA = 0.3  # share of the image
BATCH = 1024
COLUMNS = ("segment_id", "counts")


def label_published(run: RunFolder, model: Sam, out: Path, clusters: int, seed: int) -> Path:
    """Write a label map for every source of a run below ``out``/labels; returns ``out``.

    The recipe's features are kept beside the run for the next seed.
    """
    plan = Plan.of(run)
    kept = run.root / "published_features.npz"
    if not kept.exists():
        tables = [_features_of_shard(run, plan, shard, model) for shard in range(plan.shards)]
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


def published_embeddings(embedding: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Embedding (C, h, w) and masks (n, H, W) bool -> (n, C) float32, as the recipe has it."""
    size = embedding.shape[:0:-1]
    means = np.zeros((len(masks), len(embedding)), np.float32)
    for index, mask in enumerate(masks):
        small = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
        products = embedding * small
        means[index] = products.sum((1, 2)) / np.maximum(np.count_nonzero(products, (1, 2)), 1)
    return means


def _features_of_shard(
    run: RunFolder, plan: pa.Table, shard: int, model: Sam
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
                masks = _masks(table, own, tile)
                embedding = _encode_unnormalised(model, tile)
                height, width = _input_size(tile, model.config.image_size)
                patch = model.config.patch_size
                used = embedding[:, : -(-height // patch), : -(-width // patch)]
                rows.append(np.stack([ids[own], segment[own]], axis=1))
                features.append(published_embeddings(used, masks))
            progress.advance(1)
    return np.concatenate(rows), np.concatenate(features)


def _masks(table: pa.Table, rows: np.ndarray, tile: PlannedTile) -> np.ndarray:
    counts = table.column("counts").take(pa.array(rows)).to_pylist()
    return masks_of(coco.decode(counts, (tile.height, tile.width)))


def _input_size(tile: PlannedTile, side: int) -> tuple[int, int]:
    scale = side / max(tile.height, tile.width)
    return round(tile.height * scale), round(tile.width * scale)


def _encode_unnormalised(model: Sam, tile: PlannedTile) -> np.ndarray:
    """The embedding (C, h, w) of blue, green, red in 0…255, padded with zeros."""
    side = model.config.image_size
    with RasterReader(tile.path) as reader:
        image = reader.read(tile.window).rgb[..., ::-1]
    height, width = _input_size(tile, side)
    resized = cv2.resize(np.ascontiguousarray(image), (width, height))
    pixels = np.zeros((side, side, 3), np.float32)
    pixels[:height, :width] = resized
    with torch.inference_mode():
        return model.encode(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()


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
