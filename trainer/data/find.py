"""Finds the pairs of image and labels in DATA, whatever its layout, and splits them by scene.

    run folder       run.json, tiles.parquet, labels/…          what `alps label` leaves
    mmseg            img_dir/{train,val,…}, ann_dir/{train,val,…}
    folders          images/…, labels/… (or masks/…, annotations/…), perhaps with train/, val/

No image is opened here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import numpy as np

from alps.engine.base.errors import RunFolderError, SettingsError, SourceError
from alps.engine.images.reading import Reading
from alps.engine.images.sources import IMAGE_SUFFIXES
from alps.engine.labels.classes import read_classes
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import reading_of
from alps.engine.run_folder.tables import read_table
from alps.engine.settings import ReadSettings
from alps.trainer.data.rules import LabelRules
from alps.trainer.data.settings import DataSettings

FOLDERS = (
    ("img_dir", "ann_dir"),
    *((images, labels) for images in ("images", "image", "imgs") for labels in (
        "labels", "masks", "annotations", "label", "mask",
    )),
)  # fmt: skip
TRAIN_NAMES, TEST_NAMES = ("train", "training"), ("val", "validation", "test", "testing")
HELD_OUT = 7  # what the generator of held-out scenes is seeded with: always the same scenes


@dataclass(frozen=True)
class Pair:
    """An image and its labels."""

    name: str  # '/'-separated, without suffix; unique
    image: Path
    label: Path
    scene: str
    split: str  # "train", "test", or "" while it is open
    source_index: int = -1  # in the plan of a run folder


@dataclass(frozen=True)
class Problem:
    """Something that keeps a pair, or all of DATA, from being used."""

    kind: str
    where: str
    text: str


@dataclass(frozen=True)
class DataSet:
    """What DATA holds."""

    root: Path
    rules: LabelRules
    pairs: tuple[Pair, ...]
    problems: tuple[Problem, ...]  # found so far
    reading: Reading  # of the images; stretches that several share are still to be fitted
    is_run: bool

    def split(self, name: str) -> tuple[Pair, ...]:
        """The pairs of ``train`` or ``test``."""
        return tuple(pair for pair in self.pairs if pair.split == name)


def find_data(root: str | Path, settings: DataSettings) -> DataSet:
    """Pair images with labels by their names, and split them.

    Raises:
        SourceError: the layout is not known, or dataset.json is wrong.
        RunFolderError: the run folder's label maps are not ready.
        SettingsError: a glob or a regular expression cannot work.
    """
    root = Path(root)
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder; give a run folder, or images and labels")
    if (root / "run.json").exists():
        found = _run_folder(root, settings)
    else:
        found = _folders(root, settings)
    found = replace(found, rules=_with_settings(found.rules, settings))
    pairs = _split(_with_scenes(found.pairs, settings), settings)
    return replace(found, pairs=tuple(sorted(pairs, key=lambda pair: pair.name)))


def _run_folder(root: Path, settings: DataSettings) -> DataSet:
    folder = RunFolder(root)
    run = folder.read_run()
    folder.refuse_unpainted()
    if not folder.classes.exists() or not folder.tiles.exists():
        raise RunFolderError(f"the run in {root} is not finished; give its `alps label` again")
    classes = read_classes(folder.classes)
    shown = [one for one in classes.classes if one.part_of is None and not one.ignored]
    # What people merged or left out is no class to learn.
    values = None if len(shown) == len(classes.classes) else tuple(one.id for one in shown)
    names = tuple(one.name for one in shown)
    columns = ["source_index", "source", "path", "label", "reason"]
    seen: dict[int, dict] = {}
    for row in read_table(folder.tiles, columns).to_pylist():
        seen.setdefault(row["source_index"], row)
    pairs, problems = [], []
    for index, row in sorted(seen.items()):
        label = folder.label(row["label"])
        if not label.exists():
            text = f"no label map: {row['reason'] or 'it is missing from labels/'}"
            problems.append(Problem("unlabelled source", row["source"], text))
            continue
        name = PurePosixPath(row["label"]).with_suffix("").as_posix()
        pairs.append(Pair(name, Path(row["path"]), label, "", "", index))
    return DataSet(
        root,
        LabelRules(names, values=values, ignore=(classes.unlabelled,)),
        tuple(pairs),
        tuple(problems),
        _reading(reading_of(folder, run), settings),
        is_run=True,
    )


def _reading(of_run: Reading | None, settings: DataSettings) -> Reading:
    """How images are read: as the run did, unless something else is said."""
    names = [item.name for item in fields(ReadSettings)]
    asked = ReadSettings(**{name: getattr(settings, name) for name in names})
    return Reading(asked) if of_run is None or asked != ReadSettings() else of_run


def _folders(root: Path, settings: DataSettings) -> DataSet:
    for images, labels in FOLDERS:
        if (root / images).is_dir() and (root / labels).is_dir():
            break
    else:
        known = "; ".join(f"{images} + {labels}" for images, labels in FOLDERS[:3])
        raise SourceError(
            f"{root} has no layout that is known: it is no run folder, and has no pair of folders "
            f"such as {known}"
        )
    of_image = _by_key(root / images, settings.image_suffix)
    of_label = _by_key(root / labels, settings.label_suffix)
    pairs, problems = [], []
    for key in sorted(of_image.keys() | of_label.keys()):
        some, others = of_image.get(key, []), of_label.get(key, [])
        if len(some) == len(others) == 1:
            pairs.append(Pair(key, some[0], others[0], "", _named_split(key)))
        elif not some:
            problems.append(Problem("no image", str(others[0]), f"no image {images}/{key}.*"))
        elif not others and _is_test_without_labels(root / labels, key):
            continue
        elif not others:
            problems.append(Problem("no labels", str(some[0]), f"no labels {labels}/{key}.*"))
        else:
            text = f"{len(some)} images and {len(others)} labels share this name"
            problems.append(Problem("ambiguous name", key, text))
    rules = LabelRules.load(root) or LabelRules()
    reading = _reading(None, settings)
    return DataSet(root, rules, tuple(pairs), tuple(problems), reading, is_run=False)


def _by_key(folder: Path, suffix: str) -> dict[str, list[Path]]:
    """Image files below a folder by their path without the file's suffix and ``suffix``."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and not hidden:
            key = inside.with_suffix("").as_posix().removesuffix(suffix)
            found.setdefault(key, []).append(path)
    return found


def _named_split(key: str) -> str:
    first = key.split("/")[0].lower() if "/" in key else ""
    return "train" if first in TRAIN_NAMES else "test" if first in TEST_NAMES else ""


def _is_test_without_labels(labels: Path, key: str) -> bool:
    """Benchmarks keep the labels of their test images to themselves: no folder for them."""
    return _named_split(key) == "test" and not (labels / key.split("/")[0]).is_dir()


def _with_settings(rules: LabelRules, settings: DataSettings) -> LabelRules:
    given: dict = {}
    if settings.classes:
        given["classes"] = tuple(name.strip() for name in settings.classes.split(","))
    if settings.label_threshold is not None:
        given["threshold"] = settings.label_threshold
    if settings.label_ignore is not None:
        given |= {"ignore": (settings.label_ignore,), "nodata": False}
    if settings.reduce_zero:
        given["reduce_zero"] = True
    if settings.label_values is not None:
        values = _numbers(settings.label_values)
        others = tuple(value for value in rules.ignore if value not in values)
        given = {"classes": tuple(map(str, values)), "ignore": others, "nodata": False} | given
        given["values"] = values
    rules = replace(rules, **given)
    if rules.values is not None and len(rules.values) != len(rules.classes):
        raise SettingsError(
            f"--label-values names {len(rules.values)} values, but there are "
            f"{len(rules.classes)} classes"
        )
    if rules.threshold is not None and not rules.classes:
        rules = replace(rules, classes=("background", "foreground"))
    if rules.threshold is not None and len(rules.classes) != 2:
        raise SettingsError(f"--label-threshold gives 2 classes, --classes {len(rules.classes)}")
    return rules


def _numbers(text: str) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(set(values)) != len(values) or not values:
        raise SettingsError(f"--label-values {text}: give different whole numbers: 0,128,255 say")
    return values


def _with_scenes(pairs: Iterable[Pair], settings: DataSettings) -> list[Pair]:
    if settings.scene is None:
        return [replace(pair, scene=pair.name) for pair in pairs]
    try:
        pattern = re.compile(settings.scene)
    except re.error as error:
        raise SettingsError(f"--scene {settings.scene}: no regular expression: {error}") from error
    named = []
    for pair in pairs:
        match = pattern.search(pair.name)
        if match is None:
            raise SettingsError(f"--scene {settings.scene}: does not match the image {pair.name}")
        named.append(replace(pair, scene=match[match.lastindex or 0]))
    return named


def _split(pairs: list[Pair], settings: DataSettings) -> list[Pair]:
    """By --test where it is given, else by DATA's folders, else whole scenes at random."""
    if settings.test is not None:
        return [replace(pair, split=_by_globs(pair, settings)) for pair in pairs]
    pairs = [pair for pair in pairs if _matches(pair, settings.train)]
    if any(pair.split for pair in pairs):
        return pairs
    scenes = sorted({pair.scene for pair in pairs})
    if settings.hold_out == 0 or len(scenes) < 2:
        return [replace(pair, split="train") for pair in pairs]
    order = np.random.default_rng(HELD_OUT).permutation(len(scenes))
    count = min(max(1, round(settings.hold_out * len(scenes))), len(scenes) - 1)
    held = {scenes[index] for index in order[:count]}
    return [replace(pair, split="test" if pair.scene in held else "train") for pair in pairs]


def _by_globs(pair: Pair, settings: DataSettings) -> str:
    if _matches(pair, settings.test):
        return "test"
    return "train" if _matches(pair, settings.train) else ""


def _matches(pair: Pair, glob: str | None) -> bool:
    """Whether a glob holds for a pair's path or its name; None holds for all."""
    names = (pair.name, PurePosixPath(pair.name).name)
    return glob is None or any(fnmatchcase(name, glob) for name in names)
