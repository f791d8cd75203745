"""``alps.open_run``: what a run came to, as tables and arrays."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.base.html import html_link, html_table
from alps.engine.images.raster import Tile
from alps.engine.labels.classes import Classes, LabelClass, read_classes
from alps.engine.quality.measure import Quality, measure_quality
from alps.engine.quality.settings import QualitySettings
from alps.engine.report import words
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import reading_of
from alps.engine.run_folder.plan import Plan, PlannedTile
from alps.engine.run_folder.tables import read_table
from alps.engine.views import maps, tables
from alps.engine.views.maps import LabelMap
from alps.kernels.masks.coco import decode_mask

if TYPE_CHECKING:  # stages bring torch, and most of what is looked at needs none
    from alps.engine.stages.label import RunSummary
    from alps.engine.stages.verify import Verification

Box = tuple[int, int, int, int]


class SegmentRow(Protocol):
    """A row of segments: a dictionary, or a row of a DataFrame."""

    def __getitem__(self, name: str, /) -> Any: ...


def open_run(out: str | Path) -> "Run":
    """Open the run folder ``out`` to look at what the run came to; nothing is written.

    Raises RunFolderError where it is none, is not planned yet, or is damaged.
    """
    folder = RunFolder(out)
    run = folder.read_planned()
    firsts = Plan.of(folder).firsts()
    return Run(folder, str(run["source"]), {first.source: first for first in firsts})


class Run:
    """A run folder that is there; ``open_run`` opens one.

    ``folder`` says where everything lies, ``archive`` which images it is of. Each call reads what
    the folder holds at that moment. All raise RunFolderError for what is damaged or not made yet.
    """

    def __init__(self, folder: RunFolder, archive: str, firsts: Mapping[str, PlannedTile]) -> None:
        self.folder, self.archive = folder, archive
        self._firsts = firsts  # the first tile of each source, by the source's name

    @property
    def sources(self) -> list[str]:
        """Names of the sources: their paths below SRC, in the order of ``source_index``."""
        return list(self._firsts)

    @property
    def classes(self) -> list[LabelClass]:
        """The classes of the label maps, by id: name, colour, pixels, regions."""
        return self._classes().classes

    @property
    def summary(self) -> "RunSummary":
        """What ``label_archive`` returned."""
        from alps.engine.stages.label import summarise

        self._refuse_unfinished()
        return summarise(self.folder)

    @property
    def report(self) -> Path:
        """The report's page."""
        path = self.folder.root / "report" / "index.html"
        if not path.is_file():
            raise RunFolderError(f"{path} is not there; run: alps report {self.folder.root}")
        return path

    def tiles(self, columns: Sequence[str] | None = None) -> pa.Table:
        """tiles.parquet: a row a window of a source; columns: those wanted, None: all."""
        names = tables.chosen(columns, tables.TILE_COLUMNS)
        self._refuse_unfinished()
        return read_table(self.folder.tiles, names)

    def segments(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All segments of the run in one table; ``iter_segments`` where they are too many.

        Columns are those of segments/part-*.parquet; before them ``source`` and the segment's
        tile in pixels of the source, ``tile_x``, ``tile_y``, ``tile_width``, ``tile_height``;
        behind them ``object``. ``.to_pandas()`` makes a DataFrame.
        """
        return pa.concat_tables(self.iter_segments(columns))

    def iter_segments(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Segments as of ``segments``, a table a shard of 32 tiles."""
        names = tables.chosen(columns, tables.SEGMENT_COLUMNS)
        self._refuse_unfinished()
        self.folder.refuse_dropped(self.folder.read_planned())
        return tables.segments_by_shard(self.folder, names)

    def regions(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All regions of the run in one table; ``iter_regions`` where they are too many.

        Columns are those of regions/part-*.parquet and clusters/part-*.parquet; before them
        ``source`` and ``region``, the number in the source's ``region_map``.
        """
        return pa.concat_tables(self.iter_regions(columns))

    def iter_regions(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Regions as of ``regions``, a table a group of sources."""
        names = tables.chosen(columns, tables.REGION_COLUMNS)
        self._refuse_unfinished()
        run = self.folder.read_planned()
        self.folder.refuse_dropped(run)
        if "cluster" not in run["done"] and not {"cluster", "margin"}.isdisjoint(names):
            raise RunFolderError(
                f"{self.folder.root} has no clusters yet; run: alps cluster {self.folder.root}"
            )
        return tables.regions_by_group(self.folder, names)

    def mask(self, segment: SegmentRow) -> np.ndarray:
        """The pixels of a row of segments in its tile, (tile_height, tile_width) bool.

        segment: has ``counts``, ``tile_width`` and ``tile_height``.
        """
        try:
            counts = segment["counts"]
            size = int(segment["tile_height"]), int(segment["tile_width"])
        except KeyError as error:
            raise SettingsError(f"to decode a mask its row needs the column {error}") from None
        try:
            return decode_mask(counts, size)
        except ValueError as error:
            raise RunFolderError(
                f"a mask of {self.folder.root} is damaged: {error}; run: alps verify "
                f"{self.folder.root}"
            ) from error

    def image(self, source: str, box: Box | None = None) -> Tile:
        """The pixels of a source as the run read them: ``rgb`` (H, W, 3) uint8, ``valid`` (H, W).

        box: (x, y, width, height) of the part that is wanted; None: all.

        Raises SourceError where it is gone or was replaced.
        """
        planned = self._planned(source)
        window = maps.part_of(planned, box)
        return maps.read_image(planned, window, reading_of(self.folder, self.folder.read_planned()))

    def label_map(self, source: str, box: Box | None = None) -> LabelMap:
        """The label map of a source, or of its part ``box`` (x, y, width, height).

        Raises SourceError where the source could not be read or painted.
        """
        planned = self._planned(source)
        window = maps.part_of(planned, box)
        return maps.read_label_map(self.folder, planned, window, self._classes())

    def region_map(self, source: str, box: Box | None = None) -> np.ndarray:
        """The number of each pixel's region, (H, W) uint32; 4294967295 where there is none."""
        planned = self._planned(source)
        window = maps.part_of(planned, box)
        self.folder.refuse_dropped(self.folder.read_planned())
        return maps.read_region_map(self.folder, planned, window)

    def quality(self, truth: str | Path, settings: QualitySettings | None = None) -> Quality:
        """Hold the label maps against real labels in a folder, as ``alps quality`` does."""
        self._refuse_unpainted()
        return measure_quality(self.folder.root, Path(truth), settings)

    def verify(self) -> "Verification":
        """Hold every file against its checksum, as ``alps verify`` does."""
        from alps.engine.stages.verify import verify_archive

        return verify_archive(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder.root)!r}, {len(self._firsts)} sources)"

    def _repr_html_(self) -> str:
        run = self.folder.read_run()
        model = run.get("model") or {}
        rows: list[tuple[str, object]] = [
            ("images", self.archive),
            ("sources", words.count(len(self._firsts))),
            ("model", model.get("name", words.NOTHING)),
            ("finished", run.get("finished", "not yet")),
        ]
        classes = read_classes(self.folder.classes)
        if classes.classes:
            rows += [
                ("classes", words.count(sum(c.pixels > 0 for c in classes.classes))),
                ("labelled", words.share(classes.labelled_share)),
            ]
        report = self.folder.root / "report" / "index.html"
        if report.is_file():
            rows.append(("report", html_link(report, report.name)))
        return html_table(f"Run {self.folder.root}", rows)

    def _planned(self, source: str) -> PlannedTile:
        if source not in self._firsts:
            known = ", ".join(self.sources[:3])
            raise SettingsError(
                f"{self.folder.root} has no source {source!r}; it has {known}, and so on: "
                "sources lists them"
            )
        return self._firsts[source]

    def _classes(self) -> Classes:
        self._refuse_unpainted()
        return read_classes(self.folder.classes)

    def _refuse_unfinished(self) -> None:
        if not self.folder.tiles.exists():
            raise RunFolderError(
                f"{self.folder.root} is not segmented to the end; give the command that made it "
                f"once more: alps label {self.archive} {self.folder.root}"
            )

    def _refuse_unpainted(self) -> None:
        """Where there are no label maps, or older ones than the clusters."""
        root = self.folder.root
        if "cluster" not in self.folder.read_planned()["done"]:
            raise RunFolderError(f"{root} has no clusters yet; run: alps cluster {root}")
        self.folder.refuse_unpainted()
