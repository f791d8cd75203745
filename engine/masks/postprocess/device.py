"""What follows the masks on a GPU: a batch's tiles in one launch a step, and one copy back.

Pixels, boxes, runs, codes and colours are those of the CPU to the bit; mean embeddings are so but
for the order of a sum. Nothing is read back before the end, so sizes are fixed: a tile that has
more than there is room for says so with its record, and is computed again image by image.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alps.engine.masks.crops import Crop, crop_kind
from alps.engine.masks.generator import MaskGenerator, Segments, StageClock
from alps.engine.masks.postprocess import record as records
from alps.engine.masks.postprocess.arrays import current
from alps.engine.masks.postprocess.host import HostPostprocessor
from alps.engine.masks.postprocess.protocol import Pending, ToSegment
from alps.engine.masks.postprocess.record import Extent, Record, Room
from alps.engine.pipeline.line import raise_if_over
from alps.engine.runtimes.full_float32 import full_float32
from alps.engine.runtimes.protocol import DecodedMasks
from alps.kernels.colour import LAB_UNIT, moments_of

if TYPE_CHECKING:
    from alps.engine.masks.postprocess.steps import Steps

OUTPUTS = 3  # masks a point


@dataclass
class _Batch:
    """Tiles that were computed together, and their records once they are there."""

    record: Record
    copy: Tensor  # (B, bytes) uint8, the host's
    ready: "torch.cuda.Event | None"
    began: float
    seconds: float = 0.0  # from the last mask to the end, of each tile
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, tile: int) -> dict[str, np.ndarray]:
        """A tile's fields; waits for them."""
        with self.lock:
            if self.ready is not None:
                self.ready.synchronize()
                self.ready = None
            if not self.seconds:
                self.seconds = (time.perf_counter() - self.began) / len(self.copy)
        return self.record.arrays(self.copy[tile])


@dataclass
class _Tile:
    """A tile of a batch."""

    image: ToSegment
    points: np.ndarray  # (N, 2) x, y that were asked, in pixels
    clock: StageClock = field(default_factory=StageClock)
    masks: int = 0  # of them, of which the predicted IoU passed
    is_whole: bool = True  # there was room for all of them


class DevicePostprocessor:
    """All of a batch on the device that the embeddings lie on.

    Args:
        generator: everything mode, on whole images alone; ``can_follow`` says whether it is.
        rest_cells: as of ``MaskGenerator.segment``.
        at_once: tiles of a batch.
        room: for each of them; None: for as many masks as can be.
    """

    def __init__(
        self, generator: MaskGenerator, rest_cells: int, at_once: int, room: Room | None = None
    ) -> None:
        self._generator, self._rest_cells = generator, rest_cells
        self._host = HostPostprocessor(generator, rest_cells)
        self.at_once = at_once
        points = len(generator.settings.grid(0))
        self._room = room or Room(masks=OUTPUTS * points)
        self._steps: Steps | None = None
        self._one = threading.RLock()  # who runs the network

    def find(self, images: Sequence[ToSegment]) -> list[Pending]:
        """See ``Postprocessor``."""
        found: list[Pending] = []
        with self._one:
            for first in range(0, len(images), self.at_once):
                found += self._find(images[first : first + self.at_once])
        return found

    @torch.inference_mode()
    def _find(self, images: Sequence[ToSegment]) -> list[Pending]:
        images = [self._encoded(image) for image in images]
        with current(_place_of(images[0])):
            return self._follow(images, self._steps_for(images))

    def _follow(self, images: Sequence[ToSegment], steps: "Steps") -> list[Pending]:
        tiles = [_Tile(image, self._points(image)) for image in images]
        steps.begin(images)
        together = self._decoded_together(tiles)
        for number, tile in enumerate(tiles):
            batches = None if together is None else iter([together[number]])
            self._decode(tile, number, steps, batches)
        began = time.perf_counter()
        with full_float32():
            copy, ready = steps.finish(
                [tile.masks for tile in tiles],
                [tile.image.gate for tile in tiles],
                [image.embeddings[0] for image in images if image.embeddings],
            )
        batch = _Batch(steps.record, copy[: len(tiles)], ready, began)
        return [_OnDevice(self, tile, batch, number) for number, tile in enumerate(tiles)]

    def _encoded(self, image: ToSegment) -> ToSegment:
        if image.embeddings is not None:
            return image
        return replace(image, embeddings=self._generator.embed([image.rgb])[0])

    def _steps_for(self, images: Sequence[ToSegment]) -> "Steps":
        """Room for tiles as large as these; what was made for larger ones fits."""
        height = max(image.rgb.shape[0] for image in images)
        width = max(image.rgb.shape[1] for image in images)
        if self._steps is None or not self._steps.extent.holds(height, width):
            extent = Extent(self.at_once, height, width)
            if self._steps is not None:
                extent = self._steps.extent.joined(height, width)
            self._steps = None  # its memory is free before the next is asked for
            # Numba's CUDA target is looked for where there is a use for it, and not before.
            from alps.engine.masks.postprocess.steps import Steps

            self._steps = Steps(
                self._generator, self._room, self._rest_cells, extent, _place_of(images[0])
            )
        return self._steps

    def _points(self, image: ToSegment) -> np.ndarray:
        return self._generator.points(self._whole(image), image.gate)

    def _whole(self, image: ToSegment) -> Crop:
        height, width = image.rgb.shape[:2]
        return crop_kind(self._generator.runtime.config)(0, 0, width, height, 0)

    def _decoded_together(self, tiles: Sequence[_Tile]) -> list[DecodedMasks] | None:
        """Masks of all tiles, decoded at once in as many places as ever; None: one by one."""
        began = time.perf_counter()
        none = np.zeros((0, 2)), self._whole(tiles[0].image)
        asked = [
            (tile.image.embeddings[0], tile.points, self._whole(tile.image))
            if tile.image.embeddings is not None and len(tile.points)
            else (None, *none)
            for tile in tiles
        ]
        asked += [(None, *none)] * (self.at_once - len(tiles))
        found = self._generator.decode_batch(asked)
        for tile in tiles if found is not None else ():
            tile.clock.seconds["decode"] += (time.perf_counter() - began) / len(tiles)
        return found

    def _decode(
        self, tile: _Tile, number: int, steps: "Steps", batches: Iterator[DecodedMasks] | None
    ) -> None:
        """Measure a tile's masks, as they come from the decoder if there are none yet."""
        embeddings = tile.image.embeddings
        if not len(tile.points) or embeddings is None:
            return
        if batches is None:
            batches = self._generator.decode(embeddings[0], tile.points, self._whole(tile.image))
        while True:
            raise_if_over()
            with tile.clock.timing("decode"):
                decoded = next(batches, None)
            if decoded is None:
                return
            with tile.clock.timing("filter"):
                tile.is_whole = tile.is_whole and steps.take(number, tile.masks, decoded)
                tile.masks += len(decoded.predicted_iou)

    def again(self, image: ToSegment) -> Segments:
        """Image by image, where there was no room."""
        with self._one:
            return self._host.find_one(image).segments()

    def segments_of(self, tile: _Tile, fields: dict[str, np.ndarray], seconds: float) -> Segments:
        """Segments of a tile, from its record."""
        stay = int(fields["facts"][records.STAY])
        kept = len(fields["kept"])
        area = fields["extent"][:, 0]
        rest = kept + np.flatnonzero(area[kept:] > 0)
        which = np.concatenate([np.arange(stay), rest])
        mask = np.where(which < kept, which, -1).astype(np.int32)
        box = fields["extent"][which, 1:].astype(np.int64)
        first, last = box[:, :2], box[:, 2:]
        starts, codes = fields["code_starts"], fields["codes"]
        points = np.full((len(which), 2), np.nan, np.float32)
        points[:stay] = tile.points[fields["point"][:stay]]
        colours = moments_of(fields["sums"][which].reshape(-1, 2, 3), area[which].astype(np.int64))
        tile.clock.seconds["filter"] += seconds
        return Segments(
            size=tile.image.rgb.shape[:2],
            counts=[codes[starts[i] : starts[i + 1]].tobytes() for i in which],
            boxes=np.concatenate([first, last - first + 1], axis=1).astype(np.int32),
            area=area[which].copy(),
            predicted_iou=_of_masks(fields["predicted_iou"][:stay], len(which)),
            stability_score=_of_masks(fields["stability"][:stay], len(which)),
            points=points,
            embeddings=fields["embeddings"][which].astype(np.float32),
            centres=((first + last + 1) / 2).astype(np.float32),
            mask=mask,
            colours=colours * np.float32(LAB_UNIT),
            covered=int(fields["facts"][records.COVERED]),
            prompted=len(tile.points),
            seconds=tile.clock.seconds,
        )


@dataclass(frozen=True)
class _OnDevice:
    """A tile's segments, in the record of its batch."""

    processor: DevicePostprocessor
    tile: _Tile
    batch: _Batch
    number: int

    def segments(self) -> Segments:
        """See ``Pending``."""
        fields = self.batch.of(self.number)
        if not self.tile.is_whole or not records.no_flags(fields["facts"]):
            return self.processor.again(self.tile.image)
        return self.processor.segments_of(self.tile, fields, self.batch.seconds)


def can_follow(generator: MaskGenerator) -> bool:
    """Whether a device can do what follows: crops, points that depend on masks, and small regions
    are done image by image.
    """
    settings = generator.settings
    return (
        settings.crop_n_layers == 0
        and settings.min_mask_region_area == 0
        and not generator.coarse_to_fine
    )


def _place_of(image: ToSegment) -> torch.device:
    """Where the embeddings of an image lie."""
    assert image.embeddings is not None
    return image.embeddings[0].device


def _of_masks(values: np.ndarray, count: int) -> np.ndarray:
    """Values of masks, and zeros for what lies under none."""
    return np.concatenate([values, np.zeros(count - len(values), values.dtype)])
