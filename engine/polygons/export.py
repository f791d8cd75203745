"""Label maps of a run as polygons in one file, streamed scene by scene."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import shapely
from rasterio.errors import RasterioError

from alps.engine.base.errors import RunFolderError, SettingsError, SourceError
from alps.engine.base.progress import Progress
from alps.engine.images.dates import UNKNOWN, date_iso, date_of
from alps.engine.images.gdal import open_dataset
from alps.engine.images.georeference import Georeference
from alps.engine.labels.classes import read_classes
from alps.engine.labels.patches import pixels_of
from alps.engine.polygons.formats import (
    GEOJSON,
    GEOMETRY,
    WGS84,
    Layer,
    as_wkb,
    format_of,
    write_file,
)
from alps.engine.polygons.geometry import corners_of, joined, polygons_of, portions
from alps.engine.polygons.ground import Ground, crs_of, crs_words, different, named_crs
from alps.engine.polygons.scene import Scene, SceneReader
from alps.engine.polygons.settings import OPTION, PolygonSettings
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import said_of
from alps.engine.run_folder.painted import last_lines
from alps.engine.run_folder.plan import Plan, PlannedTile

MOST_TAGS_READ = 1000  # sources whose headers are opened for a date that no name says
ROOMS = (
    "clusters", "journal", "labels", "objects", "regions", "report", "segments", "vectors"
)  # fmt: skip


@dataclass
class Polygons:
    """What was written."""

    file: Path
    crs: str  # in words
    count: int = 0
    sources: int = 0
    left_out: int = 0  # smaller than the least area
    reprojected: dict[str, int] = field(default_factory=dict)  # sources by the CRS they came in
    missing: dict[str, str] = field(default_factory=dict)  # sources without a label map, and why


def write_polygons(
    out: str | Path, file: str | Path, settings: PolygonSettings, overwrite: bool = False
) -> Polygons:
    """Write the polygons of a finished run to ``file``, whose suffix says the format.

    Memory is that of one scene's outlines, some 50 bytes a corner of its patches, and where they
    are simplified that of its polygons. The file appears whole, or not at all.

    Raises:
        SettingsError: a setting, or the file's name, cannot work.
        RunFolderError: the run is not finished or damaged, or the file cannot be written.
        SourceError: scenes' places do not go into one file.
    """
    folder, path = RunFolder(out), Path(file)
    settings.tolerance()
    kind = format_of(path)
    _refuse_file(folder, path, overwrite)
    folder.refuse_unpainted()
    return _Export(folder, path, kind, settings).write()


class _Export:
    """One file of a run's polygons."""

    def __init__(self, folder: RunFolder, path: Path, kind: str, settings: PolygonSettings) -> None:
        self._folder, self._settings, self._kind = folder, settings, kind
        run = folder.read_run()
        self._latest, self._said = _year_of(run), said_of(folder, run)
        self._classes = read_classes(folder.classes)
        # The rest of a line is long where there are many classes.
        self._lines = {
            line.source_index: (line.files, line.reason) for line in last_lines(folder.painted)
        }
        self._plan = Plan.of(folder)
        self._painted, missing = self._sources()
        self._crs = self._choose_crs()
        self._reads_tags = len(self._painted) <= MOST_TAGS_READ
        self._done = Polygons(path, crs_words(self._crs), missing=missing)

    def write(self) -> Polygons:
        """Write it."""
        layer = Layer(
            "objects" if self._settings.objects else "classes",
            self._crs,
            "MultiPolygon" if self._settings.objects else "Polygon",
            _schema(self._settings.objects),
            tuple(
                (c.id, c.name, c.colour)
                for c in self._classes.classes
                if not c.ignored and c.part_of is None  # no pixel has those
            ),
        )
        with Progress(len(self._painted), "sources", "drawing polygons") as progress:
            write_file(self._done.file, layer, self._batches(layer, progress))
        return self._done

    def _sources(self) -> tuple[dict[int, Georeference], dict[str, str]]:
        """Places of sources that have label maps, by their index; others, and why they have none.

        Raises RunFolderError where none has, SettingsError where none is wanted.
        """
        painted: dict[int, Georeference] = {}
        missing: dict[str, str] = {}
        for tiles in self._plan.sources():
            first = tiles[0]
            if not fnmatchcase(first.source, self._settings.only or "*"):
                continue
            path = self._folder.label(first.label)
            if first.reason or not path.exists():
                _, reason = self._lines.get(first.source_index, ((), ""))
                missing[first.source] = first.reason or reason or "its label map is gone"
                continue
            painted[first.source_index] = _place_of(path)
        if not painted and not missing:
            raise SettingsError(f"--only {self._settings.only} matches no image of the run")
        if not painted:
            why = next(iter(missing.items()), None)
            because = f" ({why[0]}: {why[1]})" if why else ""
            raise RunFolderError(
                f"{self._folder.root} has no label maps{because}; alps label makes them"
            )
        return painted, missing

    def _choose_crs(self) -> pyproj.CRS | None:
        """The file's CRS. Raises SourceError and SettingsError where there is none for all."""
        wanted = named_crs(self._settings.crs) if self._settings.crs is not None else None
        if self._kind == GEOJSON:
            if wanted is not None and not wanted.equals(pyproj.CRS(WGS84), ignore_axis_order=True):
                raise SettingsError(
                    f"--crs {self._settings.crs}: GeoJSON is in WGS 84 alone (RFC 7946); give a "
                    ".gpkg or .parquet"
                )
            wanted = pyproj.CRS(WGS84)
        places = {index: crs_of(place, "") for index, place in self._painted.items()}
        known = different(places.values())
        placeless = [index for index, crs in places.items() if crs is None]
        if placeless and (len(known) > 1 or wanted is not None):
            name = self._name_of(placeless[0])
            others = f" and {len(placeless) - 1} more" if len(placeless) > 1 else ""
            mend = (
                "write those that do into a file of their own, with --only"
                if len(known) > 1
                else "give a .gpkg without --crs, in pixels, or images that say where they lie"
            )
            raise SourceError(f"{name}{others} lies nowhere on Earth (it has no CRS); {mend}")
        return wanted if wanted is not None else known[0]

    def _name_of(self, index: int) -> str:
        return self._plan.tiles_of_source(index)[0].source

    def _batches(self, layer: Layer, progress: Progress) -> Iterator[pa.RecordBatch]:
        is_simplified = self._settings.tolerance()[0] > 0
        reader = SceneReader(
            self._folder, self._classes.unlabelled, self._settings.objects, is_simplified
        )
        for tiles in self._plan.sources():
            first = tiles[0]
            place = self._painted.get(first.source_index)
            if place is None:
                continue
            files, _ = self._lines.get(first.source_index, ((), ""))
            scene = reader.read(tiles, files)
            ground = Ground(place, self._crs, first.source)
            if ground.crs is not None and ground.crs != self._crs:
                words = crs_words(ground.crs)
                self._done.reprojected[words] = self._done.reprojected.get(words, 0) + 1
            for columns in self._features(scene, ground, (first.source_width, first.source_height)):
                yield self._batch(layer, columns, first)
            self._done.sources += 1
            progress.advance(1)

    def _features(
        self, scene: Scene, ground: Ground, size: tuple[int, int]
    ) -> Iterator[dict[str, np.ndarray]]:
        """Columns of a scene's features, some at a time."""
        least = pixels_of(self._settings.min_area, scene.place, "--min-area")
        shown = scene.classes >= 0
        kept = shown & (scene.pixels >= least)
        self._done.left_out += int((shown & ~kept).sum())
        patches = np.flatnonzero(kept[scene.of_patch])
        patches = patches[np.argsort(scene.of_patch[patches], kind="stable")]
        features, of_patch = np.unique(scene.of_patch[patches], return_inverse=True)
        simple = self._simplified(scene)
        corners = np.bincount(of_patch, corners_of(scene.outlines)[patches], len(features))
        for start, end in portions(corners):
            span = slice(*np.searchsorted(of_patch, [start, end]))
            some, own = features[start:end], of_patch[span] - start
            shapes = polygons_of(scene.outlines, patches[span], ground.points, ground.is_turned)
            if self._settings.objects:
                shapes = joined(shapes, own, end - start)
            areas = ground.areas(shapes, scene.pixels[some])
            if simple is not None:
                shapes = shapely.transform(simple[patches[span]], ground.points)
                if self._settings.objects:
                    shapes = joined(shapes, own, end - start)
            columns = {
                GEOMETRY: ground.moved(shapes, size),
                "class": scene.classes[some],
                "margin": scene.margins[some],
                "pixels": scene.pixels[some],
                "area_m2": areas,
            }
            if scene.objects is not None:
                columns["object"] = scene.objects[some]
            yield columns

    def _simplified(self, scene: Scene) -> np.ndarray | None:
        """All patches of a scene with fewer corners, in pixels; None where all are to stay.

        In pixels, because triangles are compared by their areas: those of pixels are alike. The
        frame of the scene stays as it is, or scenes beside each other would no longer meet.
        """
        tolerance, in_metres = self._settings.tolerance()
        if in_metres and tolerance:
            area = scene.place.pixel_area()
            if area is None:
                raise SettingsError(
                    f"{OPTION} {self._settings.simplify}: the image has no scale in metres; give "
                    "a number of pixels"
                )
            tolerance /= area**0.5
        if not tolerance:
            return None
        every = polygons_of(scene.outlines, np.arange(len(scene.outlines)))
        found: np.ndarray = shapely.coverage_simplify(every, tolerance, simplify_boundary=False)
        return found

    def _batch(self, layer: Layer, columns: dict[str, Any], first: PlannedTile) -> pa.RecordBatch:
        count = len(columns["class"])
        self._done.count += count
        names, colours = self._legend(columns["class"])
        columns = columns | {
            GEOMETRY: as_wkb(columns[GEOMETRY]),
            "name": names,
            "colour": colours,
            "source": [first.source] * count,
            "date": [self._date_of(first)] * count,
        }
        arrays = [
            pa.array(columns[item.name], item.type, from_pandas=True)  # NaN is null
            if item.name != GEOMETRY
            else columns[GEOMETRY]
            for item in layer.schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=layer.schema)

    def _legend(self, classes: np.ndarray) -> tuple[list[str], list[str]]:
        """Names and colours of classes (n,)."""
        known = {c.id: c for c in self._classes.classes}
        kinds, at = np.unique(classes, return_inverse=True)
        names, colours = [], []
        for kind in kinds.tolist():
            found = known.get(kind)
            names.append(_text(found.name) if found else f"class {kind}")
            colours.append("#{:02x}{:02x}{:02x}".format(*(found.colour if found else (0, 0, 0))))
        return [names[i] for i in at], [colours[i] for i in at]

    def _date_of(self, first: PlannedTile) -> str | None:
        date = date_of(first.source, first.path, self._latest, self._said, self._reads_tags)
        return date_iso(date) if date != UNKNOWN else None


def _schema(objects: bool) -> pa.Schema:
    return pa.schema(
        [
            *([("object", pa.int32())] if objects else []),
            ("class", pa.int32()),
            ("name", pa.string()),
            ("colour", pa.string()),
            ("margin", pa.float64()),
            ("pixels", pa.int64()),
            ("area_m2", pa.float64()),
            ("source", pa.string()),
            ("date", pa.string()),
            (GEOMETRY, pa.binary()),
        ]
    )


def _place_of(path: Path) -> Georeference:
    """Where a label map lies; of a PNG nowhere, without a look. Raises RunFolderError."""
    if path.suffix == ".png":
        return Georeference()
    try:
        with open_dataset(path) as file:
            return Georeference.of(file)
    except (SourceError, RasterioError) as error:
        raise RunFolderError(
            f"cannot read {path}: {error}; remove it and give the command that made it again"
        ) from error


def _refuse_file(folder: RunFolder, path: Path, overwrite: bool) -> None:
    """Raise SettingsError where a file must not be written."""
    if path.is_dir():
        raise SettingsError(f"{path} is a folder; give a file")
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise SettingsError(f"{path} has bytes that are no UTF-8; give another name") from None
    root, real = folder.root.resolve(), path.resolve()
    if real.is_relative_to(root):
        within = real.relative_to(root).parts
        if within[0] in ROOMS or real == folder.tiles.resolve():
            raise SettingsError(f"{path} lies among the files of the run; give another FILE")
    if path.exists() and not overwrite:
        raise SettingsError(f"{path} is there already; give another FILE, or --overwrite")
    if not path.parent.is_dir():
        raise SettingsError(f"{path.parent} is no folder; make it, or give another FILE")


def _year_of(run: dict[str, Any]) -> int:
    """The year of the run: images were taken before."""
    text = str(run.get("started", ""))
    return int(text[:4]) if text[:4].isdigit() else datetime.now().year


def _text(name: str) -> str:
    """A name as every format can hold it: SQLite ends at a zero, UTF-8 has no halves of letters."""
    return (
        "".join(f"\\x{ord(c):02x}" if c == "\0" else c for c in name)
        .encode("utf-8", "backslashreplace")
        .decode()
    )
