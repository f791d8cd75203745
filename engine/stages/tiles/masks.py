"""Tiles through everything mode: what of it is a device's, what the CPU's, and how both overlap.

On a device the tiles of a batch keep their places, whatever becomes of the others: what a GPU
computes of one depends on its place and on no neighbour, so a run that was stopped and goes on
computes the same. On a CPU each tile stays with one thread, and its PyTorch on one core.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from alps.engine.masks.generator import MaskGenerator, Segments
from alps.engine.masks.postprocess.choose import postprocessor_for
from alps.engine.masks.postprocess.protocol import Pending, ToSegment
from alps.engine.pipeline.line import Slots, Stage
from alps.engine.run_folder.schemas import segment_schema
from alps.engine.runtimes.cores import kernel_threads
from alps.engine.runtimes.protocol import Encoding
from alps.engine.settings import FilledSegmentSettings
from alps.engine.stages.tiles.reading import NO_PIXEL, ReadTile
from alps.kernels.base.threads import threads

# What lies under no mask has an embedding too: of cells, so many a side of a window.
REST_CELLS = 4
AT_DEVICE = 2  # batches: one that is computed, and one on its way there or back
PREPARING = 2  # threads that make a network's input of pixels
DESCRIBING = 8  # threads at most, beside a device


@dataclass(frozen=True)
class MadeTile:
    """What a tile came to."""

    row: dict[str, Any]  # of tiles.parquet
    segments: pa.Table
    read: ReadTile  # without its pixels

    @property
    def tile_id(self) -> int:
        """Its number in the plan."""
        return self.read.planned.tile_id


@dataclass
class Place:
    """A tile's place in a batch."""

    read: ReadTile | None = None  # None: nothing is to be made of it
    embeddings: list[Tensor] | None = None  # of its crops
    found: Pending | None = None
    encode_seconds: float = 0.0
    valid: int = field(init=False, default=0)  # pixels

    @property
    def rgb(self) -> np.ndarray | None:
        """Pixels (H, W, 3), where one of them is valid."""
        if not self.valid or self.read is None or self.read.tile is None:
            return None
        return self.read.tile.rgb

    def __post_init__(self) -> None:
        """Count its pixels."""
        if self.read is not None and self.read.tile is not None:
            self.valid = int(self.read.tile.valid.sum())


@dataclass
class Batch:
    """Tiles that follow each other in a shard, as many as a device takes at once."""

    places: list[Place]
    encodings: list[Encoding] = field(default_factory=list)  # of all places, a crop each

    @classmethod
    def of(cls, reads: Sequence[ReadTile | None], size: int) -> "Batch":
        """reads: by place; those that are missing at the end are empty."""
        return cls([Place(read) for read in reads] + [Place()] * (size - len(reads)))


class TileStages:
    """The stages that make rows and tables of batches.

    Args:
        generator: everything mode.
        settings: of the run.
        channels: of the model's embeddings.
    """

    def __init__(
        self, generator: MaskGenerator, settings: FilledSegmentSettings, channels: int
    ) -> None:
        self._generator, self._settings = generator, settings
        self._following = postprocessor_for(generator, REST_CELLS)
        self.schema = segment_schema(channels)

    def stages(self, tiles: int | None) -> tuple[list[Stage], list[Slots]]:
        """For a ``Line`` of batches; it gives lists of ``MadeTile``.

        tiles: how many there are in all, where that is known: few share the cores.
        """
        cores = threads()
        if self._generator.runtime.on_callers_cores:
            at_once = min(cores, tiles or cores)

            def whole(batch: Batch) -> list[MadeTile]:
                with kernel_threads(cores // at_once):
                    for step in (self.prepare, self.encode, self.find):
                        batch = step(batch)
                    return self.describe(batch)

            return [Stage("tiles", whole, at_once, ahead=at_once)], []

        def described(batch: Batch) -> list[MadeTile]:
            with kernel_threads(1):
                return self.describe(batch)

        stages = [
            Stage("prepare", self.prepare, PREPARING),
            Stage("encode", self.encode),
            Stage("find", self.find),
            Stage("describe", described, max(1, min(DESCRIBING, cores - 1))),
        ]
        return stages, [Slots("encode", "find", AT_DEVICE)]

    def prepare(self, batch: Batch) -> Batch:
        """The network's input of all places; on the caller's cores ``find`` sees to it for one."""
        images = [one.rgb for one in batch.places]
        if len(images) > 1 or not self._generator.runtime.on_callers_cores:
            batch.encodings = self._generator.encodings(images)
        return batch

    def encode(self, batch: Batch) -> Batch:
        """Embeddings of all places."""
        if not batch.encodings:
            return batch
        began = time.perf_counter()
        crops = [encode() for encode in batch.encodings]
        batch.encodings.clear()
        some = [number for number, place in enumerate(batch.places) if place.valid]
        for number in some:
            place = batch.places[number]
            assert place.rgb is not None
            own = crops[: len(self._generator.crops(place.rgb))]
            place.embeddings = [embeddings[number] for embeddings in own]
            place.encode_seconds = (time.perf_counter() - began) / len(some)
        return batch

    def find(self, batch: Batch) -> Batch:
        """Masks of each tile, and what follows them begun, where the runtime computes."""
        settings = self._settings
        places, images = [], []
        for place in batch.places:
            if place.valid and place.read is not None and place.read.tile is not None:
                tile = place.read.tile
                gate = self._generator.gate(
                    tile.rgb,
                    tile.valid,
                    max_area=settings.max_area,
                    min_area=settings.min_area,
                )
                places.append(place)
                images.append(ToSegment(tile.rgb, gate, place.embeddings))
                place.embeddings = None
        for place, found in zip(places, self._following.find(images), strict=True):
            place.found = found
        return batch

    def describe(self, batch: Batch) -> list[MadeTile]:
        """Rows and tables."""
        return [self._made(place) for place in batch.places if place.read is not None]

    def _made(self, place: Place) -> MadeTile:
        read, found = place.read, place.found
        assert read is not None
        tile, row, bare = read.tile, read.row(), replace(read, tile=None)
        if tile is None:
            return MadeTile(row, self.schema.empty_table(), bare)
        if found is None:
            return MadeTile(row | NO_PIXEL, self.schema.empty_table(), bare)
        segments = found.segments()
        # Segments and coverage are of SAM's masks, not of what lies under none.
        masks = int((segments.mask >= 0).sum())
        seconds = dict(segments.seconds)
        seconds["filter"] += seconds.pop("runs")
        seconds["encode"] += place.encode_seconds
        row |= {
            "status": "ok" if masks else "empty",
            "reason": "" if masks else "no mask passed the gate",
            "segments": masks,
            "points": segments.prompted,
            "valid_pixels": place.valid,
            "covered_pixels": segments.covered,
            **{f"{stage}_seconds": value for stage, value in seconds.items()},
        }
        return MadeTile(row, _segment_table(read.planned.tile_id, segments, self.schema), bare)


def _segment_table(tile_id: int, segments: Segments, schema: pa.Schema) -> pa.Table:
    count = len(segments)
    columns = {
        "tile_id": np.full(count, tile_id, dtype=np.int64),
        "segment_id": np.arange(count, dtype=np.int32),
        "mask": segments.mask,
        **{name: segments.boxes[:, i] for i, name in enumerate(("x", "y", "width", "height"))},
        "area": segments.area,
        "predicted_iou": segments.predicted_iou,
        "stability_score": segments.stability_score,
        "point_x": segments.points[:, 0],
        "point_y": segments.points[:, 1],
        "centre_x": segments.centres[:, 0],
        "centre_y": segments.centres[:, 1],
        "counts": segments.counts,
        "embedding": _lists(segments.embeddings),
        "colour": _lists(segments.colours),
    }
    return pa.table(columns, schema=schema)


def _lists(values: np.ndarray) -> pa.Array:
    """(n, C) as n lists of C float16."""
    flat = np.ascontiguousarray(values, dtype=np.float16).ravel()
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1])
