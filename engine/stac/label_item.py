"""A label map as an item of STAC 1.1, and a run's label maps as a collection.

Extensions: label, classification, projection, file.
"""

import re
import unicodedata
from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alps.engine.base.digests import fingerprint
from alps.engine.images.dates import UNKNOWN, date_iso
from alps.engine.images.facts.said import NOTHING, Said
from alps.engine.images.georeference import Georeference
from alps.engine.stac.footprint import footprint_of

VERSION = "1.1.0"
LABEL = "https://stac-extensions.github.io/label/v1.0.1/schema.json"
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
ASSET = "labels"
ROLES = ["data", "labels", "labels-raster"]
JSON, GEOJSON = "application/json", "application/geo+json"
TIFF = "image/tiff; application=geotiff"
PNG = "image/png"
# STAC knows no item without a time. Where nothing says when an image was taken, it was within:
EVER = ("1900-01-01T00:00:00Z", "2099-12-31T23:59:59Z")
MOST_LETTERS = 180  # of an id that is a name: files are called by it
SHA256 = "1220"  # of multihash: which sum it is, and its 32 bytes
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class LabelValue:
    """A value that pixels of label maps have."""

    value: int
    name: str  # as people named it
    colour: str  # rrggbb
    word: str  # the name in letters, digits, - and _; no other value has it


@dataclass(frozen=True)
class MapFile:
    """The file of a label map."""

    name: str  # below labels/
    href: str
    size: tuple[int, int]  # width, height
    dtype: str
    unlabelled: int
    bytes: int | None = None
    sha256: str = ""


@dataclass(frozen=True)
class Labelled:
    """All that an item says of one label map.

    counts: pixels by value, of the values that it shows; None where nobody counted.
    date: as of ``dates``, where no catalogue says when.
    """

    file: MapFile
    place: Georeference
    source: str
    said: Said = NOTHING
    date: int = UNKNOWN
    counts: dict[int, int] | None = None


def label_values(named: Iterable[tuple[int, str, str]]) -> list[LabelValue]:
    """Values with their names and colours; and a word for each, for machines."""
    found: list[LabelValue] = []
    taken: set[str] = set()
    for value, name, colour in named:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        word = re.sub(r"[^0-9A-Za-z_-]+", "-", plain).strip("-") or f"class-{value}"
        while word in taken:
            word = f"{word}-{value}"
        taken.add(word)
        found.append(LabelValue(value, name, colour, word))
    return found


def id_of(name: str) -> str:
    """The id of the item of a label map, by its name below labels/: no two have one.

    Ids are a part of addresses, so there are no slashes and no spaces in them.
    """
    stem = name.removesuffix(".tif")
    if stem.endswith((".tif", ".png")):
        stem = name
    found = stem.replace("/", "--")
    if "--" in stem or not _PLAIN.fullmatch(found) or len(found) > MOST_LETTERS:
        plain = unicodedata.normalize("NFKD", found).encode("ascii", "ignore").decode()
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", plain)[-MOST_LETTERS:]
        found = f"{plain.lstrip('.')}-{fingerprint(name)}"
    return found


def item_of(
    labelled: Labelled, values: Sequence[LabelValue], about: str, links: list[dict[str, str]]
) -> dict[str, Any]:
    """The item of a label map.

    values: of the whole run. about: how labels came to be. links: to its catalogue, with ``rel``
    and ``href``.
    """
    file, counts = labelled.file, labelled.counts
    own = [v for v in values if counts is None or counts.get(v.value)]
    footprint = footprint_of(labelled.place, file.size)
    projection = _projection(labelled.place, file.size)
    properties: dict[str, Any] = {
        **times_of(labelled.said, labelled.date),
        "label:type": "raster",
        "label:properties": None,
        "label:description": f"{about} Image: {labelled.source}.",
        "label:tasks": ["segmentation"],
        "label:methods": ["automated"],
        "label:classes": [{"name": None, "classes": [value.name for value in own]}],
    }
    if counts is not None:
        pairs = [{"name": v.name, "count": counts[v.value]} for v in own]
        properties["label:overviews"] = [{"counts": pairs}]
    extensions = [LABEL, CLASSIFICATION, *([PROJECTION] if projection else []), FILE]
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": extensions,
        "id": id_of(file.name),
        "geometry": footprint.geometry if footprint else None,
        **({"bbox": list(footprint.bbox)} if footprint else {}),
        "properties": properties | projection,
        "links": links + _source_links(labelled.said),
        "assets": {ASSET: _asset(file, own)},
    }


def times_of(said: Said, date: int) -> dict[str, str | None]:
    """When an image was taken: an instant, or null and what it lies within."""
    if said.datetime:
        more = {"start_datetime": said.start_datetime, "end_datetime": said.end_datetime}
        return {"datetime": said.datetime, **(more if all(more.values()) else {})}
    begin, end = said.start_datetime, said.end_datetime
    if not (begin and end):
        begin, end = EVER if date == UNKNOWN else _within(date)
    return {"datetime": None, "start_datetime": begin, "end_datetime": end}


def classes_of(values: Sequence[LabelValue], unlabelled: int) -> list[dict[str, Any]]:
    """The classes as the classification extension has them, and what means none."""
    found: list[dict[str, Any]] = [
        {"value": v.value, "name": v.word, "title": v.name, "color_hint": v.colour.upper()}
        for v in values
    ]
    none = "unlabelled"
    while any(v.word == none for v in values):
        none += "_"
    return [*found, {"value": unlabelled, "name": none, "title": "Unlabelled", "nodata": True}]


def bounds_joined(
    known: Sequence[float] | None, more: Sequence[float] | None
) -> tuple[float, float, float, float] | None:
    """The bbox around two; once one goes past 180 degrees, it is around the Earth."""
    if known is None or more is None:
        found = known if more is None else more
        return None if found is None else (found[0], found[1], found[2], found[3])
    south, north = min(known[1], more[1]), max(known[3], more[3])
    if known[0] > known[2] or more[0] > more[2]:
        return -180.0, south, 180.0, north
    return min(known[0], more[0]), south, max(known[2], more[2]), north


def _asset(file: MapFile, values: Sequence[LabelValue]) -> dict[str, Any]:
    sums = {
        "file:size": file.bytes,
        "file:checksum": SHA256 + file.sha256 if file.sha256 else None,
    }
    return {
        "href": file.href,
        "type": TIFF if file.name.endswith(".tif") else PNG,
        "title": "Label map",
        "roles": ROLES,
        "data_type": file.dtype,
        "nodata": file.unlabelled,
        "classification:classes": classes_of(values, file.unlabelled),
        **{name: value for name, value in sums.items() if value is not None},
    }


def _projection(place: Georeference, size: tuple[int, int]) -> dict[str, Any]:
    """What the projection extension says of a place; nothing of none."""
    if not place.crs:
        return {}
    code = place.crs.to_authority()
    found: dict[str, Any] = {"proj:code": ":".join(code) if code else None}
    if code is None:
        found["proj:wkt2"] = place.crs.to_wkt(version="WKT2_2019")
    found["proj:shape"] = [size[1], size[0]]
    if place.transform is not None:
        found["proj:transform"] = [round(value, 12) + 0.0 for value in place.transform[:6]]
    return found


def _source_links(said: Said) -> list[dict[str, str]]:
    """To the item of the image."""
    if not said.address:
        return []
    return [
        {"rel": rel, "href": said.address, "type": GEOJSON, "title": said.id}
        for rel in ("derived_from", "source")
    ]


def _within(date: int) -> tuple[str, str]:
    """The first and the last second of a day, a month or a year."""
    year, month, day = date // 10_000, date // 100 % 100, date % 100
    text = date_iso(date)
    first = {0: f"{text}-01-01", 1: f"{text}-01", 2: text}[bool(month) + bool(day)]
    last = first
    if not month:
        last = f"{text}-12-31"
    elif not day:
        last = f"{text}-{_days(year, month):02d}"
    return f"{first}T00:00:00Z", f"{last}T23:59:59Z"


def _days(year: int, month: int) -> int:

    return monthrange(year, month)[1]
