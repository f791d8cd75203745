"""What notebooks show of a result: a small table, in which nothing but its own markup is markup."""

import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup, escape

from alps.engine.base.errors import printable

MOST_SHOWN = 200  # letters of a name
CELL = Markup('<{0} style="text-align: {1}">{2}</{0}>')


def shown(value: object) -> Markup:
    """A value on one line, escaped; a long one is cut short. Markup is left as it is."""
    if isinstance(value, Markup):
        return value
    text = printable(str(value))
    return escape(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…")


def html_table(title: str, rows: Iterable[Iterable[object]], head: Iterable[object] = ()) -> str:
    """A table under a title: the first cell of each row says what the others are."""
    body = [_row(row, "td") for row in rows]
    if top := tuple(head):
        body.insert(0, _row(top, "th"))
    return Markup("<table><caption>{}</caption>{}</table>").format(
        shown(title), Markup("").join(body)
    )


def html_link(path: Path, text: str) -> Markup:
    """A link to a file, by its place below the working directory: that of a notebook."""
    try:
        place = os.path.relpath(path)
    except ValueError:  # on another drive
        return shown(path)
    return Markup('<a href="{}">{}</a>').format(quote(place.replace(os.sep, "/")), shown(text))


def _row(cells: Iterable[object], kind: str) -> Markup:
    sides = [
        CELL.format(kind, "left" if at == 0 else "right", shown(cell))
        for at, cell in enumerate(cells)
    ]
    return Markup("<tr>{}</tr>").format(Markup("").join(sides))
