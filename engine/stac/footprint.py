"""Where an image lies, as GeoJSON has it (RFC 7946): longitude and latitude, cut at 180 degrees."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio.warp
from rasterio.errors import RasterioError
from rasterio.transform import GCPTransformer, RPCTransformer

from alps.engine.base.errors import SourceError
from alps.engine.images.gdal import errors_of
from alps.engine.images.georeference import Georeference

WGS84 = "EPSG:4326"
SIDE_POINTS = 8  # of an edge that may be bent on the globe
STRAIGHT = 1e-3  # of its sides: what an outline may miss for the sake of few corners
DIGITS = 7  # of a degree: a centimetre
TURN, HALF = 360.0, 180.0
Ring = list[tuple[float, float]]


@dataclass(frozen=True)
class Footprint:
    """The outline of an image on the globe.

    bbox: west, south, east, north; west is larger than east where it goes past 180 degrees.
    """

    geometry: dict[str, Any]
    bbox: tuple[float, float, float, float]


def footprint_of(place: Georeference, size: tuple[int, int]) -> Footprint | None:
    """The outline of an image of ``size`` (width, height); None where it has no place on Earth."""
    try:
        with errors_of("the place of an image", "use"):
            points = _outline(place, size)
    except (SourceError, RasterioError, ValueError):
        return None
    if points is None or not np.isfinite(points).all() or np.abs(points[:, 1]).max() > 90.1:
        return None
    return outlined(points if _is_bent(points) else points[::SIDE_POINTS])


def outlined(points: np.ndarray) -> Footprint | None:
    """The polygon around points (N, 2) of longitude and latitude; None for one without area."""
    lon = np.unwrap(points[:, 0], period=TURN)
    lat = np.clip(points[:, 1], -90, 90)
    ring = list(zip(lon.tolist(), lat.tolist(), strict=True))
    # One step more, back to the beginning, says whether it went around a pole.
    turns = round((np.unwrap([lon[-1], points[0, 0]], period=TURN)[1] - lon[0]) / TURN)
    if turns:
        ring = _to_pole(ring, turns * TURN)
    west = min(x for x, _ in ring)
    shift = math.floor((west + HALF) / TURN) * TURN + (TURN if turns else 0)
    ring = [(x - shift, y) for x, y in ring]
    pieces = [_rounded(_clipped(ring, -HALF, HALF), 0.0)]
    if not turns:
        pieces.append(_rounded(_clipped(ring, HALF, HALF + TURN), TURN))
    rings = [piece for piece in pieces if piece]
    if not rings:
        return None
    south, north = (choose(y for ring in rings for _, y in ring) for choose in (min, max))
    if len(rings) == 2:
        bbox = (min(x for x, _ in rings[0]), south, max(x for x, _ in rings[1]), north)
    else:
        bounds = [choose(x for ring in rings for x, _ in ring) for choose in (min, max)]
        bbox = (bounds[0], south, bounds[1], north)
    if len(rings) == 1:
        return Footprint({"type": "Polygon", "coordinates": [rings[0]]}, bbox)
    return Footprint({"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}, bbox)


def _to_pole(ring: Ring, turn: float) -> Ring:
    """What lies between a line around the Earth and its pole, twice side by side.

    turn: degrees from the beginning of the line to its end.
    """
    start, latitude = ring[0]
    pole = math.copysign(90.0, max((y for _, y in ring), key=abs))
    twice = [(x + turn * times, y) for times in (0, 1) for x, y in ring]
    end = start + 2 * turn
    return [*twice, (end, latitude), (end, pole), (start, pole)]


def _outline(place: Georeference, size: tuple[int, int]) -> np.ndarray | None:
    """Points (N, 2) around an image, longitude and latitude."""
    columns, rows = _edge(size)
    if place.gcps:
        x, y = GCPTransformer(list(place.gcps)).xy(rows, columns, offset="ul")
        crs = place.crs
    elif place.transform is not None and place.crs:
        x, y = place.transform * (columns, rows)
        crs = place.crs
    elif place.rpcs is not None:
        # On the surface that the polynomials are centred on: relief moves it by some pixels.
        with RPCTransformer(place.rpcs) as transformer:
            heights = np.full(len(rows), place.rpcs.height_off)
            x, y = transformer.xy(rows, columns, heights, offset="ul")
        crs = WGS84
    else:
        return None
    if not crs:
        return None
    return np.stack(rasterio.warp.transform(crs, WGS84, np.asarray(x), np.asarray(y)), axis=1)


def _is_bent(points: np.ndarray) -> bool:
    """Whether edges from corner to corner would miss points between them."""
    line = np.stack([np.unwrap(points[:, 0], period=TURN), points[:, 1]], axis=1)
    if np.ptp(line[:, 0]) > HALF / 2:  # corners alone would not say which way round
        return True
    corners = line[::SIDE_POINTS]
    ahead = np.concatenate([corners[1:], line[:1]])
    share = np.tile(np.arange(SIDE_POINTS) / SIDE_POINTS, 4)[:, None]
    straight = np.repeat(corners, SIDE_POINTS, 0) * (1 - share)
    straight += np.repeat(ahead, SIDE_POINTS, 0) * share
    return bool((np.abs(line - straight).max(0) > STRAIGHT * np.ptp(line, axis=0)).any())


def _edge(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of points around an image."""
    steps = np.arange(SIDE_POINTS) / SIDE_POINTS
    ahead, none, full = steps, np.zeros(SIDE_POINTS), np.ones(SIDE_POINTS)
    columns = np.concatenate([none, ahead, full, 1 - ahead])
    rows = np.concatenate([ahead, full, 1 - ahead, none])
    return columns * size[0], rows * size[1]


def _clipped(ring: Ring, west: float, east: float) -> Ring:
    """The part of a polygon between two meridians (Sutherland and Hodgman, 1974)."""
    for limit, sign in ((west, 1.0), (east, -1.0)):
        kept: Ring = []
        for (x, y), (x2, y2) in zip(ring, [*ring[1:], *ring[:1]], strict=True):
            if sign * (x - limit) >= 0:
                kept.append((x, y))
            if sign * (x - limit) * sign * (x2 - limit) < 0:
                kept.append((limit, y + (y2 - y) * (limit - x) / (x2 - x)))
        ring = kept
    return ring


def _rounded(ring: Ring, shift: float) -> list[list[float]]:
    """A closed ring, counterclockwise; empty where nothing is left of it."""
    points: list[list[float]] = []
    for x, y in ring:
        point = [round(x - shift, DIGITS) + 0.0, round(y, DIGITS) + 0.0]
        if not points or point != points[-1]:
            points.append(point)
    if len(points) > 1 and points[0] == points[-1]:
        points.pop()
    area = _area(points)
    if len(points) < 3 or area == 0:
        return []
    if area < 0:
        points.reverse()
    # Begins at the same corner whichever way it was walked.
    first = points.index(min(points))
    points = points[first:] + points[:first]
    return [*points, points[0]]


def _area(points: Sequence[Sequence[float]]) -> float:
    """Twice the signed area, in square degrees."""
    pairs = zip(points, [*points[1:], *points[:1]], strict=True)
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)
