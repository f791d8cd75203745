"""The steps of a batch on a GPU, and the memory that they keep from one batch to the next."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alps.engine.masks.crops import crop_kind
from alps.engine.masks.gate import Gate
from alps.engine.masks.generator import MaskGenerator
from alps.engine.masks.postprocess.arrays import WORDS, shown, stream_of
from alps.engine.masks.postprocess.protocol import ToSegment
from alps.engine.masks.postprocess.record import (
    COVERED,
    FLAGS,
    NO_CELL,
    NO_NUMBER,
    STAY,
    TOO_LONG_CODES,
    TOO_MANY_MASKS,
    TOO_MANY_RUNS,
    Extent,
    Record,
    Room,
)
from alps.engine.runtimes.protocol import DecodedMasks
from alps.kernels.colour import gpu as colour
from alps.kernels.colour import lab_table
from alps.kernels.masks.gpu import count_changes, count_codes, rest_of, write_changes, write_codes
from alps.kernels.masks.words import packed, words_of
from alps.kernels.nms import gpu as nms
from alps.kernels.pool import gpu as pool
from alps.kernels.pool.rules import grid_of
from alps.kernels.upscale import gpu as upscale
from alps.kernels.upscale.rules import Cuts
from alps.kernels.upscale.taps import taps_of

GEOMETRIES = 16  # kept: of batches of whole tiles, and of those at the edges of sources


@dataclass(frozen=True)
class _Geometry:
    """Where pixels of a batch's tiles lie among logits and cells; arrays for kernels."""

    taps: upscale.TileTaps
    grids: pool.TileGrids
    kept: list[Tensor]  # the memory that they lie in


@dataclass(frozen=True)
class _Part:
    """Masks as the decoder handed them out; arrays for kernels."""

    logits: Any
    reach: Any
    place: Any
    kept: list[Tensor]  # the memory that they lie in


class Steps:
    """A batch of tiles, from logits to records: ``begin``, ``take`` for all masks, ``finish``.

    Args:
        generator: everything mode, on whole images.
        room: of a tile.
        rest_cells: as of ``MaskGenerator.segment``.
        extent: of the tiles.
        device: where all of it lies; the CPU is for Numba's simulator.
    """

    def __init__(
        self,
        generator: MaskGenerator,
        room: Room,
        rest_cells: int,
        extent: Extent,
        device: torch.device,
    ) -> None:
        config = generator.runtime.config
        self.extent, self._device, self._config = extent, device, config
        self._settings = generator.settings
        self._cuts = Cuts.of(
            generator.settings.threshold, generator.settings.stability_score_offset
        )
        self._rest_cells = rest_cells
        tiles, height, width = extent.tiles, extent.height, extent.width
        words, cells = words_of(height), config.embedding_size
        rest = rest_cells * rest_cells
        seats, masks = room.kept + rest, room.masks
        self._room = room
        self.record = Record(room, rest, config.embedding_channels)
        self._records = self._new(torch.uint8, tiles, self.record.bytes)
        self._fields = self.record.views(self._records)
        self._rgb = self._new(torch.uint8, tiles, height, width, 3)
        self._lab = self._new(torch.int16, tiles, height, width, 3)
        self._valid = self._new(WORDS, tiles, words, width)
        self._measures = self._new(torch.int32, tiles, masks, upscale.MEASURES)
        self._nothing = self._put(upscale.no_measures(1, 1))
        self._iou = self._new(torch.float32, tiles, masks)
        self._point = self._new(torch.int64, tiles, masks)
        self._seat = self._new(torch.int32, tiles, masks)
        nms_words = nms.words_of(masks)
        self._between = (
            self._new(torch.float32, tiles, 5, masks),
            self._new(torch.int64, tiles, masks, nms_words),
            self._new(torch.int64, tiles, nms_words),
        )
        self._bits = self._new(WORDS, tiles, seats, words, width)
        self._changes = self._new(torch.int32, tiles, seats, width)
        self._totals = self._new(torch.int32, tiles, seats)
        self._starts = self._new(torch.int64, tiles, seats + 1)
        self._places = self._new(torch.int32, tiles, room.runs)
        self._code_sizes = self._new(torch.int32, tiles, seats)
        self._gain = self._new(torch.int64, tiles, seats, cells + 2, cells)
        self._shares = self._new(torch.float32, tiles, seats, cells, cells)
        self._geometries: OrderedDict[tuple, _Geometry] = OrderedDict()
        self._geometry: _Geometry | None = None
        self._parts: list[_Part] = []

    def _new(self, dtype: torch.dtype, *shape: int) -> Tensor:
        if dtype == WORDS:  # of which PyTorch knows the memory, and few operators
            return torch.zeros(shape, dtype=torch.int32, device=self._device).view(WORDS)
        return torch.zeros(shape, dtype=dtype, device=self._device)

    def _put(self, array: np.ndarray) -> Tensor:
        """A copy there. Of pinned memory, as PyTorch waits for the device after any other."""
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    def begin(self, images: Sequence[ToSegment]) -> None:
        """Bring the images of a batch there."""
        extent, pin = self.extent, self._device.type == "cuda"
        rgb = torch.empty(self._rgb.shape, dtype=torch.uint8, pin_memory=pin)
        valid = torch.zeros(self._valid.shape, dtype=torch.int32, pin_memory=pin)
        for tile, image in enumerate(images):
            height, width = image.rgb.shape[:2]
            rgb[tile, :height, :width] = torch.from_numpy(image.rgb)
            own = image.gate.valid
            own = packed(np.ones((height, width), bool) if own is None else own)
            valid[tile, : len(own), :width] = torch.from_numpy(own.view(np.int32))
        self._rgb.copy_(rgb, non_blocking=True)
        self._valid.view(torch.int32).copy_(valid, non_blocking=True)
        sizes = tuple(image.rgb.shape[:2] for image in images)
        sizes += ((0, 0),) * (extent.tiles - len(images))
        self._geometry = self._geometry_of(sizes)
        self._measures.copy_(self._nothing.expand_as(self._measures))
        self._parts.clear()

    def _geometry_of(self, sizes: tuple[tuple[int, int], ...]) -> _Geometry:
        if sizes not in self._geometries:
            while len(self._geometries) >= GEOMETRIES:
                self._geometries.popitem(last=False)
            self._geometries[sizes] = self._new_geometry(sizes)
        self._geometries.move_to_end(sizes)
        return self._geometries[sizes]

    def _new_geometry(self, sizes: tuple[tuple[int, int], ...]) -> _Geometry:
        config = self._config
        low, side, cells = config.low_resolution_size, config.image_size, config.embedding_size
        taps, grids = [], []
        for height, width in sizes:
            # A place without a tile has the geometry of one pixel, and no pixel.
            crop = crop_kind(config)(0, 0, max(width, 1), max(height, 1), 0)
            inner, full = crop.input_size(side), (max(height, 1), max(width, 1))
            square = crop.mask_side(side, low)
            rows, columns = (
                taps_of(low, square, part, whole)
                for part, whole in zip(crop.input_size(square), full, strict=True)
            )
            taps.append((rows, columns))
            scale = tuple(
                config.patch_size * whole / part for part, whole in zip(inner, full, strict=True)
            )
            grids.append(grid_of(full, (cells, cells), scale, (0, 0)))
        of_taps, of_grids = upscale.TileTaps.of(taps), pool.TileGrids.of(grids)
        of_taps.sizes[:, :2] = sizes
        kept = [
            self._put(array)
            for array in (
                of_taps.sizes,
                *(of_taps.first, of_taps.weights),
                *(of_grids.rows, of_grids.starts, of_grids.cell, of_grids.width),
            )
        ]
        arrays = [shown(tensor) for tensor in kept]
        return _Geometry(upscale.TileTaps(*arrays[:3]), pool.TileGrids(*arrays[3:]), kept)

    def take(self, tile: int, first: int, decoded: DecodedMasks) -> bool:
        """Measure masks of a tile, its ``first`` and those that follow; False: there is no room.

        Their logits are kept until ``finish``.
        """
        count = len(decoded.predicted_iou)
        last = first + count
        if last > self._room.masks:
            return False
        if not count:
            return True
        assert self._geometry is not None
        logits = decoded.logits.contiguous()
        place = torch.full((count, 2), tile, dtype=torch.int32, device=self._device)
        place[:, 1] = torch.arange(first, last, dtype=torch.int32, device=self._device)
        reach = torch.empty(count, logits.shape[2], 2, dtype=torch.int32, device=self._device)
        kept = [logits, reach, place]
        part = _Part(shown(logits), shown(reach), shown(place), kept)
        stream = stream_of(self._device)
        upscale.extents(part.logits, self._cuts.low, part.reach, stream)
        upscale.measure(
            part.logits, part.reach, part.place, self._geometry.taps, shown(self._valid),
            self._cuts, shown(self._measures), stream,
        )  # fmt: skip
        self._iou[tile, first:last] = decoded.predicted_iou
        self._point[tile, first:last] = decoded.point_index
        self._parts.append(part)
        return True

    def finish(
        self, counts: Sequence[int], gates: Sequence[Gate], embeddings: Sequence[Tensor]
    ) -> tuple[Tensor, "torch.cuda.Event | None"]:
        """All the rest, of the tiles in their order; nothing is waited for.

        Args:
            counts: masks that were taken of each.
            gates: which are wanted.
            embeddings: (C, h, w) float32 of each.

        Returns their records (B, bytes) uint8 in the host's memory, and when they are there.
        """
        facts = self._fields["facts"]
        facts.zero_()
        self._drop(counts, gates)
        self._write()
        self._describe()
        self._encode()
        self._pool(embeddings)
        self._parts.clear()
        on_gpu = self._device.type == "cuda"
        copy = torch.empty(self._records.shape, dtype=torch.uint8, pin_memory=on_gpu)
        copy.copy_(self._records, non_blocking=True)
        if not on_gpu:
            return copy, None
        ready = torch.cuda.Event()
        ready.record(torch.cuda.current_stream(self._device))
        return copy, ready

    def _flag(self, wrong: Tensor, flag: int) -> None:
        """Note in the records of tiles (B,) bool what went wrong."""
        self._fields["facts"][:, FLAGS] += wrong * flag

    def _drop(self, counts: Sequence[int], gates: Sequence[Gate]) -> None:
        """Gate, and duplicates: which masks have a seat."""
        measures, iou, fields = self._measures, self._iou, self._fields
        empty = [0] * (self.extent.tiles - len(counts))
        number = self._put(np.array([*counts, *empty], np.int64))
        limits = np.zeros((self.extent.tiles, 2))
        limits[: len(gates)] = [(gate.min_area, gate.max_area) for gate in gates]
        least, most = self._put(limits).unbind(1)
        slots = torch.arange(self._room.masks, device=self._device)
        there = slots < number[:, None]
        high, low, area = (measures[:, :, i] for i in (upscale.HIGH, upscale.LOW, upscale.AREA))
        passes = there & (area >= least[:, None]) & (area <= most[:, None])
        stability = high.float() / low.float()
        rule = np.float32(self._settings.stability_score_thresh)
        if rule > 0:
            passes &= stability >= float(rule)
        self._flag((there & ~iou.isfinite()).any(1), NO_NUMBER)
        score = torch.where(passes, iou, -torch.inf)
        order = score.sort(dim=1, descending=True, stable=True).indices
        passed = passes.sum(1, dtype=torch.int32)
        stay = torch.empty_like(passed)
        nms.box_nms(
            shown(measures[:, :, upscale.LEFT :]), shown(order), shown(passed),
            self._settings.box_nms_thresh, tuple(map(shown, self._between)),
            shown(fields["kept"]), shown(self._seat), shown(stay), stream_of(self._device),
        )  # fmt: skip
        fields["facts"][:, STAY] = stay
        self._flag(stay > self._room.kept, TOO_MANY_MASKS)
        kept = fields["kept"].clamp(min=0).long()
        fields["predicted_iou"].copy_(iou.gather(1, kept))
        fields["stability"].copy_(stability.gather(1, kept))
        fields["point"].copy_(self._point.gather(1, kept))

    def _write(self) -> None:
        """Bits of the masks that stay, and of what lies under none."""
        assert self._geometry is not None
        stream, taps = stream_of(self._device), self._geometry.taps
        bits, valid, seat = map(shown, (self._bits, self._valid, self._seat))
        for part in self._parts:
            upscale.write(
                part.logits, part.reach, part.place, taps, valid, self._cuts, seat, bits, stream
            )
        covered = torch.zeros(self.extent.tiles, dtype=torch.int32, device=self._device)
        stay = self._fields["facts"][:, STAY].contiguous()
        rest_of(bits, shown(stay), self._rest_cells, valid, taps.sizes, shown(covered), stream)
        self._fields["facts"][:, COVERED] = covered

    def _describe(self) -> None:
        """Areas, boxes and colours."""
        assert self._geometry is not None
        stream, fields = stream_of(self._device), self._fields
        extent, kept = fields["extent"], fields["kept"]
        colour.lab_of(shown(self._rgb), shown(_table_on(self._device)), shown(self._lab), stream)
        fields["sums"].zero_()
        extent.fill_(colour.FAR)
        extent[:, :, colour.AREA] = 0
        extent[:, :, colour.RIGHT :] = -1
        used = torch.ones(extent.shape[:2], dtype=torch.int32, device=self._device)
        used[:, : kept.shape[1]] = kept >= 0
        colour.add_colours(
            shown(self._bits), shown(used), self._geometry.taps.sizes, shown(self._lab),
            shown(fields["sums"]), shown(extent), stream,
        )  # fmt: skip

    def _encode(self) -> None:
        """Run lengths, and their codes."""
        assert self._geometry is not None
        stream, fields, sizes = stream_of(self._device), self._fields, self._geometry.taps.sizes
        bits, changes, places = map(shown, (self._bits, self._changes, self._places))
        starts, code_starts = self._starts, fields["code_starts"]
        used = shown(fields["extent"][:, :, colour.AREA])
        count_changes(bits, sizes, used, changes, shown(self._totals), stream)
        starts[:, 1:] = self._totals.cumsum(1)
        self._flag(starts[:, -1] > self._room.runs, TOO_MANY_RUNS)
        write_changes(bits, sizes, changes, shown(starts), places, stream)
        count_codes(places, shown(starts), shown(self._code_sizes), stream)
        code_starts[:, 0] = 0
        code_starts[:, 1:] = self._code_sizes.cumsum(1)
        self._flag(code_starts[:, -1] > self._room.code_bytes, TOO_LONG_CODES)
        write_codes(places, shown(starts), shown(code_starts), shown(fields["codes"]), stream)

    def _pool(self, embeddings: Sequence[Tensor]) -> None:
        """Mean embeddings: shares times embeddings, for which each tile's shapes are the same."""
        assert self._geometry is not None
        area = self._fields["extent"][:, :, colour.AREA]
        self._gain.zero_()
        pool.cell_shares(
            shown(self._bits), shown(area), self._geometry.taps.sizes, self._geometry.grids,
            shown(self._gain), shown(self._shares), stream_of(self._device),
        )  # fmt: skip
        weights = self._shares.flatten(2)
        # Whatever lies behind the embedding itself is for the decoder.
        channels = self._config.embedding_channels
        features = torch.zeros(len(weights), channels, weights.shape[2], device=self._device)
        for tile, embedding in enumerate(embeddings):
            features[tile] = embedding[:channels].flatten(1)
        total = weights.sum(2, dtype=torch.float64)
        self._flag(((total <= 0) & (area > 0)).any(1), NO_CELL)
        means = torch.bmm(weights, features.transpose(1, 2)) / total.clamp(min=1e-30)[:, :, None]
        self._fields["embeddings"].copy_(means)


@cache
def _table_on(device: torch.device) -> Tensor:
    """``lab_table`` on a device, 100 MB."""
    return torch.from_numpy(lab_table()).to(device)
