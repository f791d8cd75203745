"""Cuts a benchmark's images and labels into crops, in mmseg's layout.

    OUT/img_dir/{train,val}/NAME_X_Y.png     8-bit RGB
    OUT/ann_dir/{train,val}/NAME_X_Y.png     class ids 0, 1, 2, …; 255: no class
    OUT/dataset.json                         names of the classes

X and Y are where the crop lies in its image. An image is done when its line stands in OUT's
journal; a killed run goes on with the next one. Memory holds one crop of an image at a time.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from alps.engine.base.atomic import whole, write_text
from alps.engine.base.errors import RunFolderError, SettingsError, SourceError
from alps.engine.base.lines import append_line, open_journal, read_lines
from alps.engine.base.progress import Progress
from alps.engine.base.records import Count, Name, read_record
from alps.engine.images.raster import RasterReader
from alps.engine.images.windows import Window
from alps.engine.labels.palette import palette
from alps.engine.labels.writer import LabelMapWriter
from alps.trainer.benchmarks.known import (
    BENCHMARKS,
    Benchmark,
    Found,
    match,
)
from alps.trainer.data.find import Problem
from alps.trainer.data.labels import LabelReader, strips
from alps.trainer.data.report import describe

SUFFIXES = (".png", ".tif", ".tiff")
SHOWN = 5  # problems of a kind


@dataclass(frozen=True)
class Prepared:
    """Crops by split, and files left out because they have no counterpart."""

    crops: dict[str, int]
    alone: tuple[Path, ...]


def prepare(
    name: str, src: str | Path, out: str | Path, crop: int | None = None, stride: int | None = None
) -> Prepared:
    """Cut all of a benchmark that lies below ``src``.

    crop, stride: in pixels; None: what is usual for it.

    Raises:
        SettingsError: no such benchmark, or sizes that cannot work.
        SourceError: files are missing, or do not fit together, or cannot be read: all such pairs
            are reported, and nothing of them is written.
        RunFolderError: ``out`` holds something else, or cannot be written.
    """
    if name not in BENCHMARKS:
        raise SettingsError(f"{name}: give one of {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    benchmark = replace(benchmark, crop=crop or benchmark.crop, stride=stride or benchmark.stride)
    if not 1 <= benchmark.stride <= benchmark.crop:
        raise SettingsError(
            f"--stride {benchmark.stride}: must be from 1 to --crop {benchmark.crop}"
        )
    src, out = Path(src), Path(out)
    pairs, alone = _find(benchmark, src)
    problems: list[Problem] = []
    journal = _open_out(out, benchmark)
    done = _finished(journal)
    with (
        Progress(len(pairs), "images", f"cutting {benchmark.title}") as progress,
        open_journal(journal) as lines,
    ):
        for image, label in pairs:
            key = f"{image.split}/{image.name}"
            if key not in done:
                found = _cut(benchmark, image, label, out)
                if isinstance(found, Problem):
                    problems.append(found)
                else:
                    done[key] = Finished(key, image.split, found)
                    append_line(lines, vars(done[key]))
            progress.advance()
    if problems:
        print("\n".join(describe(problems, most=SHOWN)), file=sys.stderr)
        raise SourceError(
            f"{len(problems)} problems with {benchmark.title} in {src}, listed above; mend them "
            "and give the same command again: what is done is kept"
        )
    crops: dict[str, int] = {}
    for line in done.values():
        crops[line.split] = crops.get(line.split, 0) + line.crops
    return Prepared(crops, tuple(alone))


@dataclass(frozen=True)
class Finished:
    """An image of which all crops are written."""

    image: Name  # with its split before it
    split: Name
    crops: Count


def starts(length: int, crop: int, stride: int) -> list[int]:
    """Where crops begin on an axis: every ``stride`` pixels, the last one moved back inside."""
    if length <= crop:
        return [0]
    return sorted({min(start, length - crop) for start in range(0, length - crop + stride, stride)})


def _find(benchmark: Benchmark, src: Path) -> tuple[list[tuple[Found, Found]], list[Path]]:
    """Pairs of image and labels, and files that have no counterpart.

    Those are no fault: labels of some test images are not public, and Vaihingen's complete ones
    have an area more than its images.
    """
    if not src.is_dir():
        raise SourceError(f"{src} is not a folder; give the folder of the unpacked download")
    images: dict[tuple[str, str], tuple[int, Found]] = {}
    labels: dict[tuple[str, str], tuple[int, Found]] = {}
    for path in sorted(src.rglob("*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        for patterns, found in ((benchmark.images, images), (benchmark.labels, labels)):
            hit = match(benchmark, patterns, path.relative_to(src).as_posix())
            if hit is not None:
                rank, name, split = hit
                known = found.get((split, name))
                if known is None or rank < known[0]:
                    found[split, name] = rank, Found(name, split, path)
                elif rank == known[0]:
                    others = (*known[1].others, path)
                    found[split, name] = rank, replace(known[1], others=others)
    pairs = [(image, labels[key][1]) for key, (_, image) in sorted(images.items()) if key in labels]
    if not pairs:
        lacks = "image" if not images else "label image"
        raise SourceError(
            f"{src} holds no {lacks} named as in {benchmark.title}'s download; unpack its archives "
            "there, and keep their folders' and files' names"
        )
    alone = [found.path for key, (_, found) in images.items() if key not in labels]
    alone += [found.path for key, (_, found) in labels.items() if key not in images]
    return pairs, alone


def _open_out(out: Path, benchmark: Benchmark) -> Path:
    """Make OUT's folders and its dataset.json; returns the journal."""
    # Labels are written as class numbers, whatever they were.
    rules = replace(benchmark.rules, palette=None, ignore_colours=(), reduce_zero=False)
    about = {"benchmark": benchmark.title, "crop": benchmark.crop, "stride": benchmark.stride}
    note = out / "prepared.json"
    try:
        for kind in ("img_dir", "ann_dir"):
            for split in ("train", "val"):
                (out / kind / split).mkdir(parents=True, exist_ok=True)
        if not note.exists():
            if any((out / "img_dir").rglob("*.png")):
                raise RunFolderError(f"{out} holds other crops already; give a new folder as OUT")
            rules.save(out)
            write_text(note, json.dumps(about, indent=1) + "\n")
        elif read_record(note, dict[str, Any], RunFolderError, "give a new folder as OUT") != about:
            raise RunFolderError(f"{out} holds crops cut otherwise; see its prepared.json")
    except OSError as error:
        raise RunFolderError(f"cannot write to {out}: {error.strerror or error}") from error
    return out / "prepared.jsonl"


def _finished(journal: Path) -> dict[str, "Finished"]:
    """Images that are done; what is no whole line of the journal is done again."""
    return {line.image: line for line in read_lines(journal, Finished) if line is not None}


def _cut(benchmark: Benchmark, image: Found, label: Found, out: Path) -> int | Problem:
    """Write the crops of a pair: their number, or what is wrong with it.

    Labels that are wrong in one folder of a download may be right in another: of Potsdam's 4_12
    the complete set has the photograph with the colours laid over it.
    """
    found = _cut_with(benchmark, image, label.path, out)
    if not isinstance(found, Problem):
        return found
    for other in label.others:
        again = _cut_with(benchmark, image, other, out)
        if not isinstance(again, Problem):
            print(f"{label.path}: {found.text}; {other} is used instead", file=sys.stderr)
            return again
    return found


def _cut_with(benchmark: Benchmark, image: Found, label: Path, out: Path) -> int | Problem:
    """As ``_cut``, with one file of labels."""
    rules = benchmark.rules
    try:
        with RasterReader(image.path) as pixels, LabelReader(label, rules, pixels) as labels:
            if labels.size != (pixels.width, pixels.height):
                text = f"{pixels.width} x {pixels.height} pixels, its labels {labels.size}"
                return Problem("sizes differ", str(image.path), text)
            windows = list(_windows(benchmark, pixels.width, pixels.height))
            # All are looked at before the first one is written, no pixel twice: crops overlap.
            for strip in strips(pixels.width, pixels.height, 1):
                labels.read(strip)
            complaint = labels.complaint()
            if complaint is not None:
                return Problem(complaint[0], str(label), complaint[1])
            for window in windows:
                name = f"{image.name}_{window.x}_{window.y}.png"
                _write_image(out / "img_dir" / image.split / name, pixels.read(window).rgb)
                ids = labels.read(window)
                place = out / "ann_dir" / image.split / name
                colours = palette(len(rules.classes)) if rules.palette is None else rules.palette
                with LabelMapWriter(
                    place, window.width, window.height, np.array(colours, np.uint8)
                ) as writer:
                    writer.write_rows(0, ids)
        return len(windows)
    except SourceError as error:
        return Problem("unreadable", str(image.path), str(error))


def _windows(benchmark: Benchmark, width: int, height: int) -> Iterator[Window]:
    crop, stride = benchmark.crop, benchmark.stride
    for y in starts(height, crop, stride):
        for x in starts(width, crop, stride):
            yield Window(x, y, min(crop, width), min(crop, height))


def _write_image(path: Path, rgb: np.ndarray) -> None:
    done, encoded = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise RunFolderError(f"cannot encode {path}")
    with whole(path) as part:
        part.write_bytes(encoded.tobytes())
