"""Decodes one pair of image and labels strip by strip, and says what is wrong with it."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import SourceError
from alps.engine.base.records import BadRecordError, Count, as_record, parse_record, read_small
from alps.engine.images.raster import RasterReader
from alps.trainer.data.arrays import (
    CachedPair,
    edges,
    mapped,
    new_array,
    sums_of,
)
from alps.trainer.data.find import DataSet, Pair, Problem
from alps.trainer.data.labels import LabelReader, strips
from alps.trainer.data.regions import RegionTargets
from alps.trainer.data.rules import MOST_CLASSES, LabelRules
from alps.trainer.data.settings import DataSettings, PseudoSettings

ROWS = 1024  # of decoded arrays that are looked at together


@dataclass(frozen=True)
class PairRecord:
    """What became of a pair: an entry of the cache's index."""

    pair: CachedPair | None
    problems: tuple[Problem, ...]
    ignored: Count = 0


@dataclass(frozen=True)
class DecodeRequest:
    """What is to be decoded, and how."""

    data: DataSet
    settings: DataSettings
    cell: int  # side of the cells that labels are counted in, in pixels of the decoded images
    pseudo: PseudoSettings = field(default_factory=PseudoSettings)
    seed: int = 0
    splits: tuple[str, ...] = ("train", "test")


def decode_pair(
    request: DecodeRequest, targets: RegionTargets | None, pair: Pair, root: Path, stem: str
) -> dict[str, Any]:
    """Write the arrays of a pair, whole or not at all; returns its record for the index."""
    done = root / f"{stem}.json"
    if done.exists():
        try:
            record = parse_record(read_small(done), dict[str, Any])
            as_record(record, PairRecord)
            return record
        except (OSError, BadRecordError):
            pass  # it is decoded again
    try:
        record = _Decoding(request, targets, pair, root, stem).run()
    except SourceError as error:
        problem = Problem("unreadable", pair.name, str(error))
        record = {"pair": None, "problems": [asdict(problem)]}
    write_text(done, json.dumps(record))
    return record


class _Decoding:
    """One pair on its way into the cache."""

    def __init__(
        self,
        request: DecodeRequest,
        targets: RegionTargets | None,
        pair: Pair,
        root: Path,
        stem: str,
    ) -> None:
        self._request, self._targets, self._pair = request, targets, pair
        self._root, self._stem = root, stem
        self._rules, self._shrink = request.data.rules, request.settings.shrink

    def run(self) -> dict[str, Any]:
        pair = self._pair
        with (
            RasterReader(pair.image, self._request.data.reading) as image,
            LabelReader(pair.label, self._label_rules(), image) as labels,
        ):
            if labels.size != (image.width, image.height):
                text = "the image is {} x {} pixels, its labels are {} x {}".format(
                    image.width, image.height, *labels.size
                )
                return _bad("sizes differ", pair, text)
            width, height = image.width // self._shrink, image.height // self._shrink
            if not width or not height:
                return _bad("too small", pair, f"nothing is left with --shrink {self._shrink}")
            class_pixels = self._write(image, labels, width, height)
            complaint = labels.complaint()
        if complaint is not None:
            return _bad(complaint[0], pair, complaint[1])
        cached = CachedPair(
            pair.name, pair.scene, pair.split, str(pair.image), width, height,
            tuple(class_pixels.tolist()), self._cells(), self._stem,
            sums_of(self._root, self._stem),
        )  # fmt: skip
        return {"pair": asdict(cached), "problems": [], "ignored": labels.ignored}

    @property
    def _regions(self) -> RegionTargets:
        assert self._targets is not None  # they are given where the settings ask for them
        return self._targets

    def _label_rules(self) -> LabelRules:
        """Of the label file, of which a control learns only where it has no class."""
        if self._request.pseudo.painted != "masks":
            return self._rules
        many = tuple(str(index) for index in range(MOST_CLASSES))
        return replace(self._rules, classes=many)

    def _write(
        self, image: RasterReader, labels: LabelReader, width: int, height: int
    ) -> np.ndarray:
        """Write the arrays; returns pixels of each class, (C,) int64."""
        shape, pseudo = (height, width), self._request.pseudo
        unlabelled, empty = self._rules.unlabelled, self._label_rules().unlabelled
        dtype = np.uint8 if unlabelled == 255 else np.uint16
        counts = np.zeros(unlabelled + 1, np.int64)
        with ExitStack() as stack:
            pixels = stack.enter_context(new_array(self._file("pixels"), (*shape, 3), np.uint8))
            ids = stack.enter_context(new_array(self._file("labels"), shape, dtype))
            for window in strips(image.width, image.height, 16 * self._shrink):
                tile = image.read(window)
                decoded = labels.read(window)
                if pseudo.painted != "classes":
                    decoded = np.where(decoded == empty, unlabelled, 0).astype(dtype)
                decoded[~tile.valid] = unlabelled  # nodata teaches nothing
                _put(pixels, window.y // self._shrink, self._small_image(tile.rgb))
                _put(ids, window.y // self._shrink, self._small(decoded))
            if pseudo.painted != "classes":
                for y, strip in self._aligned(self._regions.labels(self._pair.source_index)):
                    place = ids[y : y + len(strip)]
                    seen = place != unlabelled
                    np.copyto(place, strip[: len(place)], where=seen, casting="same_kind")
            if pseudo.margin_weight or pseudo.margin_cut > 0:
                weights = stack.enter_context(new_array(self._file("weights"), shape, np.uint8))
                for y, strip in self._aligned(self._regions.weights(self._pair.source_index)):
                    _put(weights, y, strip)
                    place = ids[y : y + len(strip)]
                    place[strip[: len(place)] == 0] = unlabelled
            if pseudo.with_regions:
                numbers = stack.enter_context(new_array(self._file("regions"), shape, np.int32))
                for y, strip in self._aligned(self._regions.numbers(self._pair.source_index)):
                    _put(numbers, y, strip)
                of_region = self._regions.objects(self._pair.source_index)
                objects = new_array(self._file("objects"), of_region.shape, np.int32)
                stack.enter_context(objects)[:] = of_region
            if "vectors" in pseudo.names:
                found = self._regions.vectors(self._pair.source_index)
                vectors = new_array(self._file("vectors"), found.shape, np.float16)
                stack.enter_context(vectors)[:] = found
            for top in range(0, height, ROWS):
                counts += np.bincount(ids[top : top + ROWS].ravel(), minlength=len(counts))
        return counts[: len(self._rules.classes)]

    def _small_image(self, rgb: np.ndarray) -> np.ndarray:
        rows, columns = rgb.shape[0] // self._shrink, rgb.shape[1] // self._shrink
        if self._shrink == 1 or not rows:
            return rgb[:rows]
        rgb = rgb[: rows * self._shrink, : columns * self._shrink]
        return cv2.resize(rgb, (columns, rows), interpolation=cv2.INTER_AREA)

    def _small(self, values: np.ndarray) -> np.ndarray:
        """The middle one of each block of pixels that become one."""
        rows, columns = values.shape[0] // self._shrink, values.shape[1] // self._shrink
        middle = self._shrink // 2
        return values[middle :: self._shrink, middle :: self._shrink][:rows, :columns]

    def _aligned(
        self, painted: Iterator[tuple[int, np.ndarray]]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Painted strips made small, cut anew so that whole blocks of pixels become one."""
        held = None
        for y, strip in painted:
            held = strip if held is None else np.concatenate([held, strip])
            top = y + len(strip) - len(held)
            full = len(held) // self._shrink * self._shrink
            yield top // self._shrink, self._small(held[:full])
            held = held[full:]

    def _file(self, kind: str) -> Path:
        return self._root / f"{self._stem}.{kind}.npy"

    def _cells(self) -> tuple[tuple[int, ...], ...]:
        """Pixels with a class in each cell."""
        ids = mapped(self._file("labels"))
        rows, columns = (edges(length, self._request.cell) for length in ids.shape)
        has_class = [
            (ids[top:bottom] != self._rules.unlabelled).sum(axis=0, dtype=np.int64)
            for top, bottom in pairwise(rows)
        ]
        return tuple(tuple(np.add.reduceat(row, columns[:-1]).tolist()) for row in has_class)


def _put(array: np.ndarray, y: int, strip: np.ndarray) -> None:
    array[y : y + len(strip)] = strip[: max(0, len(array) - y)]


def _bad(kind: str, pair: Pair, text: str) -> dict[str, Any]:
    return {"pair": None, "problems": [asdict(Problem(kind, pair.name, text))]}
