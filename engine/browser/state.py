"""What the page shows of a run: its classes, as plain values for JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alps.engine.browser.survey import EXEMPLARS, Survey
from alps.engine.images.dates import date_words
from alps.engine.labels.palette import palette
from alps.engine.naming.names import Named, Names, shown_classes
from alps.engine.stages.naming import Suggestion

AT_ONCE = 512  # classes whose distances to all others are in memory
NEAREST = 4  # classes named beside each
SOURCES_SAID = 3  # of each class, those that have most of it
DOUBTFUL = 2 / 3  # of a class's area that had its name before; less is to be looked at


def described(
    names: Names, survey: Survey, suggestions: Mapping[int, Suggestion]
) -> list[dict[str, Any]]:
    """All classes, those first that somebody should look at."""
    shown = shown_classes(names, palette(len(survey.area)))
    classes = _classes(names, survey.numbers)
    total = max(int(survey.area.sum()), 1)
    near = _nearest(classes, survey)
    found = []
    for one in classes:
        area = int(survey.area[list(one.clusters)].sum())
        suggestion = suggestions.get(one.value)
        found.append(
            {
                "value": one.value,
                "name": one.name,
                "clusters": [
                    {"number": number, "share": int(survey.area[number]) / total}
                    for number in one.clusters
                ],
                "splits": sorted({s.cluster for s in names.splits} & set(one.clusters)),
                "colour": "#{:02x}{:02x}{:02x}".format(*shown.colours[one.value]),
                "ownColour": bool(one.colour),
                "ignore": one.ignore,
                "carried": one.carried,
                "doubtful": _is_doubtful(one),
                "share": area / total,
                "near": near[one.value],
                "exemplars": _exemplars(one, survey),
                "suggestion": suggestion
                and {"name": suggestion.name, "share": float(suggestion.share)},
            }
            | _places(one, survey)
        )
    return sorted(found, key=_order)


def _is_doubtful(one: Named) -> bool:
    return one.carried is not None and one.carried < DOUBTFUL


def _order(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Doubtful names, then classes without a name, then named ones, then ignored ones."""
    if entry["doubtful"]:
        return 0, entry["carried"], entry["value"]
    kind = 3 if entry["ignore"] else 2 if entry["name"] else 1
    return kind, -entry["share"], entry["value"]


def _classes(names: Names, numbers: Sequence[int]) -> list[Named]:
    """Each class once, those that nobody said anything of too."""
    owner = {cluster: one for one in names.classes for cluster in one.clusters}
    found = (owner.get(number) or Named((number,)) for number in numbers)
    return list({one.value: one for one in found}.values())


def _nearest(classes: list[Named], survey: Survey) -> dict[int, list[int]]:
    """By the value of each class the values of the ones whose centroids are nearest."""
    centres = np.stack([_centre(one, survey) for one in classes])
    squares = (centres**2).sum(axis=1)
    most = min(NEAREST, len(classes) - 1)
    found = {}
    for start in range(0, len(classes), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(classes)))
        distance = squares - 2 * centres[rows] @ centres.T  # but for what a row has in common
        distance[np.arange(len(rows)), rows] = np.inf
        order = np.argpartition(distance, max(most - 1, 0))[:, :most]
        order = np.take_along_axis(order, np.take_along_axis(distance, order, 1).argsort(1), 1)
        for row, nearest in zip(rows.tolist(), order.tolist(), strict=True):
            found[classes[row].value] = [classes[index].value for index in nearest]
    return found


def _centre(one: Named, survey: Survey) -> np.ndarray:
    """The mean of its clusters' centroids by area, (D,) float64."""
    own = list(one.clusters)
    weights = survey.area[own] + 1.0  # also where the sample has none of it
    return np.average(survey.centroids[own].astype(np.float64), axis=0, weights=weights)


def _exemplars(one: Named, survey: Survey) -> list[dict[str, Any]]:
    """Of each cluster in turn, the largest first; which picture, and where it is from."""
    own = sorted(one.clusters, key=lambda number: -survey.area[number])
    turns = [
        (number, place, survey.exemplars[number][place])
        for place in range(EXEMPLARS)
        for number in own
        if place < len(survey.exemplars.get(number, ()))
    ]
    return [
        {
            "since": survey.since[number],
            "cluster": number,
            "place": place,
            "scene": region.source_index,
            "source": survey.rows[region.source_index].source,
            "x": region.x + region.width // 2,
            "y": region.y + region.height // 2,
        }
        for number, place, region in turns[:EXEMPLARS]
        if region.source_index in survey.rows
    ]


def _places(one: Named, survey: Survey) -> dict[str, Any]:
    """In which sources a class is, how many, and when they were taken."""
    first, end = (
        np.searchsorted(survey.clusters, one.clusters, side) for side in ("left", "right")
    )
    mine = np.concatenate([np.arange(*ends) for ends in zip(first, end, strict=True)])
    index, which = np.unique(survey.sources[mine], return_inverse=True)
    pixels = np.bincount(which, survey.pixels[mine], len(index))
    largest = index[np.argsort(-pixels, kind="stable")][:SOURCES_SAID].tolist()
    dates = sorted(survey.dates[i] for i in index.tolist() if i in survey.dates)
    return {
        "sources": len(index),
        "mainly": [survey.rows[i].source for i in largest if i in survey.rows],
        "dates": [date_words(date) for date in sorted({*dates[:1], *dates[-1:]})],
    }
