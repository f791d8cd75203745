"""What a run folder's regions say beside their classes: margins, edges, vectors, the controls.

Label maps tell only the class of a pixel. The raster of regions tells whatever is wanted, by a look
into a table with a value a region. Regions that a label map leaves out, being in doubt or small,
are told by the label map.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np

from alps.engine.base.errors import RunFolderError
from alps.engine.clusters.features import FeatureModel
from alps.engine.clusters.file import load_clusters
from alps.engine.clusters.vectors import vectors_of
from alps.engine.labels.writer import label_dtype
from alps.engine.regions.objects import NO_OBJECT
from alps.engine.regions.raster import open_regions
from alps.engine.regions.tables import GroupTables
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.tables import read_table
from alps.trainer.data.settings import PseudoSettings

WEIGHTS = 255  # full weight; 0: none
EDGE = 1  # pixels on either side of where two objects meet
MASKS = ("edge", "object")  # classes of the control "masks"
QUANTILE_SAMPLE = 1_000_000  # margins, at most


class RegionTargets:
    """Shows targets and weights of one run folder's regions, source by source."""

    def __init__(self, folder: RunFolder, classes: int, pseudo: PseudoSettings, seed: int) -> None:
        """``classes``: K of the run. Raises RunFolderError where there are no regions."""
        self._folder, self._classes, self._pseudo, self._seed = folder, classes, pseudo, seed
        parts = class_files(folder)
        if not parts or not folder.plan.exists():
            raise RunFolderError(
                f"{folder.root} has no regions with classes; margins and controls need them: use a "
                "folder that alps label wrote (in one pass: with --keep-segments), or --targets "
                "classes without margins"
            )
        self._plan = Plan.of(folder)
        self._tiles = {tiles[0].source_index: tiles for tiles in self._plan.sources()}
        self._sample = _margins(parts)
        self._writing = Lock()
        found = [read_table(part, ["cluster"]).column("cluster").to_numpy() for part in parts]
        counts = np.bincount(np.concatenate(found), minlength=classes).astype(float)
        self._shares = counts / max(counts.sum(), 1)

    def labels(self, source: int) -> Iterator[tuple[int, np.ndarray]]:
        """The control's labels of a source from top to bottom: (y, (h, width) uint8 or uint16).

        0 in no region; the caller knows where the label map has nothing.
        """
        if self._pseudo.painted == "shuffled":
            yield from self._shuffled(source)
            return
        above: np.ndarray | None = None
        held: tuple[int, np.ndarray] | None = None
        # An edge is known only with the row below it: a strip waits for the next one.
        for y, objects in self._shown(source, self.objects(source), NO_OBJECT):
            if held is not None:
                yield held[0], _masks(above, held[1], objects[:EDGE])
                above = held[1][-EDGE:]
            held = (y, objects)
        if held is not None:
            yield held[0], _masks(above, held[1], None)

    def weights(self, source: int) -> Iterator[tuple[int, np.ndarray]]:
        """Weights of a source from top to bottom: (y, (h, width) uint8), 0 where cut off."""
        full = max(float(np.median(self._sample)), 1e-6)
        cut = float(np.quantile(self._sample, self._pseudo.margin_cut))
        margin = self._class_column(source, "margin")
        weight = (
            np.clip(margin / full, 0, 1) if self._pseudo.margin_weight else np.ones_like(margin)
        )
        # A weight that is not cut off is never rounded down to nothing.
        values = np.maximum(np.round(WEIGHTS * weight), 1)
        of_region = np.where(margin < cut, 0, values).astype(np.uint8)
        yield from self._shown(source, of_region, WEIGHTS)

    def numbers(self, source: int) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers of a source's regions from top to bottom: (y, (h, width) int32), -1 in none."""
        with open_regions(self._folder.region_raster(self._label(source))) as raster:
            for y, numbers in raster.strips():
                yield y, numbers.view(np.int32)  # NOWHERE, all bits set, is -1

    def objects(self, source: int) -> np.ndarray:
        """The object of each region of a source, (R,) int32, -1 for none.

        Regions are cut much finer than what SAM sees; an object is what its masks see as one, over
        all windows.
        """
        return self._column(source, "object")

    def vectors(self, source: int) -> np.ndarray:
        """What stands for each region of a source, (R, D) float16: embeddings without colours."""
        tables = self._tables(source)
        rows = tables.rows_of(source)
        features = self._features
        with self._writing:  # two pairs of a group may both find none
            file = vectors_of(self._folder, self._plan.group_of(self._tiles[source]), features)
        width = file.width - len(features.colour_scale)
        return file.read(rows.start, len(rows))[0][:, :width].astype(np.float16)

    @cached_property
    def _features(self) -> FeatureModel:
        """How vectors were made. Raises RunFolderError where the run does not say."""
        try:
            return load_clusters(self._folder.clusters).model.known_features()
        except ValueError as error:
            raise RunFolderError(
                f"{self._folder.clusters} does not say how vectors of regions are made; make it "
                "anew with: alps cluster OUT, or leave vectors out of --targets"
            ) from error

    def _shuffled(self, source: int) -> Iterator[tuple[int, np.ndarray]]:
        """Each object, and each region of none, in the class of a random region."""
        objects = self.objects(source)
        count = len(objects)
        thing = np.where(objects < 0, np.arange(count), count + objects)
        drawn = np.random.default_rng([self._seed, source]).choice(
            self._classes, thing.max(initial=-1) + 1, p=self._shares
        )
        of_region = drawn[thing].astype(label_dtype(self._classes))
        yield from self._shown(source, of_region, 0)

    def _shown(
        self, source: int, of_region: np.ndarray, nothing: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        with open_regions(self._folder.region_raster(self._label(source))) as raster:
            yield from raster.values(of_region, nothing)

    def _column(self, source: int, name: str) -> np.ndarray:
        """Of a source's regions, (R,)."""
        return self._tables(source, (name,)).of_source(source).column(name).to_numpy()

    def _class_column(self, source: int, name: str) -> np.ndarray:
        """Of the classes of a source's regions, (R,)."""
        return self._tables(source, (), (name,)).of_source(source).column(name).to_numpy()

    def _tables(
        self, source: int, columns: Sequence[str] = (), classes: Sequence[str] = ()
    ) -> GroupTables:
        return GroupTables(self._folder, self._plan.group_of(self._tiles[source]), columns, classes)

    def _label(self, source: int) -> str:
        return self._tiles[source][0].label


def class_files(folder: RunFolder) -> list[Path]:
    """The files of clusters and margins of a run's regions."""
    return sorted((folder.root / "clusters").glob("part-*.parquet"))


def _masks(above: np.ndarray | None, objects: np.ndarray, below: np.ndarray | None) -> np.ndarray:
    """1 inside an object, 0 on its edge and where there is none; (h, w) uint8.

    objects: (h, w) int32, -1 where there is none. above, below: rows that touch it, if any.
    """
    parts = [rows for rows in (above, objects, below) if rows is not None]
    whole = np.concatenate(parts)
    inside = whole != NO_OBJECT
    across = whole[:, 1:] != whole[:, :-1]
    inside[:, 1:] &= ~across
    inside[:, :-1] &= ~across
    along = whole[1:] != whole[:-1]
    inside[1:] &= ~along
    inside[:-1] &= ~along
    start = 0 if above is None else len(above)
    return inside[start : start + len(objects)].astype(np.uint8)


def _margins(parts: list[Path]) -> np.ndarray:
    """A sample of all margins, (n,) float32."""
    share = max(1, QUANTILE_SAMPLE // max(len(parts), 1))
    some = []
    for part in parts:
        margins = read_table(part, ["margin"]).column("margin").to_numpy()
        some.append(margins[:: max(1, -(-len(margins) // share))])
    sample = np.concatenate(some)
    return sample if len(sample) else np.ones(1, np.float32)
