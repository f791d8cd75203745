"""What an item says of the bands of an asset, in the words of STAC 1.0 and 1.1."""

import math
from typing import Any

from alps.engine.base.errors import SourceError
from alps.engine.stac.item import Item, asset_value, value_as

MOST_BANDS = 4096
# Of a band's name the first that is there; STAC 1.1 took common_name into the extension eo.
NAMES = ("eo:common_name", "common_name", "name", "description")
LISTS = ("bands", "eo:bands", "raster:bands")
Bands = tuple[dict[str, Any], ...]


def band_names(item: Item, key: str) -> tuple[str, ...]:
    """What the bands of an asset are called, empty where they have no names. Raises SourceError."""
    found: tuple[str, ...] = ()
    for name in LISTS:
        bands = _bands(item, key, name)
        texts = tuple(next((str(b[n]) for n in NAMES if b.get(n)), "") for b in bands)
        if any(texts) and not found:
            found = texts
    return found


def nodata_values(item: Item, key: str) -> tuple[float, ...]:
    """The nodata value of each band of an asset, NaN for none. Raises SourceError."""
    for name in LISTS:
        values = tuple(_nodata(band.get("nodata")) for band in _bands(item, key, name))
        if not all(map(math.isnan, values)):
            return values
    value = _nodata(item.assets[key].get("nodata", item.properties.get("nodata")))
    return () if math.isnan(value) else (value,)


def _bands(item: Item, key: str, name: str) -> Bands:
    bands = asset_value(item, key, name, tuple[dict[str, Any], ...]) or ()
    if len(bands) > MOST_BANDS:
        raise SourceError(f"its {name} are {len(bands)} bands; at most {MOST_BANDS} are read")
    return bands


def _nodata(value: Any) -> float:
    """A value, or the words that JSON has no number for; what is not finite is never data."""
    if value is None or value in ("nan", "inf", "-inf"):
        return math.nan
    number = value_as(value, float, "nodata")
    return number if math.isfinite(number) else math.nan
