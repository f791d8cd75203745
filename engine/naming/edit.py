"""Changes to names, one a function: each gives new names and leaves the old ones as they are.

A cluster stands for the class that it belongs to. Errors are SettingsError.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from alps.engine.base.errors import SettingsError
from alps.engine.naming.names import MOST_CLASSES, Named, Names, Split

Edit = Callable[[Names], Names]
MOST_PARTS = 64


def name(names: Names, clusters: Sequence[int], text: str) -> Names:
    """Call the class of a cluster, or of several which become one, by a name; empty: by none."""
    merged = _merged(names, clusters)
    return _with(names, replace(merged, name=text, carried=None))


def merge(names: Names, clusters: Sequence[int]) -> Names:
    """Make one class of the classes of several clusters; it is called as the first is."""
    if len(set(clusters)) < 2:
        raise SettingsError("merging takes two clusters or more: --merge 3,8")
    return _with(names, _merged(names, clusters))


def separate(names: Names, cluster: int) -> Names:
    """Take a cluster out of its class; it has no name then."""
    whole = names.of_cluster(cluster)
    classes = [one for one in names.classes if one is not whole]
    if rest := tuple(part for part in whole.clusters if part != cluster):
        classes.append(replace(whole, clusters=rest))
    return replace(names, classes=tuple(classes))


def colour(names: Names, cluster: int, value: str) -> Names:
    """Show a class in a colour, "#rrggbb"; empty: in the palette's."""
    return _with(names, replace(names.of_cluster(cluster), colour=value.lower()))


def ignore(names: Names, cluster: int, is_ignored: bool = True) -> Names:
    """Leave a class unlabelled in label maps, or label it again."""
    return _with(names, replace(names.of_cluster(cluster), ignore=is_ignored))


def split(names: Names, cluster: int, parts: int, clusters: int) -> Names:
    """Make several clusters of one; the first keeps its number and class, others have no name yet.

    clusters: how many there are without splits.
    """
    if not 2 <= parts <= MOST_PARTS:
        raise SettingsError(f"a cluster is split into 2 to {MOST_PARTS} parts, not {parts}")
    first = names.count(clusters)
    if first + parts - 1 > MOST_CLASSES:
        raise SettingsError(f"there can be no more than {MOST_CLASSES} clusters")
    into = (cluster, *range(first, first + parts - 1))
    changed = replace(names, splits=(*names.splits, Split(cluster, into)))
    changed.refuse_unknown(clusters)
    return changed


def unsplit(names: Names, cluster: int) -> Names:
    """Take back the last split of a cluster, and those of its new parts."""
    number = max((n for n, one in enumerate(names.splits) if one.cluster == cluster), default=None)
    if number is None:
        raise SettingsError(f"cluster {cluster} is not split")
    gone = set(names.splits[number].into[1:])
    kept = list(names.splits[:number])
    for later in names.splits[number + 1 :]:
        if later.cluster in gone:
            gone.update(later.into)
        else:
            kept.append(later)
    classes = [
        replace(one, clusters=rest)
        for one in names.classes
        if (rest := tuple(part for part in one.clusters if part not in gone))
    ]
    return replace(names, classes=tuple(classes), splits=tuple(kept))


def _merged(names: Names, clusters: Iterable[int]) -> Named:
    """The classes of some clusters as one."""
    wholes = [names.of_cluster(cluster) for cluster in clusters]
    if not wholes:
        raise SettingsError("no cluster is given")
    return replace(
        wholes[0],
        clusters=tuple(sorted({part for whole in wholes for part in whole.clusters})),
        name=next((whole.name for whole in wholes if whole.name), ""),
        colour=next((whole.colour for whole in wholes if whole.colour), ""),
        ignore=all(whole.ignore for whole in wholes),
    )


def _with(names: Names, changed: Named) -> Names:
    """Names in which a class takes the place of those it shares clusters with."""
    others = [one for one in names.classes if not set(one.clusters) & set(changed.clusters)]
    return replace(names, classes=(*others, changed))
