"""An item of STAC 1.0 or 1.1 as a record, and what of it cannot be."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta

from alps.engine.base.errors import SourceError
from alps.engine.base.records import BadRecordError, as_record, parse_record

T = TypeVar("T")
Text = Annotated[str, Meta(max_length=4096)]
Identifier = Annotated[str, Meta(min_length=1, max_length=1024)]
GEOMETRIES = {
    "Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2,
    "MultiPolygon": 3,
}  # fmt: skip
LEAST_OF_RING = 4  # RFC 7946, 3.1.6
# Longitude and latitude; a little more for what was rounded.
MOST = (180.0 + 1e-6, 90.0 + 1e-6)


@dataclass(frozen=True)
class Link:
    """A link of a document to another one."""

    rel: Text = ""
    href: Text = ""


@dataclass(frozen=True)
class Frame:
    """A document, its features aside."""

    type: Text = ""
    stac_version: Text = ""
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Item:
    """An item; keys that no rule here asks for are not kept."""

    type: Literal["Feature"]
    id: Identifier
    assets: dict[str, dict[str, Any]]
    properties: dict[str, Any] = field(default_factory=dict)
    geometry: dict[str, Any] | None = None
    collection: Identifier | None = None
    links: tuple[Link, ...] = ()

    @property
    def own_address(self) -> str:
        """Its link to itself, where that is absolute."""
        found = (link.href for link in self.links if link.rel == "self")
        return next((href for href in found if "://" in href), "")


def asset_value(item: Item, key: str, name: str, kind: type[T]) -> T | None:
    """A field of an asset, which by the specification the item's properties stand in for.

    Raises SourceError where it is not what it should be.
    """
    value = item.assets[key].get(name, item.properties.get(name))
    return None if value is None else value_as(value, kind, name)


def value_as(value: Any, kind: type[T], name: str) -> T:
    """A value of an item. Raises SourceError where it is not what it should be."""
    try:
        return as_record(value, kind)
    except BadRecordError as error:
        raise SourceError(f"its {name} cannot be used: {error}") from error


def parse_item(text: bytes) -> Item:
    """An item out of JSON. Raises SourceError."""
    try:
        return checked(parse_record(text, Item))
    except BadRecordError as error:
        raise SourceError(f"it is no STAC item: {error}") from error


def item_from(values: Mapping[str, Any]) -> Item:
    """An item out of plain values. Raises SourceError."""
    try:
        return checked(as_record(dict(values), Item))
    except BadRecordError as error:
        raise SourceError(f"it is no STAC item: {error}") from error


def checked(item: Item) -> Item:
    """The item. Raises SourceError where its geometry is none, or it cannot be written down."""
    for text in (item.id, item.collection or ""):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise SourceError("its id has halves of characters (\\ud800 and the like)") from None
    if item.geometry is not None:
        _check_geometry(item.geometry)
    return item


def _check_geometry(geometry: Mapping[str, Any]) -> None:
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        for one in value_as(geometry.get("geometries"), tuple[dict[str, Any], ...], "geometry"):
            if one.get("type") == "GeometryCollection":
                raise SourceError("its geometry has collections inside collections")
            _check_geometry(one)
        return
    if kind not in GEOMETRIES:
        raise SourceError(f"its geometry is of no type of GeoJSON ({kind!r:.40})")
    depth = GEOMETRIES[kind]
    for line in _lines(geometry.get("coordinates"), depth):
        for point in line:
            _check_point(point)
        is_ring = kind.endswith("Polygon")
        if is_ring and (len(line) < LEAST_OF_RING or list(line[0]) != list(line[-1])):
            raise SourceError("its geometry has a ring that is not closed, or of too few points")


def _lines(coordinates: Any, depth: int) -> Iterator[Sequence[Any]]:
    """The lowest lists of points of coordinates that are ``depth`` lists deep."""
    if not isinstance(coordinates, list) or (depth > 1 and not coordinates):
        raise SourceError("its geometry has no coordinates")
    if depth == 0:
        yield [coordinates]
    elif depth == 1:
        yield coordinates
    else:
        for one in coordinates:
            yield from _lines(one, depth - 1)


def _check_point(point: Any) -> None:
    is_point = isinstance(point, list) and 2 <= len(point) <= 4
    if not is_point or not all(_is_number(value) for value in point):
        raise SourceError("its geometry has a point that is no two or three numbers")
    if any(abs(value) > most for value, most in zip(point[:2], MOST, strict=True)):
        raise SourceError(
            f"its geometry has a point at {point[0]:g}, {point[1]:g}, which is no longitude and "
            "latitude"
        )


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) < 1e9 and math.isfinite(value)


def roles_of(asset: Mapping[str, Any]) -> tuple[str, ...]:
    """What an asset is for. Raises SourceError."""
    return tuple(value_as(asset.get("roles") or (), tuple[str, ...], "roles of an asset"))


def is_image(asset: Mapping[str, Any], suffixes: tuple[str, ...]) -> bool:
    """Whether an asset can be an image, by its media type, else by its name."""
    media = asset.get("type")
    if isinstance(media, str) and media:
        return media.startswith("image/") or bool(re.match(r"application/(x-)?geotiff", media))
    href = asset.get("href")
    return isinstance(href, str) and href.partition("?")[0].lower().endswith(suffixes)
