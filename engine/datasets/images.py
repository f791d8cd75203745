"""What a finished run holds, image by image: its label map, its objects, and where it lies."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from alps.engine.base.errors import RunFolderError, SettingsError, SourceError
from alps.engine.base.failures import of_source
from alps.engine.datasets.categories import Categories
from alps.engine.datasets.instances import NO_OBJECT, Instances, Strip, find_instances
from alps.engine.datasets.settings import Splits
from alps.engine.images.facts.said import Said
from alps.engine.images.gdal import GDAL_OPTIONS, open_dataset
from alps.engine.images.raster import RasterReader
from alps.engine.images.tiff import TILE
from alps.engine.regions.packing import NOWHERE
from alps.engine.regions.raster import open_regions
from alps.engine.regions.tables import GroupTables
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import reading_of
from alps.engine.run_folder.painted import last_lines
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.schemas import PLAN_SCHEMA
from alps.engine.run_folder.sums import refuse_damaged

TRAIN, VAL = "train", "val"
VIRTUAL = "/vsi"  # how GDAL names what is no file of this machine
COLUMNS = ["tile_id", "source_index", "source", "path", "label", "source_width", "source_height",
           "reason"]  # fmt: skip


@dataclass(frozen=True)
class LabelledImage:
    """An image that has a label map."""

    index: int  # of its source in the plan
    name: str  # its path below SRC, with slashes, as its folder spells it
    path: str  # what was opened
    stem: str  # the name, without ending, of files that are made of it; unique in a run
    label: str  # the label map's path below labels/
    width: int
    height: int
    group: int  # of its regions
    split: str

    @property
    def size(self) -> tuple[int, int]:
        """H, W."""
        return self.height, self.width

    @property
    def suffix(self) -> str:
        """The ending of its file."""
        return PurePosixPath(self.path).suffix

    @property
    def file(self) -> Path | None:
        """The file, where it is one of this machine and is there."""
        path = Path(self.path)
        return None if self.path.startswith(VIRTUAL) or not path.is_file() else path


@dataclass(frozen=True)
class LeftOut:
    """A source that the data set is without."""

    image: str
    reason: str


class LabelledRun:
    """A finished run, read one source at a time.

    Raises RunFolderError where it is not finished, or damaged; SettingsError for ``splits``.
    """

    def __init__(self, folder: RunFolder, splits: Splits) -> None:
        self.folder = folder
        self.run = folder.read_run()
        folder.refuse_unpainted()
        self._reading = reading_of(folder, self.run)
        self.categories = Categories.of(folder)
        self._plan = Plan.of(folder)
        self._first = _first_rows(self._plan)
        names = self._first.column("source").to_pylist() if splits.val else []
        self._held_out = _held_out(names, splits)
        self._group: tuple[int, GroupTables | None] = -1, None

    def __len__(self) -> int:
        return self._first.num_rows

    @property
    def painted(self) -> object:
        """What tells these label maps from others of the same run."""
        return self.run.get("done", {}).get("paint")

    def sources(self, start: int = 0) -> Iterator[LabelledImage | LeftOut]:
        """All sources from the ``start``-th on, in the order of the plan."""
        for batch in self._first.slice(start).to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                yield self._source(row)

    def labels(self, image: LabelledImage) -> Iterator[tuple[int, np.ndarray]]:
        """The label map from top to bottom: (first row, (h, W) uint8 or uint16)."""
        path = self.folder.label(image.label)
        try:
            with rasterio.Env(**GDAL_OPTIONS), open_dataset(path) as file:
                if (file.height, file.width) != image.size:
                    raise self._damaged(path, f"it has {file.width} x {file.height} pixels")
                for y in range(0, image.height, TILE):
                    rows = min(TILE, image.height - y)
                    strip = file.read(1, window=Window(0, y, image.width, rows))
                    self._refuse_unknown(path, strip)
                    yield y, strip
        except (SourceError, RasterioError) as error:
            raise self._damaged(path, str(error.__cause__ or error)) from error

    def file(self, image: LabelledImage) -> Path:
        """The file of an image, to be linked or copied.

        Raises SourceError where it is not there, is no image, or is of another size than its label
        map: whatever path a run folder says, no other file gets into a data set.
        """
        if (found := image.file) is None:
            raise SourceError(
                f"{image.path} is no file of this machine, to be linked or copied; bring it back, "
                "or label a copy that is here"
            )
        with of_source(image.name, "opening"), RasterReader(found, self._reading) as reader:
            now = reader.width, reader.height
        if now != (image.width, image.height):
            raise SourceError(
                f"{image.path} is now {now[0]} x {now[1]} pixels, its label map {image.width} x "
                f"{image.height}; label it anew"
            )
        return found

    def instances(self, image: LabelledImage) -> Instances:
        """What its label map shows of each object, or patches where the run knows of none."""
        return find_instances(self._strips(image), image.size, self.categories.unlabelled)

    def said(self, image: LabelledImage) -> Said:
        """What the catalogue said of an image, where it came from one."""
        return self._reading.said_of(image.path)

    def has_objects(self, image: LabelledImage) -> bool:
        """Whether instances of an image are objects: the run kept its regions, or their map."""
        return (
            self.folder.region_raster(image.label).exists()
            and self.folder.regions(image.group).exists()
        ) or self.folder.object_map(image.label).exists()

    def _source(self, row: dict) -> LabelledImage | LeftOut:
        if row["reason"]:
            return LeftOut(row["source"], row["reason"])
        if not self.folder.label(row["label"]).exists():
            missing = f"its label map is missing; see: alps verify {self.folder.root}"
            return LeftOut(row["source"], self._refused.get(row["source_index"], missing))
        return LabelledImage(
            row["source_index"],
            _spelt(row["source"], row["path"]),
            row["path"],
            self._stem(row["label"]),
            row["label"],
            row["source_width"],
            row["source_height"],
            self._plan.shard_of(row["tile_id"]),
            VAL if row["source_index"] in self._held_out else TRAIN,
        )

    @cached_property
    def _refused(self) -> dict[int, str]:
        """Why sources have no label map, by source index."""
        return {
            line.source_index: line.reason
            for line in last_lines(self.folder.painted)
            if line.reason
        }

    @cached_property
    def _stems_are_unique(self) -> bool:
        stems = pc.replace_substring_regex(self._first.column("label"), r"\.(png|tif)$", "")
        return pc.count_distinct(stems).as_py() == len(self)

    def _stem(self, label: str) -> str:
        if self._stems_are_unique:
            return label.removesuffix(PurePosixPath(label).suffix)
        return label  # which no other has

    def _strips(self, image: LabelledImage) -> Iterator[Strip]:
        with ExitStack() as stack:
            objects = self._objects(image, stack)
            for y, labels in self.labels(image):
                found = next(objects)[1] if objects is not None else None
                yield Strip(y, labels, found)

    def _objects(
        self, image: LabelledImage, stack: ExitStack
    ) -> Iterator[tuple[int, np.ndarray]] | None:
        """The object of each pixel, -1 in none, in strips as ``labels`` has them."""
        size = (image.width, image.height)
        path = self.folder.object_map(image.label)
        if path.exists():
            raster = stack.enter_context(open_regions(path, size))
            return ((y, _as_objects(strip)) for y, strip in raster.strips())
        if not self.has_objects(image):
            return None
        path = self.folder.region_raster(image.label)
        refuse_damaged(path, image.group, self.folder)
        of_region = self._tables(image.group).of_source(image.index).column("object").to_numpy()
        raster = stack.enter_context(open_regions(path, size))
        return raster.values(of_region, NO_OBJECT)

    def _tables(self, group: int) -> GroupTables:
        """Tables of a group, which its sources share."""
        number, tables = self._group
        if tables is None or number != group:
            self._group = -1, None  # before the next ones are read
            tables = GroupTables(self.folder, group, ["object"])
            self._group = group, tables
        return tables

    def _refuse_unknown(self, path: Path, labels: np.ndarray) -> None:
        values = np.flatnonzero(np.bincount(labels.ravel(), minlength=1))
        own = values[values != self.categories.unlabelled]
        unknown = own[self.categories.numbers[own] < 0]
        if len(unknown):
            raise RunFolderError(
                f"{path} shows class {unknown[0]}, of which {self.folder.classes} knows no pixel; "
                "give the command that made it again"
            )

    def _damaged(self, path: Path, why: str) -> RunFolderError:
        return self.folder.damaged(path, " ".join(why.split()))


def _first_rows(plan: Plan) -> pa.Table:
    """The first row of each source."""
    rows = [vars(first) for first in plan.firsts()]
    return pa.Table.from_pylist(rows, schema=PLAN_SCHEMA).select(COLUMNS)


def _as_objects(numbers: np.ndarray) -> np.ndarray:
    """An object map's (h, W) uint32 as int32, -1 in none."""
    assert np.iinfo(np.uint32).max == NOWHERE  # so that it is -1
    return numbers.view(np.int32)


def _spelt(source: str, path: str) -> str:
    """A source's name without the escapes that it has in tables; of remote ones as it is there."""
    if path.startswith(VIRTUAL):
        return source
    parts = PurePosixPath(path).parts
    return "/".join(parts[-len(PurePosixPath(source).parts) :])


def _held_out(names: list[str], splits: Splits) -> frozenset[int]:
    """Indices of the sources whose scenes are drawn; at least one scene stays on either side."""
    if not splits.val:
        return frozenset()
    scenes = names if splits.scene is None else [_scene(name, splits.scene) for name in names]
    known = sorted(set(scenes))
    if len(known) < 2:
        raise SettingsError(
            f"--val {splits.val:g} needs two scenes at least; there is {len(known)}"
        )
    order = np.random.default_rng(splits.seed).permutation(len(known))
    count = min(max(1, round(splits.val * len(known))), len(known) - 1)
    drawn = {known[i] for i in order[:count]}
    return frozenset(index for index, scene in enumerate(scenes) if scene in drawn)


def _scene(name: str, pattern: str) -> str:
    """What of a name is its scene: the first group of the pattern, or all that it matches."""
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise SettingsError(f"--scene {pattern}: no regular expression: {error}") from error
    if found is None:
        raise SettingsError(f"--scene {pattern}: does not match the image {name}")
    return (found[1] if found.re.groups else found[0]) or ""
