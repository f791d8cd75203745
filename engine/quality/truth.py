"""Finds the real labels that belong to label maps, and reads the two side by side in strips."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from alps.engine.base.errors import (
    AlpsError,
    RunFolderError,
    SettingsError,
    SourceError,
)
from alps.engine.quality.label_file import Grid, LabelFile, open_image, read_bands

LABEL_SUFFIXES = (".png", ".tif", ".tiff")
TRUTH_SUFFIXES = (".png", ".tif", ".tiff", ".gif", ".jpg", ".jpeg")
UNLABELLED = {"uint8": 255, "uint16": 65535}  # label map dtype -> its value for "no class"
STRIP_PIXELS = 1 << 22
# Values of masks: a header that calls one of them nodata means the other class.
MASK_VALUES = (0, 1, 255)
# Grey JPEGs kept as three bands differ by rounding between bands; a picture differs by far more.
JPEG_BAND_SPREAD = 16


@dataclass(frozen=True)
class LabelPair:
    """A label map, its real labels, and the label map's '/'-separated path within its folder."""

    name: str
    labels: Path
    truth: Path


@dataclass(frozen=True)
class Unmatched:
    """A file that has no counterpart, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Matching:
    """What was found in a folder of label maps and a folder of real labels, each sorted by name."""

    pairs: tuple[LabelPair, ...]
    without_truth: tuple[Unmatched, ...]  # label maps
    without_labels: tuple[Unmatched, ...]  # truth files


@dataclass(frozen=True)
class TruthRules:
    """How the pixels of a truth file become classes.

    believes_header: whether a GeoTIFF's nodata value is no class; what somebody said outranks it.
    """

    ignore: tuple[int, ...]
    threshold: float | None
    believes_header: bool = True


@dataclass(frozen=True)
class Strip:
    """The truth-valid pixels of a strip of one image.

    truth: (n,) integer classes. predicted: (n,) uint8 or uint16 pseudo-classes.
    unlabelled: the value in `predicted` that means no class. ignored: pixels left out.
    """

    truth: np.ndarray
    predicted: np.ndarray
    unlabelled: int
    ignored: int


def match_truth(label_folder: Path, truth_folder: Path) -> Matching:
    """Pair label maps with truth files by relative path without suffix, else by unique stem.

    `label_folder` is a run folder, whose `labels` is taken, or any folder of label maps.
    Raises RunFolderError where there is no label map, SourceError where there is no truth file.
    """
    label_folder, truth_folder = Path(label_folder), Path(truth_folder)
    if (label_folder / "labels").is_dir():
        label_folder = label_folder / "labels"
    if not label_folder.is_dir():
        raise RunFolderError(f"{label_folder} is not a folder; give a run folder or label maps")
    if not truth_folder.is_dir():
        raise SourceError(f"{truth_folder} is not a folder; give the folder of real labels")
    labels = _image_files(label_folder, LABEL_SUFFIXES)
    truths = _image_files(truth_folder, TRUTH_SUFFIXES)
    if not labels:
        raise RunFolderError(f"{label_folder} holds no label map; run `alps label` or `alps paint`")
    if not truths:
        raise SourceError(
            f"{truth_folder} holds no truth image ({', '.join(TRUTH_SUFFIXES)} are looked for)"
        )
    by_path, by_stem = _grouped(truths, _without_suffix), _grouped(truths, _stem)
    labels_by_stem = _grouped(labels, _stem)

    pairs, without_truth = [], []
    for name in labels:
        found, how = by_path.get(_without_suffix(name), []), "path"
        if not found:
            found, how = by_stem.get(_stem(name), []), "stem"
        rivals = labels_by_stem[_stem(name)] if how == "stem" else [name]
        if len(found) == 1 and len(rivals) == 1:
            pairs.append(LabelPair(name, label_folder / name, truth_folder / found[0]))
        elif not found:
            without_truth.append(Unmatched(name, "no truth file of that path or stem"))
        elif len(found) > 1:
            files = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
            reason = f"{len(found)} truth files have its {how}: {files}"
            without_truth.append(Unmatched(name, reason))
        else:
            reason = f"{len(rivals)} label maps share the stem of {found[0]}"
            without_truth.append(Unmatched(name, reason))
    used = {pair.truth for pair in pairs}
    without_labels = (
        Unmatched(name, "no label map of that path or stem")
        for name in truths
        if truth_folder / name not in used
    )
    return Matching(tuple(pairs), tuple(without_truth), tuple(without_labels))


def read_strips(pair: LabelPair, rules: TruthRules) -> Iterator[Strip]:
    """Yield the pixels that count, strip by strip, some 4 million pixels at a time.

    A pixel is left out where its class (after the threshold) is one of `rules.ignore`, where a
    GeoTIFF truth declares it nodata and nobody says otherwise, where a thresholded truth is not a
    number, and where the truth, laid on the label map by its place, does not reach.
    Raises SourceError for files that cannot be read, lie elsewhere, do not have one size, or are no
    labels, and SettingsError where a threshold is needed.
    """
    with open_image(pair.labels) as labels, LabelFile(pair.truth, Grid.of(labels)) as truth:
        unlabelled = unlabelled_value(labels)
        _check_pair(pair, labels, truth)
        bands = class_bands(truth, rules)
        for window in _strip_windows(labels):
            classes, valid = read_classes(truth, bands, window, rules)
            predicted = read_bands(labels, 1, window)
            ignored = int(valid.size - np.count_nonzero(valid))
            yield Strip(classes[valid], predicted[valid], unlabelled, ignored)


def _image_files(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """'/'-separated paths of images below `folder`, sorted."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    return sorted(path.relative_to(folder).as_posix() for path in files if path.is_file())


def _without_suffix(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _grouped(names: list[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return groups


def check_pairs(pairs: Iterable[LabelPair], rules: TruthRules) -> None:
    """Open every pair, so that all that cannot be compared is said at once.

    Raises:
        SourceError: files that cannot be opened, differ in size or are no labels, each with its
            reason. Where it is one file, the error that reading it would raise.
    """
    wrong: list[AlpsError] = []
    for pair in pairs:
        try:
            with open_image(pair.labels) as labels, LabelFile(pair.truth, Grid.of(labels)) as truth:
                _check_pair(pair, labels, truth)
                class_bands(truth, rules)
        except AlpsError as error:
            wrong.append(error)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        kind = SettingsError if all(isinstance(e, SettingsError) for e in wrong) else SourceError
        raise kind(
            f"{len(wrong)} label maps cannot be held against their truth:\n"
            + "\n".join(f"  {error}" for error in wrong)
        )


def _check_pair(pair: LabelPair, labels: rasterio.DatasetReader, truth: LabelFile) -> None:
    unlabelled_value(labels)
    if (labels.width, labels.height) != truth.size:
        raise SourceError(
            f"{pair.labels} is {labels.width} × {labels.height} pixels but its truth "
            f"{pair.truth} is {truth.size[0]} × {truth.size[1]}; both must have one size, or both "
            "say where they lie"
        )


def unlabelled_value(labels: rasterio.DatasetReader) -> int:
    """The value of a label map that means no class; SourceError for what is no label map."""
    dtype = labels.dtypes[0]
    if labels.count != 1 or dtype not in UNLABELLED:
        raise SourceError(
            f"{labels.name} is no label map: it has {labels.count} band(s) of {dtype}; "
            "a label map has one of uint8 (255 = unlabelled) or uint16 (65535)"
        )
    return UNLABELLED[dtype]


def class_bands(truth: LabelFile, rules: TruthRules) -> list[int]:
    """Bands that hold the classes: all but alpha. Refuses what cannot be classes as it is."""
    file = truth.file
    if rules.threshold is None:
        # A grey JPEG names no compression; JPEG in TIFF is "JPEG" or "YCbCr JPEG".
        compression = file.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION", "")
        if file.driver == "JPEG" or "JPEG" in compression:
            raise SettingsError(
                f"{file.name} is JPEG, whose compression changes class values; "
                "give --truth-threshold, or to train --label-threshold (127 for a mask of 0 and "
                "255)"
            )
        if np.dtype(file.dtypes[0]).kind not in "iu":
            raise SettingsError(
                f"{file.name} holds {file.dtypes[0]}, not class numbers; "
                "convert it, or give --truth-threshold (to train, --label-threshold) for a mask"
            )
    alpha = ColorInterp.alpha
    return [i for i, kind in zip(file.indexes, file.colorinterp, strict=True) if kind != alpha]


def _strip_windows(labels: rasterio.DatasetReader) -> Iterator[Window]:
    """Full-width windows of whole blocks, about STRIP_PIXELS each."""
    block = labels.block_shapes[0][0]
    rows = max(block, STRIP_PIXELS // labels.width // block * block)
    for top in range(0, labels.height, rows):
        yield Window(0, top, labels.width, min(rows, labels.height - top))


def read_classes(
    truth: LabelFile, bands: list[int], window: Window, rules: TruthRules
) -> tuple[np.ndarray, np.ndarray]:
    """Classes (h, w) integer and where they count (h, w) bool."""
    file = truth.file
    pixels, valid = truth.read(bands, window)
    spread = JPEG_BAND_SPREAD if rules.threshold is not None else 0
    if len(bands) > 1 and int(np.ptp(pixels, axis=0).max()) > spread:
        raise SourceError(
            f"{file.name} is in colour: its {len(bands)} bands differ; "
            "convert it to one band of class numbers"
        )
    values = pixels[0]
    if rules.threshold is not None and file.colorinterp[0] == ColorInterp.palette:
        values = _greys(file)[values]
    # GIF and PNG report their transparent index as nodata, which is often the background class.
    if rules.believes_header and file.driver == "GTiff" and file.nodata is not None:
        is_class = rules.threshold is not None and file.nodata in MASK_VALUES
        valid &= is_class | (values != file.nodata)
    if rules.threshold is not None:
        valid &= ~np.isnan(values)
        values = (values > rules.threshold).astype(np.uint8)
    if rules.ignore:
        valid &= ~np.isin(values, rules.ignore)
    return values, valid


def _greys(truth: rasterio.DatasetReader) -> np.ndarray:
    """What each palette index shows, (256,) uint8: writers of GIF masks renumber 255 as 1, say.

    The indices themselves where the palette has colours.
    """
    palette = np.zeros((256, 4), np.uint8)
    for index, colour in truth.colormap(1).items():
        palette[index] = colour
    grey = (palette[:, :3] == palette[:, :1]).all()
    return palette[:, 0] if grey else np.arange(256, dtype=np.uint8)
