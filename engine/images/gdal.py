"""How GDAL opens and reads here: which formats, with which options, and what its errors become."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio
from rasterio._err import CPLE_BaseError  # raised as it is by some calls; nothing public has it
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.session import DummySession

from alps.engine.base.errors import SourceError
from alps.engine.images.sources import printable

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
    # A server that fell silent is a failed tile, not a run that waits for ever.
    "GDAL_HTTP_CONNECTTIMEOUT": "30",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
}

# Most PNG and JPEG have no place on Earth, and that is nothing to warn of.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


def open_dataset(path: str | Path) -> DatasetReader:
    """Open a file with one of DRIVERS. Raises SourceError."""
    check_file(path)
    with errors_of(path, "open"):
        # rasterio.open() would take a single driver only.
        return DatasetReader(os.fspath(path), driver=list(DRIVERS), sharing=False)


def check_file(path: str | Path) -> None:
    """Say plainly what GDAL would say badly. Raises SourceError."""
    if str(path).startswith("/vsi"):
        return
    shown = printable(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"Cannot open {shown}: {reason}. Check the path.") from error
    if os.path.isdir(path):
        raise SourceError(
            f"Cannot open {shown}: it is a folder, not an image (or may not be read)."
        )
    if status.st_size == 0:
        raise SourceError(f"Cannot open {shown}: the file is empty (0 bytes). Copy it again.")


@contextmanager
def errors_of(path: str | Path, verb: str) -> Iterator[None]:
    """Run GDAL with our options; turn what it raises into a SourceError."""
    try:
        # GDAL finds S3 credentials in the environment itself; rasterio would ask for boto3.
        with rasterio.Env(DummySession(), **GDAL_OPTIONS):
            yield
    except SourceError:
        raise
    except (RasterioError, CPLE_BaseError, OSError, ValueError, MemoryError) as error:
        # rasterio's own text is "See previous exception"; the reason is in the cause.
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        reason = printable(reason.replace(str(path), Path(path).name))
        mend = "Is it an image, and whole?" if verb == "open" else "Copy or convert it again."
        raise SourceError(
            f"Cannot {verb} {printable(path)}: {reason.rstrip('.')}. {mend}"
        ) from error
