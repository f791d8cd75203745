"""Pictures of the page, made when it asks for them: exemplars, scenes, maps of clusters."""

import gzip
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

from alps.engine.base.errors import AlpsError, RunFolderError
from alps.engine.browser.survey import Survey
from alps.engine.images.reading import Reading
from alps.engine.images.windows import Window
from alps.engine.regions.packing import NOWHERE
from alps.engine.regions.raster import open_regions
from alps.engine.regions.tables import GroupTables
from alps.engine.report import pictures
from alps.engine.report.exemplars import patch_around
from alps.engine.report.rows.sources import MOST_SIDE, SourceRow, read_sources
from alps.engine.report.scenes import scene_image
from alps.engine.report.sources import SourcePixels
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import reading_of
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.tables import read_table

EXEMPLAR_SIDE, EXEMPLAR_BYTES = 224, 12_000
MAP_SIDE, MAP_BYTES = 2000, 1_500_000
NO_CLUSTER, GZIP_LEVEL = 65_535, 3
KEPT_BYTES = 64 << 20  # of pictures that were made
ROWS_KEPT = 1000  # of sources that were looked up
TABLES_KEPT = 16  # of clusters of a source's regions


class NoPictureError(AlpsError):
    """There is no such class, scene or part."""


class _Bench:
    """Where a picture is made at a time."""

    def __init__(self, reading: Reading) -> None:
        self.lock = threading.Lock()
        self.sources = SourcePixels(reading)


class Gallery:
    """Makes the pictures of a run, one of a kind at a time, and keeps what was asked for last.

    May be called from several threads.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        reading = reading_of(folder, folder.read_run())
        # A scene does not wait for all the exemplars that were asked for before it.
        self._exemplars, self._scenes = _Bench(reading), _Bench(reading)
        self._keeping, self._reading = threading.Lock(), threading.Lock()
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0  # of them
        self._rows: dict[int, SourceRow] = {}
        # Sources are numbered from 0 in the order of their tiles.
        last = read_table(folder.tiles, ["source_index"]).column(0)
        self.count = int(last[-1].as_py()) + 1 if len(last) else 0  # of sources
        self._tables: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()

    def exemplar(self, survey: Survey, cluster: int, place: int) -> bytes:
        """A segment that stands for a cluster, outlined in its surroundings, as WebP.

        Raises NoPictureError where there is none.
        """
        known = survey.exemplars.get(cluster, [])
        if place >= len(known):
            raise NoPictureError("there is no such picture of a cluster")
        region = known[place]
        row = survey.rows[region.source_index]

        def make() -> bytes:
            crop = pictures.exemplar_window(region, row.width, row.height)
            numbers = self._regions(row, crop, None)
            own = numbers == region.number
            same = self._clusters(survey, row, numbers) == cluster
            patch = patch_around(own, same) if (own & same).any() else own
            tile = self._exemplars.sources.read(row, crop)
            drawn = pictures.exemplar_picture(
                None if tile is None else tile.rgb, patch, EXEMPLAR_SIDE
            )
            return pictures.photo(drawn, EXEMPLAR_BYTES)

        return self._made(self._exemplars, (survey.since[cluster], cluster, place), make)

    def scene(self, index: int, part: int) -> bytes:
        """A part of a source as the run reads it, as WebP; grey where the source is gone.

        Raises NoPictureError where there is none.
        """
        row, shown, size = self._part(index, part)

        def make() -> bytes:
            image = scene_image(row, shown, size, self._scenes.sources)
            if image is None:
                image = np.full((size[1], size[0], 3), pictures.PLAIN, np.uint8)
            return pictures.photo(image, MAP_BYTES)

        return self._made(self._scenes, ("scene", index, part), make)

    def clusters(self, survey: Survey, index: int, part: int) -> bytes:
        """The number of each pixel's cluster in a part of a source.

        Gzip of uint16, little end first: width, height, then row by row; NO_CLUSTER where there is
        none. Numbers and no picture, since browsers that hinder fingerprinting alter the pixels
        that a page reads back. Raises NoPictureError where there is no such part.
        """
        row, shown, size = self._part(index, part)

        def make() -> bytes:
            found = self._clusters(survey, row, self._regions(row, shown, size))
            found[found < 0] = NO_CLUSTER
            numbers = np.concatenate([np.array(size), found.ravel()]).astype("<u2")
            return gzip.compress(numbers.tobytes(), GZIP_LEVEL, mtime=0)

        return self._made(self._scenes, (survey.sha256, "map", index, part), make)

    def scenes(self, first: int, count: int) -> list[dict[str, object]]:
        """Sources from a number on that have a label map or could: name, size and parts."""
        with self._scenes.lock:
            wanted = range(first, min(first + count, self.count))
            rows = read_sources(self._folder.tiles, wanted)
        return [
            {
                "index": index,
                "name": row.source,
                "width": row.width,
                "height": row.height,
                "parts": [[p.x, p.y, p.width, p.height] for p in parts_of(row.width, row.height)],
            }
            for index, row in sorted(rows.items())
            if row.width and row.label and self._folder.region_raster(row.label).is_file()
        ]

    def _part(self, index: int, part: int) -> tuple[SourceRow, Window, tuple[int, int]]:
        row = self._rows.get(index)
        if row is None:
            if index >= self.count:
                raise NoPictureError(f"there are no more than {self.count} sources")
            with self._scenes.lock:
                row = read_sources(self._folder.tiles, [index])[index]
            if len(self._rows) >= ROWS_KEPT:
                self._rows.clear()
            self._rows[index] = row
        parts = parts_of(row.width, row.height)
        if part >= len(parts):
            raise NoPictureError(f"source {index} has no more than {len(parts)} parts")
        shown = parts[part]
        return row, shown, pictures.shown_size(shown, MAP_SIDE)

    def _regions(self, row: SourceRow, shown: Window, size: tuple[int, int] | None) -> np.ndarray:
        """Numbers of regions, (H, W) uint32, ``size`` (width, height) of them where it is given."""
        path = self._folder.region_raster(row.label or "")
        with open_regions(path, (row.width, row.height)) as raster:
            return raster.read(shown.x, shown.y, shown.width, shown.height, size)

    def _clusters(self, survey: Survey, row: SourceRow, numbers: np.ndarray) -> np.ndarray:
        """The cluster of each region, (H, W) int32, -1 where there is none."""
        of_region = self._of_region(survey, row.source_index)
        inside = numbers != NOWHERE
        if (numbers[inside] >= len(of_region)).any():
            raise RunFolderError(
                f"{self._folder.region_raster(row.label or '')} has regions that the tables do "
                f"not know; alps verify {self._folder.root} says what is damaged"
            )
        found = np.full(numbers.shape, -1, np.int32)
        found[inside] = of_region[numbers[inside]]
        return found

    def _of_region(self, survey: Survey, index: int) -> np.ndarray:
        """The cluster of each region of a source, (R,) int32."""
        key = survey.sha256, index
        with self._reading:
            if key not in self._tables:
                plan = Plan.of(self._folder)
                group = plan.group_of(plan.tiles_of_source(index))
                tables = GroupTables(self._folder, group, (), ["cluster"])
                self._tables[key] = tables.of_source(index).column("cluster").to_numpy()
                if len(self._tables) > TABLES_KEPT:
                    self._tables.popitem(last=False)
            self._tables.move_to_end(key)
            return self._tables[key]

    def _made(self, bench: _Bench, key: Hashable, make: Callable[[], bytes]) -> bytes:
        with bench.lock:
            made = self._known(key)
            if made is None:
                made = make()
                self._keep(key, made)
            return made

    def _known(self, key: Hashable) -> bytes | None:
        with self._keeping:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: Hashable, made: bytes) -> None:
        with self._keeping:
            self._kept[key] = made
            self._bytes += len(made)
            while self._bytes > KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])


def parts_of(width: int, height: int) -> list[Window]:
    """A scene as one window, or as several of one size that fit on a screen each."""
    across, down = -(-width // MOST_SIDE), -(-height // MOST_SIDE)
    xs, ys = (
        [i * side // n for i in range(n + 1)] for side, n in ((width, across), (height, down))
    )
    return [
        Window(xs[i], ys[j], xs[i + 1] - xs[i], ys[j + 1] - ys[j])
        for j in range(down)
        for i in range(across)
    ]
