"""Decodes every pair of a data set once, and collects what is wrong with any of them.

A loader that decodes JPEG and PNG is what a GPU waits for. Here a crop of any size and place is a
slice of a file. One pass over DATA both writes the arrays and finds what is wrong with the pairs,
so that all of it is known before the first step. Memory is bounded by a few strips of an image;
the disk holds 4 bytes a pixel, 5 with weights, one more with more than 255 classes, and 4 more
where several targets are learnt.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alps.engine.base.atomic import write_text
from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.base.progress import Progress
from alps.engine.base.records import read_record
from alps.engine.images.archive import read_together
from alps.engine.labels.classes import read_classes
from alps.engine.run_folder.folder import RunFolder
from alps.trainer.data.arrays import CachedPair, damaged, edges
from alps.trainer.data.decode import DecodeRequest, PairRecord, decode_pair
from alps.trainer.data.find import Problem
from alps.trainer.data.labels import count_classes
from alps.trainer.data.regions import MASKS, RegionTargets, class_files
from alps.trainer.data.rules import MOST_CLASSES, LabelRules
from alps.trainer.data.settings import PseudoSettings

FORMAT = 4  # of the arrays; another one is another cache
MANY_IGNORED = 0.01  # pixels without a class, for each of a lone class
MOST_INDEX = 1 << 32  # bytes; a pair takes some kilobytes
THREADS = 2  # pairs decoded at once; each holds a strip of image and labels


@dataclass(frozen=True)
class Cache:
    """All decoded pairs of a data set."""

    root: Path
    rules: LabelRules
    cell: int
    pairs: tuple[CachedPair, ...]
    problems: tuple[Problem, ...]

    def split(self, name: str) -> tuple[CachedPair, ...]:
        """The pairs of ``train`` or ``test``."""
        return tuple(pair for pair in self.pairs if pair.split == name)


def build_cache(request: DecodeRequest, folder: Path) -> Cache:
    """Decode what is not decoded yet below ``folder``; a killed call is gone on with by the next.

    The result lists what was found wrong; such pairs are not in it. Raises SettingsError and
    SourceError where no pair could ever be read with these settings.
    """
    request = _with_stretches(_with_classes(request))
    decides = _decides(request)
    root = folder / fingerprint(decides)
    index = root / "index.json"
    if not index.exists():
        root.mkdir(parents=True, exist_ok=True)
        wanted = [pair for pair in request.data.pairs if pair.split in request.splits]
        targets = _targets(request)
        with (
            ThreadPoolExecutor(THREADS) as pool,
            Progress(len(wanted), "pairs", "decoding and checking") as progress,
        ):
            jobs = [
                pool.submit(decode_pair, request, targets, pair, root, f"{number:06}")
                for number, pair in enumerate(wanted)
            ]
            try:
                records = []
                for job in jobs:
                    records.append(job.result())
                    progress.advance()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        write_text(index, json.dumps(records))
        for number in range(len(wanted)):
            (root / f"{number:06}.json").unlink(missing_ok=True)
    return _open(index, request)


def _with_classes(request: DecodeRequest) -> DecodeRequest:
    """Settle the classes: those of a control, or as many as the labels show."""
    rules = request.data.rules
    if request.pseudo.painted == "masks":
        rules = LabelRules(MASKS, ignore=rules.ignore)  # of the label maps beside them
    elif not rules.classes:
        count = count_classes([pair.label for pair in request.data.pairs], rules)
        if not 1 <= count <= MOST_CLASSES:
            raise SourceError(
                f"the labels of {request.data.root} hold {count} classes; name them with --classes"
            )
        rules = replace(rules, classes=tuple(str(index) for index in range(count)))
    return replace(request, data=replace(request.data, rules=rules))


def _with_stretches(request: DecodeRequest) -> DecodeRequest:
    """Fit the stretches that images share; a run folder brings those of its run."""
    data = request.data
    if data.is_run:
        return request
    reading = read_together(data.reading, [pair.image for pair in data.pairs])
    return replace(request, data=replace(data, reading=reading))


def _decides(request: DecodeRequest) -> dict[str, Any]:
    """All that the arrays depend on."""
    files = []
    for pair in request.data.pairs:
        if pair.split in request.splits:
            stamps = [_stamp(path) for path in (pair.image, pair.label)]
            files.append([str(pair.image), str(pair.label), pair.scene, pair.split, *stamps])
    pseudo = asdict(request.pseudo)
    if request.pseudo != PseudoSettings():
        # Label maps stay as they are where only margins change.
        parts = class_files(RunFolder(request.data.root))
        pseudo |= {"seed": request.seed, "parts": [_stamp(part) for part in parts]}
    return {
        "format": FORMAT,
        "rules": asdict(request.data.rules),
        "reading": asdict(request.data.reading),
        "shrink": request.settings.shrink,
        "cell": request.cell,
        "pseudo": pseudo,
        "files": files,
    }


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _targets(request: DecodeRequest) -> RegionTargets | None:
    """What paints controls and weights; None where the label maps are all that is needed."""
    if request.pseudo == PseudoSettings():
        return None
    if not request.data.is_run:
        raise SourceError(
            f"{request.data.root} is no run folder of alps label; margins and controls need one"
        )
    if request.pseudo.painted == "shuffled" and request.data.rules.values is not None:
        raise SettingsError(
            f"--targets shuffled draws among all clusters, but classes of {request.data.root} were "
            "merged or are ignored; use a run without names.json"
        )
    folder = RunFolder(request.data.root)
    clusters = len(read_classes(folder.classes).classes)
    return RegionTargets(folder, clusters, request.pseudo, request.seed)


def _open(index: Path, request: DecodeRequest) -> Cache:
    mend = f"remove the folder {index.parent}, it is made anew"
    records = read_record(index, tuple[PairRecord, ...], SourceError, mend, MOST_INDEX)
    problems, ignored = list(request.data.problems), 0
    pairs = []
    for record in records:
        problems += record.problems
        if record.pair is not None:
            pairs.append(record.pair)
            ignored += record.ignored
    with (
        ThreadPoolExecutor(THREADS) as pool,
        Progress(len(pairs), "pairs", "checking the cache") as progress,
    ):
        for _ in pool.map(lambda pair: _refuse_damaged(pair, index, request), pairs):
            progress.advance()
    cache = Cache(index.parent, request.data.rules, request.cell, tuple(pairs), tuple(problems))
    if not request.data.is_run:
        _refuse_lone_class(cache, ignored)
    return cache


def _refuse_damaged(pair: CachedPair, index: Path, request: DecodeRequest) -> None:
    """Raise SourceError where a pair's files are not what was written, or not as the index says."""
    root, size = index.parent, (pair.height, pair.width)
    pair.refuse_damaged(root)
    shapes = pair.pixels(root).shape, pair.labels(root).shape
    fits = shapes == ((*size, 3), size) and pair.split in request.splits
    if fits:
        grid = tuple(len(edges(length, request.cell)) - 1 for length in size)
        fits = (
            len(pair.class_pixels) == len(request.data.rules.classes)
            and len(pair.labelled) == grid[0]
            and all(len(row) == grid[1] for row in pair.labelled)
        )
    if not fits:
        raise damaged(index, f"it tells of {pair.stem} what its files do not")


def _refuse_lone_class(cache: Cache, ignored: int) -> None:
    """Raise SourceError where labels have one class and a great many pixels without: any model is
    perfect on them.
    """
    pixels = np.sum([pair.class_pixels for pair in cache.pairs], axis=0) if cache.pairs else []
    seen = np.flatnonzero(pixels)
    if len(seen) == 1 and ignored > MANY_IGNORED * int(np.sum(pixels)) and not cache.problems:
        name = cache.rules.classes[seen[0]]
        raise SourceError(
            f"of {len(cache.rules.classes)} classes the labels show {name} alone, beside {ignored} "
            f"pixels that are no class ({', '.join(map(str, cache.rules.ignore))}, or the files' "
            "nodata value); for a mask of 0 and 255 give --label-threshold 127, where an ignored "
            "value is a class --label-ignore with another one"
        )
