"""When an image was taken: from its name, or from its TIFF tag.

A date is one whole number, 20120701; month and day are 0 where only the year is known.
"""

import re
from datetime import date

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from alps.engine.base.errors import SourceError
from alps.engine.images.facts.said import SaidTable
from alps.engine.images.gdal import open_dataset

UNKNOWN = 0
EARLIEST = 1900  # numbers below are no years of aerial images
_DAY = re.compile(r"(?<!\d)(\d{4})([-_.]?)(\d{2})\2(\d{2})(?:\d{4}|\d{6})?(?!\d)")
_YEAR = re.compile(r"(?<!\d)(\d{4})(?!\d)")
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def date_in_name(name: str, latest: int) -> int:
    """The date in a name or path: yyyymmdd or yyyy-mm-dd, else yyyy; UNKNOWN where there is none,
    or where there are several.

    latest: the last year that it may be.
    """
    days = {
        int(year) * 10_000 + int(month) * 100 + int(day)
        for year, _, month, day in _DAY.findall(name)
        if EARLIEST <= int(year) <= latest and _is_date(int(year), int(month), int(day))
    }
    if days:
        return days.pop() if len(days) == 1 else UNKNOWN
    years = {int(year) for year in _YEAR.findall(name) if EARLIEST <= int(year) <= latest}
    return years.pop() * 10_000 if len(years) == 1 else UNKNOWN


def date_in_tags(path: str, latest: int) -> int:
    """The date in a TIFF's tag DateTime; UNKNOWN where it has none."""
    try:
        with open_dataset(path) as file:
            text = str(file.tags().get("TIFFTAG_DATETIME", ""))
    except (SourceError, RasterioError, CPLE_BaseError, OSError):
        return UNKNOWN
    found = re.match(r"\d{4}[:-]\d{2}[:-]\d{2}", text)
    return date_in_name(found[0].replace(":", "-"), latest) if found else UNKNOWN


def date_of(name: str, path: str, latest: int, said: SaidTable | None, tags: bool = True) -> int:
    """The date of an image: by its catalogue, else in its name, else in its tags.

    name: in its archive. said: what a catalogue says, if one does. tags: whether the file may be
    opened for it.
    """
    date = 0 if said is None else said.of(path).date
    if date == UNKNOWN:
        date = date_in_name(name, latest)
    return date_in_tags(path, latest) if date == UNKNOWN and tags else date


def date_words(value: int) -> str:
    """20120701 → 1 Jul 2012, 20120700 → Jul 2012, 20120000 → 2012."""
    year, month, day = value // 10_000, value // 100 % 100, value % 100
    words = [str(day)] if day else []
    words += [MONTHS[month - 1]] if month else []
    return " ".join([*words, str(year)])


def date_iso(value: int) -> str:
    """20120701 → 2012-07-01, 20120700 → 2012-07, 20120000 → 2012."""
    year, month, day = value // 10_000, value // 100 % 100, value % 100
    return f"{year:04d}" + f"-{month:02d}" * bool(month) + f"-{day:02d}" * bool(day)


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True
