"""Files of polygons: which formats there are, and how a stream of features becomes one."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely
from filelock import FileLock, Timeout

from alps.engine.base.atomic import publish
from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.polygons.ground import written
from alps.engine.polygons.style import style_table

GEOMETRY = "geometry"
WGS84 = "OGC:CRS84"
GEOPARQUET = "1.0.0"
PARQUET, GEOJSON, GEOPACKAGE = "Parquet", "GeoJSON", "GPKG"
# By suffix, GDAL's name; Parquet is written without GDAL, whose wheels lack it.
FORMATS = {
    ".gpkg": GEOPACKAGE,
    ".parquet": PARQUET,
    ".geoparquet": PARQUET,
    ".fgb": "FlatGeobuf",
    ".geojson": GEOJSON,
}
END_OF_JSON = b"\n]\n}\n"
# What comes of a file that cannot be written; pyogrio's errors are all RuntimeErrors.
WRITING = (OSError, pa.ArrowException, RuntimeError)
# 9 decimals of a degree are 0.1 mm: pixels of drones keep their shape.
OPTIONS = {GEOJSON: {"RFC7946": "YES", "COORDINATE_PRECISION": "9"}}


@dataclass(frozen=True)
class Layer:
    """What is written, its features aside."""

    name: str
    crs: pyproj.CRS | None
    geometry: str  # Polygon or MultiPolygon
    schema: pa.Schema  # GEOMETRY as WKB among its columns
    legend: tuple[tuple[int, str, tuple[int, int, int]], ...]  # class, name, colour


def format_of(path: Path) -> str:
    """By a file's suffix. Raises SettingsError."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise SettingsError(
            f"{path}: give a FILE that ends in {', '.join(FORMATS)}; it says the format"
        ) from None


def write_file(path: Path, layer: Layer, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a file of one layer whole, or nothing; one of its name is replaced.

    Raises what ``batches`` raise, and RunFolderError where the file cannot be written.
    """
    stream = _Stream(batches)
    kind = format_of(path)
    write = _write_parquet if kind == PARQUET else _write_by_gdal(kind)
    with _apart(path) as part:
        try:
            write(part, layer, stream)
        except Exception as error:
            if stream.error is not None:  # a library in between made another of it
                raise stream.error from None
            if not isinstance(error, WRITING):
                raise
            raise _unwritten(path, error) from error


class _Stream:
    """Batches, how many rows they had, and the error that ended them."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self.rows = 0
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                self.rows += batch.num_rows
                yield batch
        except GeneratorExit:  # whoever writes wants no more
            raise
        except BaseException as error:
            self.error = error
            raise


def _write_by_gdal(kind: str) -> Callable[[Path, Layer, _Stream], None]:
    def write(path: Path, layer: Layer, stream: _Stream) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # where there is none
            pyogrio.write_arrow(
                pa.RecordBatchReader.from_batches(layer.schema, iter(stream)),
                path,
                layer=layer.name,
                driver=kind,
                geometry_name=GEOMETRY,
                geometry_type=layer.geometry,
                crs=written(layer.crs),
                **OPTIONS.get(kind, {}),
            )
        if kind == GEOPACKAGE:
            table = style_table(layer.name, layer.legend)
            pyogrio.write_arrow(table, path, layer="layer_styles", driver=kind, FID="id")
        if not _is_whole(path, layer, kind, stream.rows):
            raise OSError("it reads back as less than was written")

    return write


def _is_whole(path: Path, layer: Layer, kind: str, rows: int) -> bool:
    """Whether all of a file is there; GDAL keeps quiet of what fails while it is closed."""
    if kind == GEOJSON:
        with path.open("rb") as file:
            file.seek(-min(len(END_OF_JSON), path.stat().st_size), os.SEEK_END)
            return file.read() == END_OF_JSON
    if not rows:  # of none GDAL does not say how many there are
        return True
    found = pyogrio.read_info(path, layer=layer.name)
    if found["features"] != rows:
        return False
    # The last of a FlatGeobuf lies at its end.
    last = pyogrio.read_arrow(path, layer=layer.name, skip_features=rows - 1)[1]
    return bool(found["capabilities"]["fast_spatial_filter"] and last.num_rows == 1)


def _write_parquet(path: Path, layer: Layer, stream: _Stream) -> None:
    """GeoParquet (version 1.0.0 of its specification), a row group a batch."""
    about: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [layer.geometry],
        "crs": None if layer.crs is None else layer.crs.to_json_dict(),
    }
    geo = {"version": GEOPARQUET, "primary_column": GEOMETRY, "columns": {GEOMETRY: about}}
    schema = layer.schema.with_metadata({"geo": json.dumps(geo)})
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for batch in stream:
            file.write_batch(batch)


@contextmanager
def _apart(path: Path) -> Iterator[Path]:
    """Yield a path in a folder of its own, for libraries leave others beside what they write; what
    was written there gets its name when all went well.
    """
    folder = path.with_name(f".{path.name}.part")
    try:
        if folder.is_symlink():  # nothing is removed through it
            folder.unlink()
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "lock", timeout=0):
            try:
                for left in folder.iterdir():  # by a process that was killed
                    if left.name != "lock":
                        left.unlink()
                yield folder / path.name
                publish(folder / path.name, path)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        raise RunFolderError(
            f"another process is writing {path}; wait for it, or give another FILE"
        ) from None
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: Exception) -> RunFolderError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return RunFolderError(
        f"cannot write {path}: {reason.rstrip('.')}; check the folder, its permissions and the "
        "space left"
    )


def as_wkb(geometries: Any) -> pa.Array:
    """Geometries (n,) as a column of a batch."""
    return pa.array(shapely.to_wkb(geometries), pa.binary())
