"""Which other files an image names, that GDAL would open for it, and what may be among them.

GDAL opens whatever a .vrt names: any file of the machine as raw pixels, addresses on a network, and
with all of its drivers, web services too. An archive that somebody sent must not decide that.
"""

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from xml.parsers import expat

from alps.engine.base.errors import SourceError, printable
from alps.engine.base.records import open_at_once

HEAD = 4096  # bytes of a file that tell what it is
REMOTE = ("/vsicurl/", "/vsis3/", "/vsigs/", "/vsiaz/", "/vsiadls/", "http://", "https://")
CONNECTION = re.compile(r"[A-Za-z][\w.+-]*:")  # of a driver or a protocol, not a path
PAGE = re.compile(r"GTIFF_DIR:\d+:")  # one image of a TIFF that holds several
MOST_BYTES_OF_XML = 1 << 30

VRT_KINDS = {"", "vrtdataset", "vrtwarpeddataset", "vrtpansharpeneddataset"}
BAND_KINDS = {
    "", "vrtrasterband", "vrtsourcedrasterband", "vrtderivedrasterband", "vrtwarpedrasterband",
    "vrtpansharpenedrasterband", "vrtrawrasterband",
}  # fmt: skip
NAMES_A_FILE = {"sourcefilename", "sourcedataset", "datafile", "indexfile"}
# Elements with text that nobody opens, though it may look like a path.
PLAIN_TEXT = {
    "srs", "projection", "gcpprojection", "sourcesrs", "targetsrs", "metadata", "mdi",
    "description", "category", "unittype", "pixelfunctioncode", "pixelfunctionarguments",
    "entry", "colorinterp", "histograms", "cutline", "expression", "gcp",
}  # fmt: skip
WARP = "gdalwarpoptions"  # in which metadata too can name files
OVERVIEWS = "OVERVIEW_FILE"  # an item of metadata that names a file


@dataclass(frozen=True)
class Reference:
    """A file that another one names. is_raw: its bytes are read as pixels, whatever they are."""

    name: str  # as GDAL takes it, relative names resolved
    is_raw: bool = False


@dataclass(frozen=True)
class Access:
    """What images may open beside themselves.

    root: the folder of the archive; what lies in an image's own folder is allowed too.
    """

    root: str | None = None
    remote: bool = False  # by address, over the network
    outside: bool = False  # whatever the machine has

    def check(self, owner: str, reference: Reference) -> Path | None:
        """The local file that ``owner``, a path, may open by a name; None for a remote one.

        Raises SourceError for one that it may not open.
        """
        name = reference.name
        if name.startswith(REMOTE):
            if self.remote:
                return None
            raise _refused(owner, name, "over the network: --allow-remote, where it is trusted")
        if name.startswith(("/vsi", "<", "{")) or CONNECTION.match(name) or "\0" in name:
            raise _refused(owner, name, "and only plain files are opened; convert it to GeoTIFF")
        real = os.path.realpath(name)
        roots = [os.path.dirname(os.path.realpath(owner))]
        roots += [os.path.realpath(self.root)] if self.root else []
        if not self.outside and not any(Path(real).is_relative_to(root) for root in roots):
            raise _refused(
                owner, name, "outside the archive: --allow-vrt-outside, where it is trusted"
            )
        return Path(real)


def references(path: str) -> Iterator[Reference]:
    """Files that the one at ``path``, which is on this machine, names to be opened.

    Raises SourceError where that cannot be told.
    """
    head = read_head(path)
    if is_described(head):
        yield from _Xml.of(path).found
    elif b"DatasetHeader" in head.split(b"\0")[0]:
        yield from _of_ers(path)
    elif head.startswith(b"PCIDSK"):
        yield from _of_pcidsk(path)


def read_head(path: str | Path) -> bytes:
    """The first bytes of a regular file. Raises SourceError where it cannot be read, or is none."""
    try:
        with open(open_at_once(path), "rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise SourceError(
            f"Cannot open {printable(path)}: {error.strerror}. Check the path."
        ) from error


def is_service(head: bytes) -> bool:
    """Whether GDAL may take a file for the description of a web service, or of other files."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text.startswith((b"<", b"{", b"["))


def is_described(head: bytes) -> bool:
    """Whether a text is one whose references are known: VRT or MRF."""
    text = head.split(b"\0")[0]
    return b"<VRTDataset" in text or text.lstrip().startswith(b"<MRF_META")


class _Xml:
    """The references of a VRT or an MRF, read as a stream: a mosaic may have 100,000 sources."""

    def __init__(self, path: str) -> None:
        self.found: list[Reference] = []
        self._path = path
        # GDAL follows a link to a VRT before it resolves names.
        self._folder = os.path.dirname(os.path.realpath(path))
        self._stack: list[tuple[str, dict[str, str]]] = []
        self._text: list[str] = []

    @classmethod
    def of(cls, path: str) -> Self:
        """Read the file. Raises SourceError."""
        self = cls(path)
        parser = expat.ParserCreate("utf-8")  # whatever it declares: GDAL looks at bytes
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = self._doctype
        try:
            if os.path.getsize(path) > MOST_BYTES_OF_XML:
                raise SourceError(f"{printable(path)}: more than {MOST_BYTES_OF_XML} bytes of XML")
            with open(path, encoding="utf-8-sig", errors="replace") as file:
                while text := file.read(1 << 20):
                    parser.Parse(text)
                parser.Parse("", True)
        except expat.ExpatError as error:
            raise SourceError(
                f"Cannot open {printable(path)}: it is no well-formed XML ({error}). Make it again."
            ) from error
        except OSError as error:
            raise SourceError(f"Cannot open {printable(path)}: {error.strerror}.") from error
        return self

    def _doctype(self, *about: object) -> None:
        raise self._unknown("a document type")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.lower()
        given = {name.lower(): value for name, value in attributes.items()}
        if len(given) < len(attributes):
            raise self._unknown("an attribute twice")
        self._check_text()
        kind = given.get("subclass", "").lower()
        known = {"vrtdataset": VRT_KINDS, "vrtrasterband": BAND_KINDS}.get(tag)
        if known is not None and kind not in known:
            raise self._unknown(f"the kind {kind}")
        if tag in ("cachedsource", "group", "array", "arraysource", "processingsteps"):
            raise self._unknown(f"the element {tag}")
        if tag == "ooi" and given.get("key", "").upper() == "ROOT_PATH":
            raise self._unknown("the open option ROOT_PATH")
        if tag == "mdi" and given.get("key", "").upper() == OVERVIEWS:
            raise self._unknown("overviews in another file")
        self._stack.append((tag, given))
        if not self._is_plain():
            for value in attributes.values():
                self._refuse_path(value)
        if len(self._stack) > 1 and self._stack[-2][0] in NAMES_A_FILE:
            raise self._unknown(f"an element inside {self._stack[-2][0]}")

    def _end(self, tag: str) -> None:
        name, given = self._stack[-1]
        if name in NAMES_A_FILE:
            self.found.append(self._reference("".join(self._text), given))
            self._text.clear()
        self._check_text()
        self._stack.pop()

    def _check_text(self) -> None:
        """Refuse a path in the text since the last tag, where it is not known to be harmless."""
        if self._text and not self._is_plain():
            self._refuse_path("".join(self._text).strip())
        self._text.clear()

    def _is_plain(self) -> bool:
        tags = [tag for tag, _ in self._stack]
        if WARP in tags:
            return tags[-1] in PLAIN_TEXT - {"metadata", "mdi"}
        return not PLAIN_TEXT.isdisjoint(tags)

    def _refuse_path(self, value: str) -> None:
        if "/" in value or "\\" in value or CONNECTION.match(value):
            raise self._unknown(f"a place, {printable(value[:80])!r}")

    def _reference(self, text: str, given: dict[str, str]) -> Reference:
        if not text or text != text.strip():
            raise self._unknown("a source without a name, or with blanks around it")
        tags = [tag for tag, _ in self._stack]
        parent, about = self._stack[-2] if len(self._stack) > 1 else ("", {})
        is_raw = parent == "vrtrasterband" and about.get("subclass", "").lower().startswith(
            "vrtraw"
        )
        is_raw |= tags[0] == "mrf_meta"
        beside = given.get("relativetovrt", "1" if is_raw else "0")
        if beside not in ("0", "1"):
            raise self._unknown(f"relativeToVRT={beside}")
        page = PAGE.match(text)
        plain = text[page.end() :] if page else text
        if os.path.isabs(plain) or CONNECTION.match(plain) or plain.startswith("<"):
            return Reference(plain, is_raw)
        folder = self._folder if beside == "1" or is_raw else os.getcwd()
        return Reference(os.path.join(folder, plain), is_raw)

    def _unknown(self, what: str) -> SourceError:
        return SourceError(
            f"Cannot open {printable(self._path)}: it has {what}, which may lead to other files "
            "and is not read. Convert it to GeoTIFF."
        )


def _of_ers(path: str) -> Iterator[Reference]:
    """The data of an ER Mapper header, which are raw or any other raster."""
    with open(path, "rb") as file:
        text = file.read(1 << 20).decode("utf-8", "surrogateescape")
    folder = os.path.dirname(path)
    named = re.findall(r"datafile\s*=\s*\"?([^\"\r\n]*)", text, re.IGNORECASE)
    for name in named:
        # An absolute name is appended like any other.
        yield Reference(os.path.join(folder, name.strip().lstrip("/")), True)
    if not named:
        yield Reference(os.path.splitext(path)[0], True)


def _of_pcidsk(path: str) -> Iterator[Reference]:
    """Channels of a PCIDSK file that lie in other files."""
    try:
        with open(path, "rb") as file:
            header = file.read(512)
            first, channels = int(header[336:352]), int(header[376:384])
            for channel in range(channels):
                file.seek((first - 1) * 512 + channel * 1024)
                name = struct.unpack("64x64s", file.read(128))[0].strip(b"\0 ")
                if name and not name.startswith(b"/SIS="):  # that is a part of the file itself
                    text = name.decode("utf-8", "surrogateescape")
                    yield Reference(os.path.join(os.path.dirname(path), text), True)
    except (ValueError, struct.error, OSError) as error:
        raise SourceError(
            f"Cannot open {printable(path)}: its PCIDSK header is damaged. Copy it again."
        ) from error


def _refused(owner: str, name: str, why: str) -> SourceError:
    return SourceError(
        f"Cannot open {printable(owner)}: it names {printable(name)}, {why}".rstrip(".") + "."
    )
