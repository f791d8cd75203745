"""What an item says of the image that is its asset: place, size, bands, nodata, date."""

import math
import re
from datetime import UTC, datetime
from typing import Any

from alps.engine.base.errors import SourceError
from alps.engine.base.records import Side
from alps.engine.images.dates import UNKNOWN
from alps.engine.images.facts.said import Said
from alps.engine.stac.assets import Chosen
from alps.engine.stac.bands import band_names, nodata_values
from alps.engine.stac.item import Item, Text, asset_value, value_as

# GDAL would take an address or a file for a CRS too.
_AUTHORITY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{1,19}:[A-Za-z0-9_.]{1,24}")
_WKT = re.compile(r"\s*[A-Z][A-Za-z_]{3,40}\s*\[")
LARGEST = 1e12  # a coordinate or a size of a pixel beyond it is none


def said_by(item: Item, chosen: Chosen, address: str) -> Said:
    """All that counts of an item. Raises SourceError where that cannot be.

    address: of the item, where it has none of its own.
    """
    key = chosen.key
    shape = asset_value(item, key, "proj:shape", tuple[Side, Side])
    height, width = shape or (0, 0)
    instants = {
        name: _instant(item.properties.get(name), name)
        for name in ("datetime", "start_datetime", "end_datetime")
    }
    return Said(
        id=item.id,
        collection=item.collection or "",
        address=item.own_address or address,
        asset=key,
        chosen_by=chosen.rule,
        date=_date(*instants.values()),
        **instants,
        band_names=band_names(item, key),
        nodata=nodata_values(item, key),
        width=width,
        height=height,
        crs=_crs(item, key),
        transform=_transform(item, key, width, height),
    )


def _crs(item: Item, key: str) -> str:
    code = asset_value(item, key, "proj:code", Text)
    if code is None and (epsg := asset_value(item, key, "proj:epsg", int)) is not None:
        code = f"EPSG:{epsg}"
    if code is not None:
        if not _AUTHORITY.fullmatch(code):
            raise SourceError(f"its proj:code {code!r:.60} is no AUTHORITY:CODE, EPSG:32633 say")
        return code
    wkt = asset_value(item, key, "proj:wkt2", str)
    if wkt is not None and not _WKT.match(wkt):
        raise SourceError("its proj:wkt2 is no WKT")
    return wkt or ""


def _transform(item: Item, key: str, width: int, height: int) -> tuple[float, ...]:
    values = asset_value(item, key, "proj:transform", tuple[float, ...])
    if values is None:
        box = asset_value(item, key, "proj:bbox", tuple[float, ...])
        if box is None or len(box) not in (4, 6) or not width:
            return ()
        half = len(box) // 2
        (left, bottom), (right, top) = box[:2], box[half : half + 2]
        values = ((right - left) / width, 0.0, left, 0.0, (bottom - top) / height, top)
    if len(values) not in (6, 9):
        raise SourceError(f"its proj:transform has {len(values)} numbers, not 6 or 9")
    a, b, c, d, e, f = values[:6]
    if not all(math.isfinite(v) and abs(v) < LARGEST for v in values) or a * e - b * d == 0:
        raise SourceError("its proj:transform or proj:bbox leads to no place")
    return a, b, c, d, e, f


def _instant(value: Any, name: str) -> str:
    """A time as RFC 3339 has it; empty for none."""
    if value is None:
        return ""
    text = value_as(value, Text, name)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise SourceError(f"its {name} {text!r:.40} is no date and time") from None
    # Those without a zone are UTC by the specification.
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.isoformat().replace("+00:00", "Z")


def _date(instant: str, start: str, end: str) -> int:
    """As of ``dates``: as much as beginning and end have in common."""
    begin, finish = (instant, instant) if instant else (start, end)
    if not (begin and finish) or begin[:4] != finish[:4]:
        return UNKNOWN
    year, month, day = int(begin[:4]), int(begin[5:7]), int(begin[8:10])
    if begin[:7] != finish[:7]:
        return year * 10_000
    return year * 10_000 + month * 100 + (day if begin[:10] == finish[:10] else 0)
