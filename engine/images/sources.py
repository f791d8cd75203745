"""Finds the images that SRC names, and gives each the name of its label map."""

import glob
import os
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import SourceError, printable

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
S3 = "s3://"
MOST_BYTES = 215  # of the name of a source, as its label map has it


@dataclass(frozen=True)
class Source:
    """One image of an archive."""

    path: Path | str  # what to open: a Path on disk, or GDAL's /vsis3/... string
    name: str  # relative to the root of SRC, '/'-separated; unique in an archive
    # Of its label map where it lies nowhere on Earth, relative to OUT/labels, '/'-separated;
    # unique. A plan, which opens the files, says where they lie.
    label_name: str = ""


def find_sources(src: str | Path, *, exclude: str | Path | None = None) -> list[Source]:
    """Return the images that ``src`` names, sorted by name.

    ``src`` is an image file; a folder, searched recursively for files with an image suffix,
    hidden ones aside; a glob (``**`` crosses folders); a ``.txt`` file with a path a line,
    relative to that file (blank lines and lines that start with ``#`` are ignored); or
    ``s3://bucket/key`` for one object. ``exclude`` is a folder that is not searched: OUT, which
    may lie inside ``src``. No image is opened: a listed file that does not exist, or a folder
    that may not be read, is a source too, so that it becomes a row with a reason and not a
    silence. The same file named twice is one source.

    Raises SourceError when nothing is found.
    """
    text = os.fspath(src)
    if text.startswith(S3):
        return _with_label_names([_s3_source(text)])
    if not text:
        raise SourceError("SRC is empty: name an image, a folder, a glob or a list of paths")
    try:
        return _with_label_names(_find(Path(text), exclude))
    except OSError as error:
        raise SourceError(f"Cannot look into {text}: {error.strerror}. Check the path.") from error


def root_of(src: str | Path) -> str | None:
    """The folder below which the images of SRC lie; None where none was named."""
    path = Path(src)
    if os.fspath(src).startswith(S3) or path.suffix.lower() == ".txt":
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
    names = list(names)
    endings = [_ending(name, name in placed) for name in names]
    names = [_shortened(name) for name in names]
    short = [
        PurePosixPath(name).with_suffix(ending).as_posix()
        for name, ending in zip(names, endings, strict=True)
    ]
    # Case is folded because some file systems do not tell a.png from A.png.
    uses = Counter(label.casefold() for label in short)
    folders = {
        folder.as_posix().casefold() for name in names for folder in PurePosixPath(name).parents
    }
    labels = [
        name + ending if uses[label.casefold()] > 1 or label.casefold() in folders else label
        for name, label, ending in zip(names, short, endings, strict=True)
    ]
    # A full name can only meet a file that was already called a.jpg.png; it steps aside then.
    taken: set[str] = set(folders)
    for index, label in enumerate(labels):
        while label.casefold() in taken:
            suffix = PurePosixPath(label).suffix
            label = label.removesuffix(suffix) + "_" + suffix
        labels[index] = label
        taken.add(label.casefold())
    return labels


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


def _find(path: Path, exclude: str | Path | None) -> list[Source]:
    if path.is_dir():
        found = _search(path, exclude)
        if not found:
            raise SourceError(f"No images in the folder {path} or below it. {_looked_for()}")
        return _from_root(found, path)
    if path.suffix.lower() == ".txt" and path.is_file():
        return _read_list(path)
    if path.exists():
        return _from_root([path], path.parent)
    if glob.has_magic(str(path)):
        found = [Path(match) for match in glob.glob(str(path), recursive=True)]
        found = [match for match in found if _is_image(match) and not match.is_dir()]
        found = [match for match in found if not _inside(match, exclude)]
        if not found:
            raise SourceError(f"No image matches {path}. {_looked_for()}")
        return _from_root(found, _fixed_part(path))
    raise SourceError(f"{path} does not exist. Give an image, a folder, a glob or a .txt list.")


def _with_label_names(sources: list[Source]) -> list[Source]:
    sources = sorted(sources, key=lambda source: source.name)
    names = label_names(source.name for source in sources)
    return [replace(source, label_name=name) for source, name in zip(sources, names, strict=True)]


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


def _search(root: Path, exclude: str | Path | None) -> list[Path]:
    """Return the image files below ``root``, and those folders that may not be listed."""
    found: list[Path] = []
    visited = set()  # links to folders are followed, but never in a circle

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == root:
            raise error
        found.append(Path(error.filename))

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
        found += [
            Path(folder, name)
            for name in sorted(files)
            if _is_image_name(name, beside) and not name.startswith(".")
        ]
    return found


def _fixed_part(pattern: Path) -> Path:
    """Return the folder of a glob above its first wildcard."""
    fixed = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _read_list(path: Path) -> list[Source]:
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
    remote = [_s3_source(entry, with_bucket=True) for entry in set(entries) if entry.startswith(S3)]
    local = [_absolute(path.parent / entry) for entry in entries if not entry.startswith(S3)]
    root = _absolute(path.parent)
    if not all(image.is_relative_to(root) for image in local):
        root = Path(os.path.commonpath([image.parent for image in local]))
    return remote + _from_root(local, root)


def _from_root(paths: list[Path], root: Path) -> list[Source]:
    root = _absolute(root)
    unique = sorted({_absolute(path) for path in paths})
    return [Source(path, printable(path.relative_to(root).as_posix())) for path in unique]


def _s3_source(address: str, *, with_bucket: bool = False) -> Source:
    bucket, _, key = address.removeprefix(S3).partition("/")
    if not bucket or not _is_image_name(key) or glob.has_magic(key) or ".." in key.split("/"):
        raise SourceError(
            f"{address}: only a single image on S3 can be read so far, not a folder or a glob. "
            "List the objects' s3:// addresses in a .txt file, mount the bucket, or download it."
        )
    name = f"s3/{bucket}/{key}" if with_bucket else PurePosixPath(key).name
    return Source(f"/vsis3/{bucket}/{key}", name)
