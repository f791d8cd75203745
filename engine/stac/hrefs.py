"""Where the hrefs of a document lead, and whether that is allowed."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from alps.engine.base.errors import SourceError
from alps.engine.images.references import Access, Reference

MOST_BYTES = 2048  # of a path; longer ones could not be looked up either
# As GDAL calls them.
STORES = {"s3": "/vsis3/", "gs": "/vsigs/"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def image_at(document: str, href: str, access: Access) -> Path | str:
    """What to open for the href of an asset in ``document``, a path.

    Raises SourceError where it leads to what ``access`` does not allow.
    """
    name = _resolved(document, href)
    access.check(document, Reference(name))
    return name if name.startswith("/vsi") else Path(name)


def document_at(document: str, href: str, root: str) -> str:
    """The path of a document that one in the folder ``root`` links to.

    Raises SourceError for what lies elsewhere, or on a network.
    """
    name = _resolved(document, href)
    if name.startswith("/vsi"):
        raise SourceError(
            f"it links to {href:.200}, and documents are not fetched: save that one, and name it"
        )
    if not Path(os.path.realpath(name)).is_relative_to(os.path.realpath(root)):
        raise SourceError(f"it links to {href:.200}, outside the folder {root} of the catalogue")
    return name


def _resolved(document: str, href: str) -> str:
    """As GDAL takes it."""
    try:
        size = len(href.encode())
    except UnicodeEncodeError:
        raise SourceError("its href has halves of characters (\\ud800 and the like)") from None
    if not href.strip() or "\0" in href or size > MOST_BYTES:
        raise SourceError(f"its href {href!r:.60} is empty, too long, or no name of a file")
    scheme = _SCHEME.match(href)
    if scheme is None:
        # Relative references of URLs may be escaped, names of files may have %20 in them.
        path = os.path.join(os.path.dirname(document), href)
        return os.path.abspath(path if os.path.exists(path) or "%" not in href else _plain(path))
    kind = scheme[1].lower()
    if kind == "file":
        return os.path.abspath(unquote(urlsplit(href).path))
    if kind in ("http", "https"):
        return "/vsicurl/" + href
    if kind not in STORES or ".." in href.split("/"):
        known = "https://, s3:// and gs://"
        raise SourceError(f"its href {href:.200} is none that is read: files, {known} are")
    return STORES[kind] + href[scheme.end() :]


def _plain(path: str) -> str:
    found = unquote(path)
    return path if "\0" in found else found
