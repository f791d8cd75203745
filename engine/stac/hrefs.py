"""Where the hrefs of a document lead, and whether that is allowed."""

import os
import posixpath
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.images.references import Access, Reference
from alps.engine.stores.address import WEB, Address, is_address

MOST_BYTES = 2048  # of a path; longer ones could not be looked up either


def image_at(document: str, href: str, access: Access) -> Path | str:
    """What to open for the href of an asset in ``document``, a path or an address.

    Raises SourceError where it leads to what ``access`` does not allow.
    """
    name = _resolved(document, href)
    if not _is_below(document, name):
        access.check(document, Reference(name))
    return name if name.startswith("/vsi") else Path(name)


def _is_below(document: str, name: str) -> bool:
    """Whether something lies in the folder of a document that has an address."""
    found = Address.of_gdal(name)
    return found is not None and is_address(document) and _folder_of(document).holds(found)


def _folder_of(document: str) -> Address:
    address = Address.parse(document)
    return address.at(address.plain_key.rpartition("/")[0])


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
    if is_address(document) and not is_address(href):
        return _beside(document, href).gdal
    if not is_address(href):
        # Relative references of URLs may be escaped, names of files may have %20 in them.
        path = os.path.join(os.path.dirname(document), href)
        return os.path.abspath(path if os.path.exists(path) or "%" not in href else _plain(path))
    if href.lower().startswith("file://"):
        return os.path.abspath(unquote(urlsplit(href).path))
    return _parsed(href).gdal


def _beside(document: str, href: str) -> Address:
    """What a relative href means in a document that has an address."""
    folder = _folder_of(document)
    if folder.scheme in WEB:
        return _parsed(urljoin(document, href))
    # Keys of stores are what they are: nothing in them is escaped.
    start = "" if href.startswith("/") else f"/{folder.key}/"
    return folder.at(posixpath.normpath(start + href).strip("/"))


def _parsed(address: str) -> Address:
    try:
        return Address.parse(address)
    except SettingsError as error:
        raise SourceError(f"its href cannot be used: {error}") from error


def _plain(path: str) -> str:
    found = unquote(path)
    return path if "\0" in found else found
