"""What a run folder's segments say beside their classes: margins as weights, and the controls.

Label maps tell only the class of a pixel. Painted anew with another value in place of the class,
by the same code and so in the same places, segments tell whatever else is wanted.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from alps.engine.base.errors import RunFolderError
from alps.engine.labels.paint import SegmentStore, paint_strips
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import PlannedTile, sources_of
from alps.engine.run_folder.tables import read_table
from alps.trainer.data.settings import PseudoSettings

WEIGHTS = 255  # full weight; 0: none
LEVELS = 254  # of a margin while it is painted; 255 is "no segment" there
NUMBERS = 65521  # a prime: segments that touch share a number by chance once in as many times
EDGE = 1  # pixels on either side of where two segments meet
MASKS = ("nothing", "segment")  # classes of the control "masks"
QUANTILE_SAMPLE = 1_000_000  # margins, at most


class SegmentTargets:
    """Paints targets and weights of one run folder, source by source."""

    def __init__(self, folder: RunFolder, classes: int, pseudo: PseudoSettings, seed: int) -> None:
        """``classes``: K of the run. Raises RunFolderError where there are no segments."""
        self._folder, self._classes, self._pseudo, self._seed = folder, classes, pseudo, seed
        self._parts = sorted((folder.root / "segments").glob("part-*.parquet"))
        if not self._parts or not folder.plan.exists():
            raise RunFolderError(
                f"{folder.root} has no segments; margins and controls need them: use a folder that "
                "alps label wrote, or --targets classes without margins"
            )
        self._tiles = {
            tiles[0].source_index: tiles for tiles in sources_of(read_table(folder.plan))
        }
        self._sample = _margins(self._parts)
        # Where label maps leave doubtful segments out, random classes must do so too.
        settings = folder.read_run().get("settings", {})
        self._least = settings.get("paint", {}).get("min_margin", 0.0)
        found = [read_table(part, ["cluster"]).column("cluster").to_numpy() for part in self._parts]
        counts = np.bincount(np.concatenate(found), minlength=classes).astype(float)
        self._shares = counts / max(counts.sum(), 1)

    def labels(self, source: int) -> Iterator[tuple[int, np.ndarray]]:
        """The control's labels of a source from top to bottom: (y, (h, width) uint8 or uint16)."""
        if self._pseudo.targets == "shuffled":
            yield from self._painted(source, self._classes, self._random_class, self._least)
            return
        above: np.ndarray | None = None
        held: tuple[int, np.ndarray] | None = None
        # An edge is known only with the row below it: a strip waits for the next one.
        for y, numbers in self._painted(source, NUMBERS, _number):
            if held is not None:
                yield held[0], _masks(above, held[1], numbers[:EDGE])
                above = held[1][-EDGE:]
            held = (y, numbers)
        if held is not None:
            yield held[0], _masks(above, held[1], None)

    def weights(self, source: int) -> Iterator[tuple[int, np.ndarray]]:
        """Weights of a source from top to bottom: (y, (h, width) uint8), 0 where cut off."""
        full = max(float(np.median(self._sample)), 1e-6)
        cut = float(np.quantile(self._sample, self._pseudo.margin_cut))

        def level(table: pa.Table, _: int) -> np.ndarray:
            margin = table.column("margin").to_numpy()
            weight = np.clip(margin / full, 0, 1) if self._pseudo.margin_weight else 1.0
            # A weight that is not cut off is never rounded down to nothing.
            levels = np.maximum(np.round(LEVELS * weight), 1) * np.ones(len(margin))
            return np.where(margin < cut, 0, levels).astype(np.int32)

        for y, levels in self._painted(source, LEVELS + 1, level):
            weights = levels.astype(np.uint16) * WEIGHTS // LEVELS
            yield y, np.where(levels == 255, WEIGHTS, weights).astype(np.uint8)

    def _random_class(self, table: pa.Table, tile_id: int) -> np.ndarray:
        generator = np.random.default_rng([self._seed, tile_id])
        return generator.choice(self._classes, table.num_rows, p=self._shares).astype(np.int32)

    def _painted(
        self,
        source: int,
        values: int,
        value: Callable[[pa.Table, int], np.ndarray],
        least: float = 0.0,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Strips of another value than the class, of which there are ``values``."""
        store = _Revalued(self._folder, value)
        return paint_strips(self._tiles[source], store, values, least)


class _Revalued(SegmentStore):
    """Segments with another value where their class stands."""

    COLUMNS = ("tile_id", "segment_id", "area", "predicted_iou", "counts", "margin")

    def __init__(self, folder: RunFolder, value: Callable[[pa.Table, int], np.ndarray]) -> None:
        super().__init__(folder)
        self._value = value

    def of_tile(self, tile_id: int) -> pa.Table:
        table = super().of_tile(tile_id)
        return table.append_column("cluster", pa.array(self._value(table, tile_id), pa.int32()))


def tiles_planned(folder: RunFolder) -> dict[int, list[PlannedTile]]:
    """The tiles of each source, by its index."""
    return {tiles[0].source_index: tiles for tiles in sources_of(read_table(folder.plan))}


def _number(table: pa.Table, tile_id: int) -> np.ndarray:
    ids = table.column("segment_id").to_numpy().astype(np.int64)
    return ((tile_id * 7919 + ids) % NUMBERS).astype(np.int32)


def _masks(above: np.ndarray | None, numbers: np.ndarray, below: np.ndarray | None) -> np.ndarray:
    """1 inside a segment, 0 on its edge and where there is none; (h, w) uint8.

    numbers: (h, w) uint16, 65535 where there is none. above, below: rows that touch it, if any.
    """
    parts = [rows for rows in (above, numbers, below) if rows is not None]
    whole = np.concatenate(parts)
    inside = whole != 65535
    across = whole[:, 1:] != whole[:, :-1]
    inside[:, 1:] &= ~across
    inside[:, :-1] &= ~across
    along = whole[1:] != whole[:-1]
    inside[1:] &= ~along
    inside[:-1] &= ~along
    start = 0 if above is None else len(above)
    return inside[start : start + len(numbers)].astype(np.uint8)


def _margins(parts: list) -> np.ndarray:
    """A sample of all margins, (n,) float32."""
    share = max(1, QUANTILE_SAMPLE // max(len(parts), 1))
    some = []
    for part in parts:
        margins = read_table(part, ["margin"]).column("margin").to_numpy()
        some.append(margins[:: max(1, -(-len(margins) // share))])
    sample = np.concatenate(some)
    return sample if len(sample) else np.ones(1, np.float32)
