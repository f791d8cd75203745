"""Segments of single tiles, out of the shards' tables."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import SHARD_TILES, Plan
from alps.engine.run_folder.tables import read_table

KEPT = 4  # shards in memory: tiles come in order, and a row of windows may cross shards


class SegmentStore:
    """Some columns of the segments of tiles; the shards read last stay in memory.

    Several threads may ask at once.
    """

    def __init__(self, folder: RunFolder, columns: Sequence[str], kept: int = KEPT) -> None:
        self._folder, self._columns = folder, ["tile_id", *columns]
        self._plan = Plan.of(folder)
        # Larger shards hold as much each as several small ones.
        self._kept = min(kept, max(2, kept * SHARD_TILES // self._plan.shard_tiles))
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def of_tile(self, tile_id: int) -> pa.Table:
        """The segments of one tile, in their order."""
        table = self.of_shard(self._plan.shard_of(tile_id))
        ids = table.column("tile_id").to_numpy()  # sorted: the shard was written in order
        start, end = np.searchsorted(ids, [tile_id, tile_id + 1])
        return table.slice(start, end - start)

    def of_shard(self, shard: int) -> pa.Table:
        """The segments of all tiles of a shard, in their order."""
        with self._lock:
            if shard not in self._tables:
                if len(self._tables) >= self._kept:
                    self._tables.popitem(last=False)
                self._tables[shard] = read_table(self._folder.segments(shard), self._columns)
            self._tables.move_to_end(shard)
            return self._tables[shard]
