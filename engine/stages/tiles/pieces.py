"""The last shards of a run in pieces, so that workers end together.

A shard is committed whole: pieces of it, some tiles that follow each other, come back to the
parent, which commits them in order. They begin where a device's batches begin in the shard, so that
each tile keeps its place and the bytes are the same.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.plan import Plan
from alps.engine.stages.segment import Made, commit
from alps.engine.workers.place import CORES_OF_A_WORKER

PIECE_TILES = CORES_OF_A_WORKER  # at least: a CPU's cores have one tile each


@dataclass(frozen=True)
class Pieces:
    """Numbers of a job: those of shards, then, from ``first`` on, those of pieces."""

    first: int
    tiles: tuple[range, ...]

    @classmethod
    def of_last(
        cls, plan: Plan, shards: Sequence[int], workers: int, images: int, but: Collection[int]
    ) -> "Pieces":
        """Cut the last of ``shards``, one a worker.

        images: that a device takes at once. but: shards that are made whole: some of their tiles
        are known.
        """
        size = -(-PIECE_TILES // images) * images
        found = []
        for shard in shards[-workers:]:
            ids = plan.ids_of(shard)
            if shard not in but and len(ids) > size:
                found += [ids[at : at + size] for at in range(0, len(ids), size)]
        return cls(plan.shards, tuple(found))

    def numbers(self, plan: Plan, shards: Sequence[int]) -> list[int]:
        """Of all work on ``shards``, ascending."""
        cut = {plan.shard_of(piece.start) for piece in self.tiles}
        last = range(self.first, self.first + len(self.tiles))
        return [*(shard for shard in shards if shard not in cut), *last]

    def range_of(self, plan: Plan, number: int) -> range:
        """The tiles of a number."""
        return plan.ids_of(number) if number < self.first else self.tiles[number - self.first]

    def number_of(self, plan: Plan, ids: range) -> int:
        """The number of a shard's or a piece's tiles."""
        if ids == plan.ids_of(plan.shard_of(ids.start)):
            return plan.shard_of(ids.start)
        return self.first + self.tiles.index(ids)


@dataclass(frozen=True)
class Result:
    """What a worker sends back of a number."""

    made: list[Made]  # of a piece; a shard is committed by the worker
    doubts: dict[str, str]


def committed(
    folder: RunFolder, pieces: Pieces, results: Iterator[tuple[int, Any]]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Commit shards of which all pieces are there.

    Yields each shard that is on the disk, and what is doubtful about the sources that were read.
    """
    plan = Plan.of(folder)
    waiting: dict[int, dict[int, list[Made]]] = {}
    for number, result in results:
        if number < pieces.first:
            yield number, result.doubts
            continue
        piece = pieces.tiles[number - pieces.first]
        shard = plan.shard_of(piece.start)
        parts = waiting.setdefault(shard, {})
        parts[piece.start] = result.made
        if sum(map(len, parts.values())) == len(plan.ids_of(shard)):
            commit(folder, shard, [one for start in sorted(parts) for one in parts[start]])
            del waiting[shard]
            yield shard, result.doubts
