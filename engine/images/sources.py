"""Finds the images that SRC names, and gives each the name of its label map."""

import glob
import os
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import SourceError, StoreError, printable
from alps.engine.stores.address import WEB, Address, is_address
from alps.engine.stores.listing import is_prefix, objects_at
from alps.engine.stores.out import address_of

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".gtiff", ".jp2", ".j2k", ".jpx", ".bmp",
    ".gif", ".webp", ".vrt", ".img", ".ntf", ".nitf", ".nsf", ".mrf", ".ers", ".pix", ".ppm",
    ".pgm", ".pnm",
)  # fmt: skip
# ENVI's images and ESRI's have any name, beside a header: `a.dat` and `a.hdr`, or `a.dat.hdr`.
HEADER = ".hdr"
# What else has their names: places, colours, statistics, overviews.
BESIDE = (
    HEADER, ".xml", ".ovr", ".txt", ".prj", ".stx", ".clr", ".sta", ".msk", ".rrd", ".blw",
    ".bqw", ".bpw", ".tfw", ".wld", ".json", ".jgw", ".pgw", ".md", ".csv", ".kml",
)  # fmt: skip
# Their label maps are GeoTIFF even where they lie nowhere; those of others only where they lie
# somewhere on Earth.
TIFF_SUFFIXES = (".tif", ".tiff", ".gtiff", ".jp2", ".vrt")
# What GDAL would look for beside an image, a request each: in a store it does not.
NOT_IN_STORES = (".ovr", ".msk", ".aux.xml", ".tfw", ".jgw", ".pgw", ".wld", ".prj", HEADER)
MOST_BYTES = 215  # of the name of a source, as its label map has it


@dataclass(frozen=True)
class Source:
    """One image of an archive."""

    path: Path | str  # what to open: a Path on disk, or GDAL's name of an object, /vsis3/... say
    name: str  # relative to the root of SRC, '/'-separated; unique in an archive
    # Of its label map where it lies nowhere on Earth, relative to OUT/labels, '/'-separated;
    # unique. A plan, which opens the files, says where they lie.
    label_name: str = ""


def find_sources(src: str | Path, *, exclude: str | Path | None = None) -> list[Source]:
    """Return the images that ``src`` names, sorted by name.

    ``src`` is an image file; a folder, searched recursively for files with an image suffix,
    hidden ones aside; a glob (``**`` crosses folders); a ``.txt`` file with a path or an address a
    line, relative to that file (blank lines and lines that start with ``#`` are ignored); or an
    address: ``s3://bucket/key`` of an object, a prefix or a glob, and so with ``gs://`` and
    ``az://``, or ``https://`` of one file. ``exclude`` is a folder that is not searched: OUT, which
    may lie inside ``src``. No image is opened: a listed file that does not exist, or a folder
    that may not be read, is a source too, so that it becomes a row with a reason and not a
    silence. The same file named twice is one source.

    Raises SourceError when nothing is found, SettingsError for an address that can be none.
    """
    found = set(iter_sources(src, exclude=exclude))
    sources = sorted(found, key=lambda source: (source.name, os.fspath(source.path)))
    labels = label_names(source.name for source in sources)
    return [replace(one, label_name=label) for one, label in zip(sources, labels, strict=True)]


def iter_sources(src: str | Path, *, exclude: str | Path | None = None) -> Iterator[Source]:
    """The images that ``find_sources`` returns one after the other, in any order, without names of
    label maps; some may come twice. Memory is a folder's names.
    """
    text = os.fspath(src)
    if not text:
        raise SourceError("SRC is empty: name an image, a folder, a glob or a list of paths")
    try:
        if is_address(src):
            yield from _at_address(Address.parse(text), exclude)
        else:
            yield from _find(Path(text), exclude)
    except OSError as error:
        raise SourceError(f"Cannot look into {text}: {error.strerror}. Check the path.") from error


def root_of(src: str | Path) -> str | None:
    """The folder below which the images of SRC lie; None where none was named."""
    path = Path(src)
    if is_address(src) or path.suffix.lower() == ".txt":
        return None
    if not path.exists() and glob.has_magic(str(path)):
        path = _fixed_part(path)
    return str(_absolute(path if path.is_dir() else path.parent))


def label_names(names: Iterable[str], placed: Container[str] = ()) -> list[str]:
    """Return the label map's name for each source name: its suffix becomes .tif or .png.

    placed: names of sources that lie somewhere on Earth, which a GeoTIFF can say.

    Where two would share one (``a.jpg`` and ``a.png``), or one would need a folder where another
    has a file, all of them keep their full name and get a second suffix (``a.jpg.png``).
    """
    rows = [(name, name in placed) for name in names]
    texts: tuple[set[str], ...] = (set(), set(), set(), set())
    return list(named_labels(lambda: rows, *texts))


class Texts(Protocol):
    """A set of texts, in memory or on the disk."""

    def add(self, text: str, /) -> None:
        """Take up a text."""

    def __contains__(self, text: object, /) -> bool: ...


def named_labels(
    rows: Callable[[], Iterable[tuple[str, bool]]],
    once: Texts,
    twice: Texts,
    folders: Texts,
    taken: Texts,
) -> Iterator[str]:
    """The name of each source's label map, as ``label_names`` says.

    rows: gives names, and whether a source lies somewhere on Earth; asked for twice. The others
    are empty, and hold what grows with the archive.
    """
    # Case is folded because some file systems do not tell a.png from A.png.
    for name, is_placed in rows():
        short = _short_label(name, is_placed).casefold()
        (twice if short in once else once).add(short)
        for folder in PurePosixPath(_shortened(name)).parents:
            folders.add(folder.as_posix().casefold())
    for name, is_placed in rows():
        label, ending = _short_label(name, is_placed), _ending(name, is_placed)
        if label.casefold() in twice or label.casefold() in folders:
            label = _shortened(name) + ending
        # A full name can only meet a file that was already called a.jpg.png; it steps aside then.
        while label.casefold() in folders or label.casefold() in taken:
            suffix = PurePosixPath(label).suffix
            label = label.removesuffix(suffix) + "_" + suffix
        taken.add(label.casefold())
        yield label


def _short_label(name: str, is_placed: bool) -> str:
    ending = _ending(name, is_placed)
    return PurePosixPath(_shortened(name)).with_suffix(ending).as_posix()


def _shortened(name: str) -> str:
    """A name whose last part leaves room for what is added to it; the same for the same name.

    Names of files may have 255 bytes. A label map has up to four more, its raster of regions again,
    a file that is being written six, and a window of a sample its place.
    """
    path = PurePosixPath(name)
    if len(os.fsencode(path.name)) <= MOST_BYTES:
        return name
    digest = f"~{fingerprint(name)[:8]}{path.suffix if len(path.suffix) < 9 else ''}"
    stem = os.fsencode(path.name)[: MOST_BYTES - len(os.fsencode(digest))]
    return path.with_name(stem.decode("utf-8", "ignore") + digest).as_posix()


def _find(path: Path, exclude: str | Path | None) -> Iterable[Source]:
    if path.is_dir():
        found = _search(path, exclude)
        nothing = f"No images in the folder {path} or below it. {_looked_for()}"
        return _from_root(_some(found, nothing), path)
    if path.suffix.lower() == ".txt" and path.is_file():
        return _read_list(path, exclude)
    if path.exists():
        return _from_root([path], path.parent)
    if glob.has_magic(str(path)):
        matches = map(Path, glob.iglob(str(path), recursive=True))
        images = (match for match in matches if _is_image(match) and not match.is_dir())
        found = (match for match in images if not _inside(match, exclude))
        nothing = f"No image matches {path}. {_looked_for()}"
        return _from_root(_some(found, nothing), _fixed_part(path))
    raise SourceError(f"{path} does not exist. Give an image, a folder, a glob or a .txt list.")


def _some(found: Iterable[Path], nothing: str) -> Iterator[Path]:
    """What was found. Raises SourceError with the text where that is nothing."""
    paths = iter(found)
    first = next(paths, None)
    if first is None:
        raise SourceError(nothing)
    yield first
    yield from paths


def _ending(name: str, placed: bool) -> str:
    is_tiff = placed or PurePosixPath(name).suffix.lower() in TIFF_SUFFIXES
    return ".tif" if is_tiff else ".png"


def _is_image_name(name: str, beside: Container[str] = ()) -> bool:
    """Whether a file can be an image, by its name and those of the files ``beside`` it."""
    if name.lower().endswith(IMAGE_SUFFIXES):
        return True
    if not beside or name.lower().endswith(BESIDE):
        return False
    stem = PurePosixPath(name).stem
    return any(one + ending in beside for one in (name, stem) for ending in (HEADER, ".HDR"))


def _is_image(path: Path) -> bool:
    """As ``_is_image_name``, of a file on the disk."""
    if _is_image_name(path.name):
        return True
    headers = [path.with_name(one + HEADER) for one in (path.name, path.stem)]
    return _is_image_name(path.name, {header.name for header in headers if header.exists()})


def _looked_for() -> str:
    suffixes = " ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
    return (
        f"Looked for {suffixes}, and files beside a {HEADER}; hidden files and folders are not "
        "searched."
    )


def _absolute(path: str | Path) -> Path:
    # Links are kept: the name a user gave is the name in the run folder.
    return Path(os.path.abspath(path))


def _inside(path: Path, folder: str | Path | None) -> bool:
    return folder is not None and _absolute(path).is_relative_to(_absolute(folder))


def _search(root: Path, exclude: str | Path | None) -> Iterator[Path]:
    """The image files below ``root``, and those folders that may not be listed."""
    unlisted: list[Path] = []
    visited = set()  # links to folders are followed, but never in a circle

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == root:
            raise error
        unlisted.append(Path(error.filename))

    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=unreadable):
        real = os.path.realpath(folder)
        # The label maps of an earlier run that lies in the archive are no images of it.
        is_run = "run.json" in files and "journal" in subfolders
        if real in visited or is_run or _inside(Path(folder), exclude):
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        beside = set(files) if any(name.lower().endswith(HEADER) for name in files) else ()
        for name in sorted(files):
            if _is_image_name(name, beside) and not name.startswith("."):
                yield Path(folder, name)
    yield from unlisted


def _fixed_part(pattern: Path) -> Path:
    """Return the folder of a glob above its first wildcard."""
    fixed = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _read_list(path: Path, exclude: str | Path | None) -> Iterator[Source]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"Cannot read the list {path}: {error}. It should be UTF-8 text with a path a line."
        ) from error
    entries = [line.strip() for line in lines]
    entries = [entry for entry in entries if entry and not entry.startswith("#")]
    if not entries:
        raise SourceError(f"The list {path} names no image: write one path a line.")
    for entry in dict.fromkeys(filter(is_address, entries)):
        yield from _at_address(Address.parse(entry), exclude, with_bucket=True)
    local = [_absolute(path.parent / entry) for entry in entries if not is_address(entry)]
    root = _absolute(path.parent)
    if not all(image.is_relative_to(root) for image in local):
        root = Path(os.path.commonpath([image.parent for image in local]))
    yield from _from_root(local, root)


def _from_root(paths: Iterable[Path], root: Path) -> Iterator[Source]:
    root = _absolute(root)
    for path in map(_absolute, paths):
        yield Source(path, printable(path.relative_to(root).as_posix()))


def _at_address(
    address: Address, exclude: str | Path | None, *, with_bucket: bool = False
) -> Iterator[Source]:
    """The images at an address, as a stream in the order of their names.

    with_bucket: names begin with the kind of store and the bucket, for lists of several.
    """
    start = f"{address.scheme}/{address.bucket.replace(':', '_')}/" if with_bucket else ""
    if not is_prefix(address, _is_image_name):
        if not address.key or (address.scheme in WEB and not _is_image_name(address.name)):
            raise SourceError(
                f"{address}: a web server cannot be listed, and the name is no image's. Give the "
                f"addresses of single files, one or a .txt list of them. {_looked_for()}"
            )
        name = address.plain_key if with_bucket else address.name
        yield Source(address.gdal, printable(start + name))
        return
    outside = address_of(exclude) if exclude is not None else None
    found, beside = False, _Beside()
    try:
        for name, entry in objects_at(address, beside.is_image, outside):
            found = True
            full = start + entry.key if with_bucket else name
            yield Source(address.at(entry.key).gdal, printable(full))
    except StoreError as error:
        raise SourceError(str(error)) from error
    if not found:
        raise SourceError(f"No image matches {address}, or lies below it. {_looked_for()}")
    beside.say(address)


class _Beside:
    """Files in a store that say something of images there, and are not read."""

    def __init__(self) -> None:
        self._count, self._first = 0, ""

    def is_image(self, name: str) -> bool:
        """Whether a name is an image's; takes note of one that lies beside images."""
        if name.lower().endswith(NOT_IN_STORES):
            self._count, self._first = self._count + 1, self._first or name
        return _is_image_name(name)

    def say(self, address: Address) -> None:
        """Warn where there are any."""
        if self._count:
            print(
                f"warning: {self._count} files beside images at {address} ({self._first}, say: "
                "masks, overviews, places) are not read from a store; what they say belongs into "
                "the images, as GeoTIFF",
                file=sys.stderr,
            )
