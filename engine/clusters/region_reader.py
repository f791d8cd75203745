"""What a region's own vector is made from: its row, and the segments that windows saw there."""

from collections import OrderedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alps.engine.base.errors import RunFolderError
from alps.engine.clusters.features import (
    SEGMENT_COLUMNS,
    RegionColumns,
    SegmentColumns,
    SourceMeans,
    lists,
    present,
    refuse_unusable,
    segment_columns,
)
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan
from alps.engine.run_folder.segment_store import SegmentStore

REGION_COLUMNS = ("area", "colour", "tiles", "segments", "shares")
MEANS_KEPT = 1 << 12  # sources whose means are kept

NO_MEANS = SourceMeans(np.zeros((0, 1)), np.zeros((0, 1)), np.zeros(0))


class RegionReader:
    """Reads what features of regions are made from: their rows, and the segments they saw."""

    def __init__(self, folder: RunFolder) -> None:
        self._store = SegmentStore(folder, SEGMENT_COLUMNS)
        self._plan = Plan.of(folder)
        self._means: OrderedDict[int, SourceMeans] = OrderedDict()

    def of_tile(self, tile_id: int) -> SegmentColumns:
        """The segments of a tile. Raises RunFolderError for numbers that are none."""
        table = self._store.of_tile(tile_id)
        # Of its longer side, which the network's input is scaled to.
        sides = self._plan.rows(tile_id, tile_id + 1, ["width", "height"])
        columns = segment_columns(table, max(column[0].as_py() for column in sides.columns))
        refuse_unusable(columns.embedding, "embeddings", tile_id)
        return columns

    def columns(self, table: pa.Table, shard: int = 0) -> RegionColumns:
        """Of rows of regions that have at least REGION_COLUMNS.

        shard: whose segments are there; one pass drops those of earlier groups.
        """
        tiles, segments, shares = (present(table, name) for name in ("tiles", "segments", "shares"))
        starts = tiles.offsets.to_numpy().astype(np.int64)
        if any(
            pc.list_value_length(one) != pc.list_value_length(tiles) for one in (segments, shares)
        ):
            raise RunFolderError(
                "regions of this run are of more tiles than segments; alps verify OUT --repair "
                "finds what is damaged"
            )
        tiles = tiles.flatten().to_numpy()
        names, which = np.unique(tiles, return_inverse=True)
        # What nobody saw has no vectors, but of the archive's width.
        found = [self.of_tile(int(tile)) for tile in names] or [self._none_of(shard)]
        lengths = np.array([len(one.area) for one in found], np.int64)
        before = np.cumsum(lengths) - lengths
        owners = [self._source_of(int(tile)) for tile in names]
        sources, source = np.unique(np.array(owners, np.int64), return_inverse=True)
        return RegionColumns(
            _joined(found),
            np.repeat(source, lengths),
            SourceMeans.join([self._mean_of(int(index)) for index in sources] or [NO_MEANS]),
            starts - starts[0],
            before[which] + segments.flatten().to_numpy(),
            shares.flatten().to_numpy(),
            lists(table, "colour"),
            table.column("area").to_numpy(),
        )

    def _none_of(self, shard: int) -> SegmentColumns:
        """No segment, of the width of a shard's."""
        return segment_columns(self._store.of_shard(shard).slice(0, 0), 1)

    def _source_of(self, tile_id: int) -> int:
        return int(self._plan.rows(tile_id, tile_id + 1, ["source_index"])[0][0].as_py())

    def _mean_of(self, source_index: int) -> SourceMeans:
        """What the segments of a source share."""
        if source_index not in self._means:
            parts = (self.of_tile(tile) for tile in self._plan.rows_of_source(source_index))
            self._means[source_index] = SourceMeans.of(part for part in parts if len(part.area))
            if len(self._means) > MEANS_KEPT:
                self._means.popitem(last=False)
        return self._means[source_index]


def _joined(parts: list[SegmentColumns]) -> SegmentColumns:
    return SegmentColumns(
        np.concatenate([part.embedding for part in parts]),
        np.concatenate([part.place for part in parts]),
        np.concatenate([part.area for part in parts]),
    )
