"""How right label maps are, held against real labels of the same images.

Everything follows from one contingency table n[t, k], the number of pixels of truth class t that
carry pseudo-class k, and a column u[t] beside it for those that carry none. It is summed strip by
strip, so memory depends on the number of classes and not on the images.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from scipy.special import entr, rel_entr

from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.base.html import html_table
from alps.engine.quality.boundaries import BoundaryCounts, boundary_counts
from alps.engine.quality.settings import IGNORE, QualitySettings
from alps.engine.quality.truth import (
    LabelPair,
    TruthRules,
    Unmatched,
    check_pairs,
    match_truth,
    read_strips,
)

# More distinct values than this are instance ids or a photograph, not classes.
MOST_TRUTH_CLASSES = 1024
# So few values, 0 aside so high, are greys of a picture: 0, 128 and 255, which is a class too.
GREYS, GREY = 4, 50
CHUNK_PIXELS = 1 << 20  # counted at once; bounds the int64 keys to 8 MB


@dataclass(frozen=True)
class ClassQuality:
    """One truth class: its pixels that count, its IoU, and its number of pseudo-classes."""

    value: int
    name: str
    pixels: int
    iou: float  # nan where the scored images have no pixel of it
    pseudo_classes: int


@dataclass(frozen=True)
class Quality:
    """The measures of one set of label maps. Shares are of 1; nan where nothing is labelled."""

    images: int  # scored
    fit_images: int  # the mapping was learnt on; 0: it was learnt on the scored images themselves
    folds: int  # parts of the scored images, each read by a mapping learnt on the others; 0: none
    without_truth: tuple[Unmatched, ...]  # label maps that were not scored, with reasons
    without_labels: tuple[Unmatched, ...]  # truth files without label map
    pixels: int  # truth-valid
    ignored_pixels: int
    labelled_pixels: int  # of `pixels`
    unmapped_pixels: int  # labelled, but of a pseudo-class that the fit images do not show
    classes: tuple[ClassQuality, ...]
    mapping: dict[int, int]  # pseudo-class -> truth class; with folds, that of all scored images
    confusion: tuple[tuple[int, ...], ...]  # pixels of a true class read as each, the last: as none
    miou: float
    accuracy: float
    nmi: float
    purity: float
    coverage: float
    boundary_tolerance: float  # pixels
    boundary_precision: float
    boundary_recall: float
    boundary_f1: float

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON, which has no nan: None instead."""
        return _without_nan(asdict(self))

    def _repr_html_(self) -> str:
        """A table, in a notebook."""
        rows = [
            (c.name, f"{c.pixels / self.pixels:.3f}", f"{c.iou:.3f}", c.pseudo_classes)
            for c in self.classes
        ]
        measures = {
            "mIoU": self.miou,
            "accuracy": self.accuracy,
            "NMI": self.nmi,
            "purity": self.purity,
            "coverage": self.coverage,
            "boundary F1": self.boundary_f1,
        }
        figures = [(name, f"{value:.3f}") for name, value in measures.items()]
        head = ("class", "share of pixels", "IoU", "pseudo-classes")
        return html_table(f"{self.images} images scored", figures) + html_table("", rows, head)


class ContingencyTable:
    """Pixel counts of truth class × pseudo-class, which grows as values turn up.

    values: (T,) int64, the truth classes, ascending. counts: (T, K) int64, pixels with a
    pseudo-class. unlabelled: (T,) int64, pixels without one. ignored: pixels that do not count.
    """

    def __init__(self) -> None:
        self.values = np.zeros(0, np.int64)
        self.counts = np.zeros((0, 0), np.int64)
        self.unlabelled = np.zeros(0, np.int64)
        self.ignored = 0

    @property
    def truth_pixels(self) -> np.ndarray:
        """Pixels of each truth class, labelled or not, (T,) int64."""
        return self.counts.sum(axis=1) + self.unlabelled

    def grow(self, values: np.ndarray, clusters: int) -> None:
        """Make room for truth classes `values` (n,) and pseudo-classes below `clusters`."""
        union = np.union1d(self.values, values.astype(np.int64))
        if len(union) > MOST_TRUTH_CLASSES:
            raise SourceError(
                f"the truth has more than {MOST_TRUTH_CLASSES} classes; it seems to hold instance "
                "ids or a photograph: convert it to class numbers, or give --truth-threshold"
            )
        clusters = max(clusters, self.counts.shape[1])
        if len(union) == len(self.values) and clusters == self.counts.shape[1]:
            return
        rows = np.searchsorted(union, self.values)
        counts = np.zeros((len(union), clusters), np.int64)
        counts[rows, : self.counts.shape[1]] = self.counts
        unlabelled = np.zeros(len(union), np.int64)
        unlabelled[rows] = self.unlabelled
        self.values, self.counts, self.unlabelled = union, counts, unlabelled

    @classmethod
    def total(cls, tables: Iterable["ContingencyTable"]) -> "ContingencyTable":
        """The sum of several."""
        found = cls()
        for table in tables:
            found.grow(table.values, table.counts.shape[1])
            rows = np.searchsorted(found.values, table.values)
            found.counts[rows, : table.counts.shape[1]] += table.counts
            found.unlabelled[rows] += table.unlabelled
            found.ignored += table.ignored
        return found

    def add(self, truth: np.ndarray, predicted: np.ndarray, unlabelled: int) -> None:
        """Count pixels: truth (n,) integer classes, predicted (n,) unsigned pseudo-classes."""
        for start in range(0, truth.size, CHUNK_PIXELS):
            part = slice(start, start + CHUNK_PIXELS)
            self._add_chunk(truth[part], predicted[part], unlabelled)

    def _add_chunk(self, truth: np.ndarray, predicted: np.ndarray, unlabelled: int) -> None:
        values, rows = np.unique(truth, return_inverse=True)
        labelled = predicted != unlabelled
        clusters = int(predicted.max(where=labelled, initial=0)) + 1 if labelled.any() else 0
        self.grow(values, clusters)
        columns = np.where(labelled, predicted, clusters).astype(np.int64)
        shape = (len(values), clusters + 1)
        flat = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1])
        found = flat.reshape(shape)
        target = np.searchsorted(self.values, values)
        self.counts[target, :clusters] += found[:, :clusters]
        self.unlabelled[target] += found[:, clusters]


def measure_quality(
    label_folder: Path, truth_folder: Path, settings: QualitySettings | None = None
) -> Quality:
    """Score the label maps of a run folder, or of any folder, against index images.

    Label maps and truth files are paired by relative path without suffix, else by unique stem;
    those without counterpart are named in the result and not scored. Without `fit_only` or `folds`
    the majority mapping is learnt on the very images it is scored on, which flatters it the more,
    the more pseudo-classes there are.
    Raises SourceError, SettingsError or RunFolderError with the way to mend it.
    """
    settings = settings or QualitySettings()
    matching = match_truth(Path(label_folder), Path(truth_folder))
    scored, fitted = _split_pairs(matching.pairs, settings)
    missing = tuple(m for m in matching.without_truth if _is_scored(m.name, settings))
    unused = tuple(m for m in matching.without_labels if _is_scored(m.name, settings))
    if not scored:
        raise SourceError(_nothing_scored(matching.pairs, missing, settings))
    rules = _rules(settings)
    check_pairs([*scored, *fitted], rules)
    parts = _parts(scored, settings)
    tables = [count_pixels(part, rules) for part in parts]
    fit_table = count_pixels(fitted, rules) if fitted else ContingencyTable()
    table = ContingencyTable.total(tables)
    everything = ContingencyTable.total([table, fit_table])
    for one in (*tables, table, fit_table):
        one.grow(everything.values, everything.counts.shape[1])
    _refuse_blind_truth(table, settings)

    mappings = [majority_mapping(_learnt_on(tables, i, fit_table)) for i in range(len(tables))]
    mapping = majority_mapping(fit_table.counts if fitted else table.counts)
    mapped = _total(mapped_counts(t.counts, m) for t, m in zip(tables, mappings, strict=True))
    truth_pixels, pixels = table.truth_pixels, int(table.truth_pixels.sum())
    ious = ious_of(mapped, truth_pixels)
    labelled = int(table.counts.sum())
    outlines = BoundaryCounts()
    for part, own in zip(parts, mappings, strict=True):
        classes = {int(k): int(table.values[own[k]]) for k in np.flatnonzero(own >= 0)}
        for pair in part:
            outlines += boundary_counts(pair, rules, classes, settings.boundary_tolerance)
    return Quality(
        images=len(scored),
        fit_images=len(fitted),
        folds=len(parts) if settings.folds else 0,
        without_truth=missing,
        without_labels=unused,
        pixels=pixels,
        ignored_pixels=table.ignored,
        labelled_pixels=labelled,
        unmapped_pixels=labelled - int(mapped.sum()),
        classes=tuple(
            ClassQuality(
                value=int(value),
                name=_class_name(int(value), settings.class_names),
                pixels=int(truth_pixels[row]),
                iou=float(ious[row]),
                pseudo_classes=int(np.count_nonzero(mapping == row)),
            )
            for row, value in enumerate(table.values)
        ),
        mapping={int(k): int(table.values[mapping[k]]) for k in np.flatnonzero(mapping >= 0)},
        confusion=tuple(
            (*row, int(total - sum(row)))
            for row, total in zip(mapped.tolist(), truth_pixels, strict=True)
        ),
        miou=float(np.nanmean(ious)),
        accuracy=float(np.trace(mapped) / pixels),
        nmi=normalised_mutual_information(table.counts),
        purity=purity(table.counts),
        coverage=labelled / pixels,
        boundary_tolerance=settings.boundary_tolerance,
        boundary_precision=outlines.precision,
        boundary_recall=outlines.recall,
        boundary_f1=outlines.f1,
    )


def truth_of_classes(
    label_folder: Path, truth_folder: Path, settings: QualitySettings
) -> dict[int, tuple[str, float]]:
    """What most pixels of each pseudo-class are, by its number: a truth class's name, a share.

    Shares are of the class's pixels that have truth, in 0…1; classes without such are left out.
    Errors as ``measure_quality``.
    """
    matching = match_truth(Path(label_folder), Path(truth_folder))
    if not matching.pairs:
        raise SourceError(_nothing_scored(matching.pairs, matching.without_truth, settings))
    rules = _rules(settings)
    check_pairs(matching.pairs, rules)
    table = count_pixels(matching.pairs, rules)
    _refuse_blind_truth(table, settings)
    found = {}
    for number, row in enumerate(majority_mapping(table.counts).tolist()):
        if row >= 0:
            name = _class_name(int(table.values[row]), settings.class_names)
            own = table.counts[:, number]
            found[number] = name, float(own[row] / own.sum())
    return found


def _rules(settings: QualitySettings) -> TruthRules:
    return TruthRules(
        settings.ignored, settings.truth_threshold, believes_header=settings.truth_ignore is None
    )


def count_pixels(pairs: Iterable[LabelPair], rules: TruthRules) -> ContingencyTable:
    """Sum the contingency table over images; memory is one strip and the table."""
    table = ContingencyTable()
    for pair in pairs:
        for strip in read_strips(pair, rules):
            table.add(strip.truth, strip.predicted, strip.unlabelled)
            table.ignored += strip.ignored
    return table


def majority_mapping(counts: np.ndarray) -> np.ndarray:
    """Row of the truth class that each pseudo-class overlaps most: argmax over t of n[t, k].

    counts (T, K) int64 → (K,) int64, -1 for a pseudo-class without pixels. Of equals, the truth
    class with the lowest number is taken.
    """
    if not counts.size:
        return np.full(counts.shape[1], -1, np.int64)
    return np.where(counts.any(axis=0), counts.argmax(axis=0), -1)


def class_ious(counts: np.ndarray, unlabelled: np.ndarray, mapping: np.ndarray) -> np.ndarray:
    """IoU of each truth class once every pseudo-class k is read as truth class mapping[k].

    With p[t, c] = sum of n[t, k] over the k mapped to c, and N[t] = sum over k of n[t, k] + u[t]:
    IoU[c] = p[c, c] / (N[c] + sum over t of p[t, c] - p[c, c]).
    Unlabelled pixels and those of unmapped pseudo-classes are misses: they enter N and no p.
    counts (T, K), unlabelled (T,), mapping (K,) rows or -1 → (T,) float64, nan where N is 0, so
    that the mean is over the classes that the scored images have.
    """
    return ious_of(mapped_counts(counts, mapping), counts.sum(axis=1) + unlabelled)


def mapped_counts(counts: np.ndarray, mapping: np.ndarray) -> np.ndarray:
    """Pixels of each truth class read as each: counts (T, K), mapping (K,) -> (T, T) int64."""
    mapped = np.zeros((counts.shape[0], counts.shape[0]), np.int64)
    for row in range(counts.shape[0]):
        mapped[:, row] = counts[:, mapping == row].sum(axis=1)
    return mapped


def ious_of(mapped: np.ndarray, total: np.ndarray) -> np.ndarray:
    """IoU of each class: (T, T) of `mapped_counts`, and the truth's pixels (T,), unlabelled too."""
    hits = np.diag(mapped)
    union = total + mapped.sum(axis=0) - hits
    return np.where(total > 0, hits / np.maximum(union, 1), np.nan)


def normalised_mutual_information(counts: np.ndarray) -> float:
    """NMI over labelled pixels: 2 I(T; K) / (H(T) + H(K)), the arithmetic normalisation.

    With P = n / sum of n: I = sum of P log(P / (P[t] P[k])), H = -sum of P log P. 1 where truth
    and labels are both a single class, as scikit-learn has it; nan where nothing is labelled.
    In float64 throughout: scikit-learn's version multiplies two marginals as int64, which
    overflows at some 3e9 pixels a class, an archive of 3000 megapixels.
    """
    total = counts.sum()
    if not total:
        return math.nan
    joint = counts / total
    truth, cluster = joint.sum(axis=1), joint.sum(axis=0)
    entropies = float(entr(truth).sum() + entr(cluster).sum())
    if entropies <= 0:
        return 1.0
    information = float(rel_entr(joint, np.outer(truth, cluster)).sum())
    return min(1.0, max(0.0, 2 * information / entropies))


def purity(counts: np.ndarray) -> float:
    """Share of labelled pixels in their pseudo-class's largest truth class.

    Sum over k of max over t of n[t, k], divided by the sum of n; nan where nothing is labelled.
    It can only grow with the number of pseudo-classes: compare it at one K.
    """
    total = counts.sum()
    return float(counts.max(axis=0).sum() / total) if total else math.nan


def _parts(scored: list[LabelPair], settings: QualitySettings) -> list[list[LabelPair]]:
    """The scored images in parts of their own mapping: all in one, or as many folds as asked."""
    if settings.folds is None:
        return [scored]
    if settings.fit_only is not None:
        raise SettingsError("--folds and --fit-only are two ways to learn the mapping; give one")
    if not 2 <= settings.folds <= len(scored):
        raise SettingsError(
            f"--folds {settings.folds}: give 2 to {len(scored)}, the number of images to score"
        )
    order = np.random.default_rng(settings.seed).permutation(len(scored))
    return [
        [scored[i] for i in sorted(order[part :: settings.folds])] for part in range(settings.folds)
    ]


def _learnt_on(
    tables: list[ContingencyTable], part: int, fit_table: ContingencyTable
) -> np.ndarray:
    """Counts (T, K) that the mapping of a part is learnt on."""
    if fit_table.truth_pixels.sum():
        return fit_table.counts
    if len(tables) == 1:
        return tables[0].counts
    return _total(table.counts for index, table in enumerate(tables) if index != part)


def _total(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """The sum of arrays of one shape; there is at least one."""
    return np.sum(list(arrays), axis=0)


def _split_pairs(
    pairs: Iterable[LabelPair], settings: QualitySettings
) -> tuple[list[LabelPair], list[LabelPair]]:
    """The pairs to score and those to learn the mapping on (none without fit_only)."""
    scored = [pair for pair in pairs if _is_scored(pair.name, settings)]
    if settings.fit_only is None:
        return scored, []
    fitted = [pair for pair in pairs if _matches(pair.name, settings.fit_only)]
    if not fitted:
        raise SettingsError(f"--fit-only {settings.fit_only!r} matches no label map with truth")
    both = {pair.name for pair in scored} & {pair.name for pair in fitted}
    if both:
        raise SettingsError(
            f"{len(both)} image(s), {min(both)} for one, match --only and --fit-only; "
            "a mapping learnt on other images must not be scored on its own"
        )
    return scored, fitted


def _is_scored(name: str, settings: QualitySettings) -> bool:
    if settings.only is not None:
        return _matches(name, settings.only)
    return settings.fit_only is None or not _matches(name, settings.fit_only)


def _matches(name: str, pattern: str) -> bool:
    path = PurePosixPath(name)
    forms = (name, path.with_suffix("").as_posix(), path.name, path.stem)
    return any(fnmatchcase(form, pattern) for form in forms)


def _nothing_scored(
    pairs: tuple[LabelPair, ...], missing: tuple[Unmatched, ...], settings: QualitySettings
) -> str:
    if missing:
        return (
            f"none of {len(missing)} label map(s) has a truth file, {missing[0].name} for one: "
            f"{missing[0].reason}; both need the same relative path or stem"
        )
    globs = f"--only {settings.only!r}" if settings.only else f"--fit-only {settings.fit_only!r}"
    return f"{globs} leaves none of {len(pairs)} label map(s) to score; widen or mend the glob"


def _refuse_blind_truth(table: ContingencyTable, settings: QualitySettings) -> None:
    """Refuse truth by which any label map is perfect, or a class is lost unseen.

    A mask of 0 and 255 whose foreground is ignored, or one whose header calls the background
    nodata, leaves one class alone; of grey values the brightest is ignored.
    """
    ignored = ", ".join(map(str, settings.ignored)) or "none"
    if not table.truth_pixels.sum():
        raise SourceError(
            f"no truth pixel counts: all {table.ignored} are ignored; check --truth-ignore "
            f"({ignored}) and the files' nodata values, which --truth-ignore outranks; for a mask "
            "of 0 and 255 give --truth-threshold 127"
        )
    seen = table.values[table.truth_pixels > 0].tolist()
    if len(seen) == 1 and settings.truth_threshold is not None:
        side = "below or at" if seen[0] == 0 else "above"
        raise SettingsError(
            f"--truth-threshold {settings.truth_threshold:g}: all values of the truth that count "
            f"are {side} it, so nothing can be told from it; give a value between the two of the "
            "mask"
        )
    if len(seen) == 1 and table.ignored:
        raise SettingsError(
            f"the truth has class {seen[0]} alone, and all its other pixels ({table.ignored}) are "
            "ignored, so nothing can be told from it; for a mask of 0 and 255 give "
            "--truth-threshold 127, where its header calls a class nodata give --truth-ignore none"
        )
    is_default = settings.truth_ignore is None and settings.truth_threshold is None
    bright = [value for value in seen if value]
    if is_default and table.ignored and len(seen) <= GREYS and bright and min(bright) >= GREY:
        raise SettingsError(
            f"the truth's values {', '.join(map(str, seen))} look like greys of a picture, of "
            f"which {IGNORE} would be ignored; give --truth-ignore none where it is a class, "
            f"--truth-ignore {IGNORE} where it is none"
        )


def _class_name(value: int, names: tuple[str, ...]) -> str:
    return names[value] if 0 <= value < len(names) else str(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
