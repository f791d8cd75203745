"""The report of all that is wrong with a data set, before anything is trained on it."""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import SourceError, printable
from alps.trainer.data.cache import Cache
from alps.trainer.data.find import Problem

SHOWN = 5  # of each kind on the screen; the file has all
# A source that could not be opened when the archive was labelled was reported then.
HARMLESS = ("unlabelled source",)


def check(cache: Cache, splits: tuple[str, ...], file: Path, *, skip_bad: bool) -> None:
    """Say everything that is wrong at once; write it to ``file`` too.

    Raises:
        SourceError: something is wrong and ``skip_bad`` was not asked for, or a split is empty.
    """
    empty = [
        Problem("empty split", name, _why_empty(cache, name))
        for name in splits
        if not any(sum(pair.class_pixels) for pair in cache.split(name))
    ]
    problems = [*empty, *cache.problems]
    if problems:
        lines = describe(problems, most=None)
        write_text(file, "\n".join(lines) + "\n")
        print("\n".join(describe(problems, most=SHOWN)), file=sys.stderr)
    if empty:
        raise SourceError(f"{empty[0].where}: {empty[0].text}; the whole report is in {file}")
    bad = [problem for problem in problems if problem.kind not in HARMLESS]
    if bad and not skip_bad:
        raise SourceError(
            f"{len(bad)} problems with the data, listed above and in {file}; mend them, or give "
            "--skip-bad to go on without those pairs"
        )


def describe(problems: list[Problem], most: int | None) -> list[str]:
    """Lines of text, by kind; at most ``most`` of each."""
    kinds: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        kinds[problem.kind].append(problem)
    lines = []
    for kind, some in kinds.items():
        lines.append(f"{kind}: {len(some)}")
        lines += [printable(f"  {problem.where}: {problem.text}") for problem in some[:most]]
        if most is not None and len(some) > most:
            lines.append(f"  … and {len(some) - most} more")
    return lines


def class_shares(cache: Cache, split: str) -> np.ndarray:
    """Share of the labelled pixels that each class has, (C,) float64."""
    counts = np.zeros(len(cache.rules.classes))
    for pair in cache.split(split):
        counts += pair.class_pixels
    return counts / max(counts.sum(), 1)


def _why_empty(cache: Cache, name: str) -> str:
    if cache.split(name):
        return f"no pixel of its {len(cache.split(name))} images has a class"
    return "has no usable pair; check --train, --test, --hold-out and the folders' names"
