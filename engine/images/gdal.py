"""How GDAL opens and reads here: which formats, with which options, and what its errors become."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.session import DummySession

from alps.engine.base.errors import (
    SettingsError,
    SourceAwayError,
    SourceError,
    StoreError,
    printable,
)
from alps.engine.base.memory import is_out_of_memory
from alps.engine.images.beside import check_beside, check_file, check_there
from alps.engine.images.facts.extent import lacks_pixels
from alps.engine.images.references import (
    OVERVIEWS,
    Access,
    Reference,
    is_described,
    is_service,
    read_head,
    references,
)
from alps.engine.stores.address import HANDLER_OF_WEB, HANDLERS, Address, shown_path
from alps.engine.stores.client import Bucket
from alps.engine.stores.environment import gdal_options

# GDAL opens text, XML and web services as rasters too; of those a renamed file must be refused.
DRIVERS = (
    "GTiff", "PNG", "JPEG", "GIF", "BIGGIF", "BMP", "WEBP", "JP2OpenJPEG", "VRT", "HFA", "NITF",
    "ENVI", "EHdr", "MRF", "ERS", "PCIDSK", "PNM",
)  # fmt: skip
GDAL_OPTIONS = {
    # A truncated JPEG gives grey pixels and no more than a warning otherwise.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
    # GDAL 3.10's shortcut for whole PNGs returns uninitialised memory for a truncated file.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    # Opening one file of a folder of a million must not list the folder.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    # Python code in a VRT is never run, whatever the environment says.
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    # Of a server, what may pass (429, 500, 502, 503, 504, a connection reset) is tried again.
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    # A server that fell silent is a failed tile, not a run that waits for ever.
    "GDAL_HTTP_CONNECTTIMEOUT": "30",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
}
# Over the network. Each request costs some 50 ms, and money: an image needs one for its header.
REMOTE_OPTIONS = {
    # What lies beside an image is not looked for: a dozen requests, all in vain as a rule.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Else what a broken connection left would be taken for the file as long as the process lives.
    "CPL_VSIL_CURL_NON_CACHED": ":".join((*HANDLERS.values(), HANDLER_OF_WEB)),
    # Bytes of the first request: the header of most files, and small files as a whole. GDAL takes
    # one value for all.
    "CPL_VSIL_CURL_CHUNK_SIZE": "65536",
}
# Drivers that read all of a file and take what is missing of it for zeros, or with a request a row.
READ_WHOLE = ("WEBP", "BMP", "GIF", "BIGGIF", "PNM")
TRIES = 3  # of a remote file that is there, and could not be read

NOTHING_ELSE = Access()

# Most PNG and JPEG have no place on Earth, and that is nothing to warn of.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


# Of these the files that they name cannot be looked at before they are opened over the network.
DESCRIPTIONS = ("VRT", "MRF", "ERS", "PCIDSK")
SUFFIXES_OF_DESCRIPTIONS = (".vrt", ".mrf", ".ers", ".pix")
MRF_DATA = (".ppg", ".pjg", ".pjp", ".til", ".pzp", ".ptf", ".lrc", ".pq3")
MOST_NESTED = 8  # files that name files
MOST_CHECKED = 4096  # images whose references are known to be allowed
_CHECKED: dict[tuple[object, Access], float] = {}  # the bytes of what they name


def open_dataset(path: str | Path, access: Access = NOTHING_ELSE) -> DatasetReader:
    """Open a file with one of DRIVERS, and with it only what ``access`` allows.

    Raises SourceError.
    """
    return _open(os.fspath(path), access, 0)[0]


def _open(path: str, access: Access, depth: int) -> tuple[DatasetReader, float]:
    """The open file, and the bytes that its pixels are in: those of files that it names too."""
    if path.startswith("/vsi"):
        return _open_remote(path, access), math.inf
    check_file(path)
    check_beside(path)
    key = _stamp(path), access
    named = _CHECKED.get(key)
    if named is None:  # a mosaic of 100,000 is looked through once
        named = sum(_check_reference(path, one, access, depth) for one in references(path))
        if len(_CHECKED) >= MOST_CHECKED:
            _CHECKED.clear()
        _CHECKED[key] = named
    dataset = _dataset(path, list(DRIVERS))
    _refuse_overviews(path, dataset)
    size = named + sum(map(_size, {path, *dataset.files, *_data_of_mrf(path, dataset)}))
    if lacks_pixels(dataset, path, size):
        dataset.close()
        raise SourceError(
            f"Cannot open {printable(path)}: its header says {dataset.width} x {dataset.height} "
            f"pixels, and {size:.0f} bytes do not hold them. It is damaged; copy it again."
        )
    return dataset, size


def is_remote(path: str | Path) -> bool:
    """Whether a file is read over the network."""
    return str(path).startswith("/vsi")


def _open_remote(path: str, access: Access) -> DatasetReader:
    """Open an object of a store. Nothing beside it is opened, nor what it names unless allowed."""
    address = Address.of_gdal(path)
    if address is None:
        raise SourceError(
            f"Cannot open {printable(path)}: only files and objects of stores are read."
        )
    hidden = () if access.remote else DESCRIPTIONS
    drivers = [name for name in DRIVERS if name not in hidden]
    for left in reversed(range(TRIES)):
        try:
            dataset = _dataset(path, drivers)
            _refuse_overviews(path, dataset)
            if dataset.driver in READ_WHOLE:
                dataset.close()
                return _InMemory(address, drivers)
            return dataset
        except SourceAwayError:  # GDAL tried it several times
            raise
        except SourceError:
            if not left:
                raise
    raise AssertionError("unreachable")


class _InMemory(DatasetReader):
    """An object that was read as a whole, and is let go of when it is closed."""

    def __init__(self, address: Address, drivers: list[str]) -> None:
        with _away():
            content = Bucket(address).get(address.key, "open")
        if content is None:
            raise _not_there(address, "open")
        self._memory = rasterio.MemoryFile(content)
        with errors_of(address.gdal, "open"):
            super().__init__(self._memory.name, driver=drivers, sharing=False)

    def close(self) -> None:
        """Close the file and give its memory back."""
        super().close()
        self._memory.close()


def _refuse_overviews(path: str, dataset: DatasetReader) -> None:
    """Raise SourceError where a TIFF's metadata, or a file beside any image, name a file."""
    if OVERVIEWS in dataset.tags(ns="OVERVIEWS"):
        dataset.close()
        raise SourceError(
            f"Cannot open {printable(path)}: its metadata name another file as its overviews. "
            "Remove that, or convert it again."
        )


def _data_of_mrf(path: str, dataset: DatasetReader) -> list[str]:
    """Where the pixels of an MRF lie by default, which GDAL does not list."""
    if dataset.driver != "MRF":
        return []
    return [os.path.splitext(path)[0] + ending for ending in MRF_DATA]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # a file that GDAL would look for, and that is not there
        return 0


def _dataset(path: str, drivers: list[str]) -> DatasetReader:
    with errors_of(path, "open"):
        # rasterio.open() would take a single driver only.
        return DatasetReader(path, driver=drivers, sharing=False)


def _check_reference(owner: str, reference: Reference, access: Access, depth: int) -> float:
    """The bytes of a file that an image names.

    Raises SourceError where it must not be opened for it.
    """
    inner = access.check(owner, reference)
    if inner is None:
        return math.inf
    if depth == MOST_NESTED:
        raise SourceError(f"Cannot open {printable(owner)}: files name each other {depth} deep.")
    try:
        check_file(inner)
        head = read_head(inner)
        if is_service(head) and not is_described(head):
            raise SourceError(f"{printable(inner)} is no image.")
        if not reference.is_raw or is_described(head):
            dataset, size = _open(str(inner), access, depth + 1)
            dataset.close()
            return size
        return inner.stat().st_size
    except SourceError as error:
        kind = SourceAwayError if isinstance(error, SourceAwayError) else SourceError
        shown = printable(owner)
        raise kind(f"Cannot open {shown}, because of a file in it: {error}") from error


def _stamp(path: str) -> tuple[str, int, int]:
    status = os.stat(path)
    return path, status.st_mtime_ns, status.st_size


@contextmanager
def errors_of(path: str | Path, verb: str) -> Iterator[None]:
    """Run GDAL with our options; turn what it raises into a SourceError."""
    try:
        # GDAL finds S3 credentials in the environment itself; rasterio would ask for boto3.
        with rasterio.Env(DummySession(), **_options_for(str(path))):
            yield
    except SourceError:
        raise
    except Exception as error:  # GDAL and rasterio raise of all kinds for files that are damaged
        if is_out_of_memory(error):
            raise SourceAwayError(
                f"Cannot {verb} {printable(path)}: memory is short. Free some and run again."
            ) from error
        if is_remote(path):
            _check_object(str(path), verb)
        else:
            check_there(path)
        # rasterio's own text is "See previous exception"; the reason is in the cause.
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        reason = printable(reason.replace(str(path), Path(path).name))
        shown = printable(shown_path(path))
        mend = "Is it an image, and whole?" if verb == "open" else "Copy or convert it again."
        raise SourceError(f"Cannot {verb} {shown}: {reason.rstrip('.')}. {mend}") from error


def _options_for(path: str) -> dict[str, str]:
    """Those that GDAL opens and reads a file with."""
    if not is_remote(path):
        return GDAL_OPTIONS
    options = GDAL_OPTIONS | REMOTE_OPTIONS
    if not path.lower().endswith(SUFFIXES_OF_DESCRIPTIONS):
        options["CPL_VSIL_CURL_ALLOWED_FILENAME"] = path  # some drivers look around all the same
    address = Address.of_gdal(path)
    return options | (gdal_options(address.scheme) if address else {})


def _check_object(path: str, verb: str) -> None:
    """Raise SourceAwayError where the store, and not the object, is why it could not be read."""
    address = Address.of_gdal(path)
    if address is None:
        return
    try:
        with _away():
            found = Bucket(address).head(address.key, verb)
    except SettingsError:  # without obstore a single object can be read all the same
        return
    if found is None:
        raise _not_there(address, verb)


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        text = str(error)
        raise SourceAwayError(f"{text[0].upper()}{text[1:]}.") from error


def _not_there(address: Address, verb: str) -> SourceAwayError:
    shown = printable(str(address))
    return SourceAwayError(f"Cannot {verb} {shown}: it is not there. Check the address.")
