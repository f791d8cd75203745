"""names.json: what people say about clusters. Which are one class, its name, and how it is shown.

    {"classes": [
      {"clusters": [17], "name": "water", "colour": "#3a7bd5"},
      {"clusters": [3, 8], "name": "grass"},
      {"clusters": [12], "name": "cloud", "ignore": true}],
     "splits": [
      {"cluster": 5, "into": [5, 46]}]}

A class has the lowest number of its clusters in label maps. Where a cluster is split, its first
part keeps the number, and the others take numbers that no cluster has. Classes of one name are one
class. What nobody named stays as it is.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.base.records import BadRecordError, Sha256, parse_record, read_small
from alps.engine.run_folder.folder import RunFolder

MOST_CLASSES = 65_535
MOST_LETTERS = 100  # of a name; longer ones fit no legend and are cut
COLOUR = re.compile("#[0-9a-fA-F]{6}")
MEND = "mend it there, or remove it: then classes have no names"
ClassId = Annotated[int, Meta(ge=0, lt=MOST_CLASSES)]


@dataclass(frozen=True)
class Named:
    """A class, as a person sees it."""

    clusters: Annotated[tuple[ClassId, ...], Meta(min_length=1)]
    name: str = ""
    colour: str = ""  # "#rrggbb"; empty: the palette's
    ignore: bool = False  # unlabelled in label maps
    # Of its area, what had this name under other clusters; None where somebody said it of these.
    carried: Annotated[float, Meta(ge=0, le=1)] | None = None

    @property
    def value(self) -> int:
        """What its pixels have in label maps."""
        return min(self.clusters)

    @property
    def says_nothing(self) -> bool:
        """Whether all of it is as if nobody had named it."""
        return not (self.name or self.colour or self.ignore or len(self.clusters) > 1)


@dataclass(frozen=True)
class Split:
    """A cluster that is several."""

    cluster: ClassId
    into: Annotated[tuple[ClassId, ...], Meta(min_length=2)]  # its own number, then new ones


@dataclass(frozen=True)
class Names:
    """What is said about the clusters of an archive; checked, and in the order of their numbers."""

    classes: tuple[Named, ...] = ()
    splits: tuple[Split, ...] = ()
    clusters: Sha256 | None = None  # of the centroids that were named; None: whichever

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "classes", tuple(_joined(self.classes)))

    def of_cluster(self, cluster: int) -> Named:
        """The class that a cluster belongs to."""
        return next((one for one in self.classes if cluster in one.clusters), Named((cluster,)))

    def count(self, clusters: int) -> int:
        """How many numbers there are, of ``clusters`` and their parts; some may be unused."""
        return max([clusters - 1, *(part for split in self.splits for part in split.into)]) + 1

    def refuse_unknown(self, clusters: int) -> None:
        """Raise SettingsError where a number is none of ``clusters`` clusters and their parts."""
        known = set(range(clusters))
        for split in self.splits:
            if split.cluster not in known or known.intersection(split.into[1:]):
                raise SettingsError(
                    f"cluster {split.cluster} cannot be split into {split.into}: there are "
                    f"{clusters} clusters, and a new part takes a number that none has"
                )
            known.update(split.into)
        for one in self.classes:
            for cluster in set(one.clusters) - known:
                raise SettingsError(
                    f"there is no cluster {cluster}, only 0 to {max(known)}, to be "
                    f"{one.name or 'a class'!r}"
                )

    def text(self) -> str:
        """The content of names.json, a line a class and a split."""
        about = {"clusters": self.clusters} if self.clusters else {}
        lists: dict[str, tuple[Named | Split, ...]]
        lists = {"classes": self.classes, "splits": self.splits}
        parts = [f'"{name}": {json.dumps(value)}' for name, value in about.items()]
        for name, entries in lists.items():
            lines = ",\n".join(f"  {_line(entry)}" for entry in entries)
            parts.append(f'"{name}": [\n{lines}\n ]' if lines else f'"{name}": []')
        return "{" + ",\n ".join(parts) + "}\n"

    @property
    def sha256(self) -> str:
        """Of all that decides what label maps show."""
        return fingerprint([asdict(replace(one, carried=None)) for one in self.classes])


@dataclass(frozen=True)
class ShownClasses:
    """How clusters and their parts are shown, by number; N of them."""

    values: np.ndarray  # (N,) int32 in label maps, -1: unlabelled
    names: tuple[str, ...]
    colours: np.ndarray  # (N, 3) uint8
    ignored: np.ndarray  # (N,) bool


def shown_classes(names: Names, palette: np.ndarray) -> ShownClasses:
    """What ``names`` make of the numbers 0…N-1; palette: (N, 3) uint8 of those without a colour."""
    values = np.arange(len(palette), dtype=np.int32)
    words = [f"cluster {number}" for number in range(len(palette))]
    colours, ignored = np.array(palette, np.uint8), np.zeros(len(palette), bool)
    for one in names.classes:
        own = [number for number in one.clusters if number < len(palette)]
        values[own] = -1 if one.ignore else one.value
        ignored[own] = one.ignore
        for number in own:
            words[number] = one.name or f"cluster {one.value}"
            colours[number] = rgb(one.colour) if one.colour else palette[one.value]
    return ShownClasses(values, tuple(words), colours, ignored)


def read_names(folder: RunFolder) -> Names:
    """Those of a run; none where nobody gave any. Raises RunFolderError as ``read_names_file``."""
    return read_names_file(folder.names)


def read_names_file(path: Path) -> Names:
    """Those in a file; none where it is not there.

    Raises RunFolderError where it is not as it should be, also where a person wrote it.
    """
    try:
        return names_in(read_small(path))
    except FileNotFoundError:
        return Names()
    except (OSError, BadRecordError) as error:
        why = getattr(error, "strerror", None) or error
        raise RunFolderError(f"cannot read {path}: {why}; {MEND}") from error


def names_in(text: str | bytes) -> Names:
    """The content of names.json. Raises BadRecordError."""
    record: Any = parse_record(text, dict[str, Any])
    unknown = set(record) - {field.name for field in fields(Names)}
    if unknown:  # a person's slip would else do nothing
        raise BadRecordError(f"it has the key {sorted(unknown)[0]!r}, which means nothing")
    try:
        return parse_record(text, Names)
    except SettingsError as error:
        raise BadRecordError(str(error)) from error


def cleaned(name: str) -> str:
    """A name in one line that turns nothing around it: no control or direction marks, not long."""
    kept = (" " if unicodedata.category(letter) in _UNSEEN else letter for letter in name)
    words = " ".join("".join(kept).split())
    return words if len(words) <= MOST_LETTERS else words[: MOST_LETTERS - 1].rstrip() + "…"


_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # general categories of Unicode


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of "#rrggbb"."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def _check(names: Names) -> None:
    """Raise SettingsError where what is said contradicts itself."""
    seen: dict[int, Named] = {}
    for one in names.classes:
        if one.colour and not COLOUR.fullmatch(one.colour):
            raise SettingsError(
                f"the colour {one.colour[:20]!r} of class {one.value} is none; write #rrggbb"
            )
        for cluster in one.clusters:
            if seen.setdefault(cluster, one) is not one:
                raise SettingsError(f"cluster {cluster} is named twice; a cluster is of one class")
    for split in names.splits:
        if split.into[0] != split.cluster or len(set(split.into)) < len(split.into):
            raise SettingsError(
                f"cluster {split.cluster} is split into {split.into}; the first part keeps the "
                "number of the cluster, and all differ"
            )


def _joined(classes: Iterable[Named]) -> list[Named]:
    """Classes of one name put together, in the order of their values; names are cleaned."""
    found: dict[str | int, Named] = {}
    for one in classes:
        clean = replace(one, clusters=tuple(sorted(set(one.clusters))), name=cleaned(one.name))
        key = clean.name or clean.value
        if key in found:
            clean = _both(found[key], clean)
        found[key] = clean
    said = (one for one in found.values() if not one.says_nothing)
    return sorted(said, key=lambda one: one.value)


def _both(first: Named, second: Named) -> Named:
    shares = [one.carried for one in (first, second) if one.carried is not None]
    return replace(
        first,
        clusters=tuple(sorted({*first.clusters, *second.clusters})),
        colour=first.colour or second.colour,
        ignore=first.ignore or second.ignore,
        carried=min(shares, default=None),
    )


def _line(entry: Named | Split) -> str:
    """An entry without what is as by default."""
    values = asdict(entry)
    wanted = {
        field.name: values[field.name]
        for field in fields(entry)
        if values[field.name] != field.default
    }
    return json.dumps(wanted, ensure_ascii=False)
