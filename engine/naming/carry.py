"""Names that follow what they name to other clusters of the same regions."""

from dataclasses import dataclass, replace

import numpy as np

from alps.engine.naming.names import Named, Names

SAME = 0.999  # of a class's area: nothing changed but its number
DOUBTFUL = 2 / 3  # of a class's area that had its name before; less is said


@dataclass(frozen=True)
class Carried:
    """What became of names."""

    names: Names
    lost: tuple[Named, ...]  # of which no cluster is the most

    def words(self) -> list[str]:
        """What a person should look at, a line each."""
        doubtful = [
            f"{one.name or f'class {one.value}'}: {one.carried:.0%} of it had that name before"
            for one in self.names.classes
            if one.carried is not None and one.carried < DOUBTFUL
        ]
        lost = [
            f"{one.name or f'class {one.value}'}: no cluster is mostly of it" for one in self.lost
        ]
        return doubtful + lost


def carried(names: Names, shared: np.ndarray) -> Carried:
    """Bring names to other clusters: each takes that of the class that most of its area had.

    Args:
        names: of the clusters before.
        shared: (new clusters, clusters before) pixels that have the one now and had the other.

    Clusters that are mostly of what nobody named have no name.
    """
    count = shared.shape[1]
    # The class of each cluster before: those that were named first, then each other by itself.
    owner = np.arange(count) + len(names.classes)
    for index, one in enumerate(names.classes):
        owner[[cluster for cluster in one.clusters if cluster < count]] = index
    by_class = np.zeros((shared.shape[0], len(names.classes) + count))
    np.add.at(by_class.T, owner, shared.T)
    best, area = by_class.argmax(axis=1), by_class.sum(axis=1)
    found, lost = [], []
    for index, one in enumerate(names.classes):
        own = np.flatnonzero((best == index) & (area > 0))
        if not len(own):
            lost.append(one)
            continue
        share = float(by_class[own, index].sum() / area[own].sum())
        found.append(
            replace(
                one, clusters=tuple(own.tolist()), carried=None if share > SAME else round(share, 4)
            )
        )
    return Carried(Names(tuple(found)), tuple(lost))
