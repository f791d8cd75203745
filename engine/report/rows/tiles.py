"""What tiles.parquet says: figures over all rows in one pass, and the rows to be shown."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alps.engine.base.errors import RunFolderError
from alps.engine.base.records import one_line
from alps.engine.images.windows import Window
from alps.engine.report.rows.shortlist import Shortlist, scatter
from alps.engine.run_folder.schemas import STAGES
from alps.engine.run_folder.tables import open_table, read_table

STATUSES = ("ok", "empty", "skipped", "failed")
BATCH_ROWS = 16_384
EXAMPLES = 5  # sources named for each reason
MOST_REASONS = 500  # told apart; a reason with a number in it could be a million reasons
OTHER_REASONS = "Other reasons, too many to tell apart; tiles.parquet has them all."

COVERAGE_BINS = 8
SOURCE_BINS = 16
CANDIDATES = 12  # kept of each pair of bins
LEAST_VALID = 0.25  # a tile with less data than this is shown only where there is no other


@dataclass(frozen=True)
class TileRow:
    """One tile, as much of its row as a picture needs."""

    tile_id: int
    source: str
    path: str | None  # what to open; None where the row does not say
    label: str | None  # label map, relative to OUT/labels
    window: Window
    status: str
    reason: str
    segments: int
    coverage: float  # share of valid pixels under a segment, nan without valid pixels


@dataclass
class ReasonGroup:
    """Tiles that were left out, or hold nothing, for one reason."""

    status: str
    reason: str
    tiles: int = 0
    sources: set[int] = field(default_factory=set)
    examples: list[str] = field(default_factory=list)  # names of the first sources


@dataclass
class TileFigures:
    """Sums over all tiles. Tiles overlap, so pixels are counted once for each tile they are in."""

    tiles: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    sources: int = 0
    segments: int = 0
    valid_pixels: int = 0
    covered_pixels: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    reasons: list[ReasonGroup] = field(default_factory=list)  # most tiles first, failed first

    @property
    def done(self) -> int:
        """Tiles that went through all stages."""
        return self.tiles["ok"] + self.tiles["empty"]

    @property
    def coverage(self) -> float | None:
        """Share of valid pixels under at least one segment."""
        return self.covered_pixels / self.valid_pixels if self.valid_pixels else None


def survey_tiles(path: Path) -> tuple[TileFigures, list[dict[str, int | float]]]:
    """Read all rows once, batch by batch.

    Returns the figures, and candidates for the tiles to show: a few for each share of coverage
    and group of sources, at most some 1500. Raises RunFolderError where the file cannot be read.
    """
    wanted = [
        "tile_id", "source", "path", "source_index", "width", "height", "status", "reason",
        "segments", "valid_pixels", "covered_pixels", *(f"{stage}_seconds" for stage in STAGES),
    ]  # fmt: skip
    figures = TileFigures()
    candidates = Shortlist(CANDIDATES)
    seen = np.zeros(0, bool)
    groups: dict[tuple[str, str], ReasonGroup] = {}
    try:
        with open_table(path) as file:
            columns = [name for name in wanted if name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                table = pa.Table.from_batches([batch])
                indices = _numbers(table, "source_index").astype(np.int64)
                seen = _mark(seen, indices)
                _add_sums(figures, table)
                _add_reasons(groups, table)
                candidates.add(_candidates(table, indices))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise RunFolderError(
            f"{path} cannot be read: {one_line(error)}. Run `alps label` on this folder again."
        ) from error
    figures.sources = int(seen.sum())
    order = ("failed", "skipped", "empty")
    figures.reasons = sorted(
        groups.values(), key=lambda g: (order.index(g.status), -g.tiles, g.reason)
    )
    return figures, candidates.rows()


def choose_tiles(candidates: list[dict[str, int | float]], count: int) -> list[int]:
    """Pick ``count`` tile ids: worst and best covered, then unlike sources and coverages."""
    if not candidates:
        return []
    worst = min(candidates, key=lambda c: (c["sparse"], c["coverage"], c["id"]))
    best = min(candidates, key=lambda c: (c["sparse"], -c["coverage"], c["id"]))
    chosen = {worst["id"]: worst, best["id"]: best}
    rest = {c["id"]: c for c in candidates if c["id"] not in chosen}
    while rest and len(chosen) < count:
        sources = [c["source"] for c in chosen.values()]
        bins = [c["bin"] for c in chosen.values()]
        following = min(
            rest.values(),
            key=lambda c: (
                c["sparse"], sources.count(c["source"]), bins.count(c["bin"]), c["random"], c["id"]
            ),
        )  # fmt: skip
        chosen[following["id"]] = rest.pop(following["id"])
    return [int(tile_id) for tile_id in list(chosen)[:count]]


def read_rows(path: Path, tile_ids: Iterable[int]) -> dict[int, TileRow]:
    """Return the rows of these tiles by tile id. Raises RunFolderError where one is missing."""
    ids = sorted(set(tile_ids))
    if not ids:
        return {}
    wanted = (
        "tile_id", "source", "path", "label", "x", "y", "width", "height", "status", "reason",
        "segments", "valid_pixels", "covered_pixels",
    )  # fmt: skip
    names = pq.read_schema(path).names
    columns = [name for name in wanted if name in names]
    table = read_table(path, columns, where=("tile_id", ids))
    rows = {}
    for row in table.to_pylist():
        valid, covered = row["valid_pixels"] or 0, row["covered_pixels"] or 0
        rows[row["tile_id"]] = TileRow(
            tile_id=row["tile_id"],
            source=row["source"],
            path=row.get("path"),
            label=row.get("label"),
            window=Window(row["x"], row["y"], row["width"], row["height"]),
            status=row["status"],
            reason=row["reason"] or "",
            segments=row["segments"] or 0,
            coverage=covered / valid if valid else float("nan"),
        )
    missing = [tile_id for tile_id in ids if tile_id not in rows]
    if missing:
        raise RunFolderError(
            f"{path} has no row for tile {missing[0]}, which has segments. "
            "The folder holds files of different runs: label again, into a new folder."
        )
    return rows


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """A numeric column, 0 where it is null or not a number."""
    values = table[name].combine_chunks().fill_null(0).to_numpy(zero_copy_only=False)
    return np.nan_to_num(values) if values.dtype.kind == "f" else values


def _mark(seen: np.ndarray, indices: np.ndarray) -> np.ndarray:
    indices = indices[indices >= 0]
    if indices.size and indices.max() >= len(seen):
        seen = np.concatenate([seen, np.zeros(indices.max() + 1 - len(seen), bool)])
    seen[indices] = True
    return seen


def _add_sums(figures: TileFigures, table: pa.Table) -> None:
    for count in pc.value_counts(table["status"].combine_chunks()).to_pylist():
        status = count["values"] if count["values"] in figures.tiles else "failed"
        figures.tiles[status] += count["counts"]
    figures.segments += int(_numbers(table, "segments").sum(dtype=np.int64))
    figures.valid_pixels += int(_numbers(table, "valid_pixels").sum())
    figures.covered_pixels += int(_numbers(table, "covered_pixels").sum())
    done = table.filter(pc.is_in(table["status"], pa.array(["ok", "empty"])))
    for stage in STAGES:
        if f"{stage}_seconds" in table.column_names:
            figures.seconds[stage] += float(_numbers(done, f"{stage}_seconds").sum(dtype=float))


def _add_reasons(groups: dict[tuple[str, str], ReasonGroup], table: pa.Table) -> None:
    left = table.filter(pc.not_equal(table["status"], "ok"))
    left = left.select([n for n in left.column_names if n in _REASON_COLUMNS])
    for row in left.to_pylist():
        status = row["status"] if row["status"] in STATUSES else "failed"
        reason = row["reason"] or "no reason given"
        # A reason that names its file would be a group of its own; the names stand beside it.
        key = (status, _without_names(reason, row))
        if key not in groups and len(groups) >= MOST_REASONS:
            key = (status, OTHER_REASONS)
            reason = OTHER_REASONS
        group = groups.setdefault(key, ReasonGroup(status, reason))
        if group.tiles:
            group.reason = key[1]
        group.tiles += 1
        if row["source_index"] not in group.sources and len(group.examples) < EXAMPLES:
            group.examples.append(row["source"])
        group.sources.add(row["source_index"])


_REASON_COLUMNS = ("status", "reason", "source", "source_index", "path")


def _without_names(reason: str, row: dict[str, str | None]) -> str:
    path, source = row.get("path") or "", row["source"] or ""
    for name in (path, source, PurePath(path).name, PurePath(source).name):
        if len(name) > 3:  # a file called "is" must not be cut out of every sentence
            reason = reason.replace(name, "…")
    return reason


def _candidates(table: pa.Table, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Columns for the shortlist of the tiles that have something to show."""
    valid = _numbers(table, "valid_pixels").astype(np.float64)
    pixels = _numbers(table, "width").astype(float) * _numbers(table, "height")
    done = pc.is_in(table["status"], pa.array(["ok", "empty"])).combine_chunks()
    shown = done.to_numpy(zero_copy_only=False) & (valid > 0) & (pixels > 0)
    ids = _numbers(table, "tile_id")[shown].astype(np.int64)
    valid, pixels, indices = valid[shown], pixels[shown], indices[shown]
    coverage = _numbers(table, "covered_pixels")[shown] / valid
    sparse = (valid < LEAST_VALID * pixels).astype(np.int64)
    bins = np.clip(coverage * COVERAGE_BINS, 0, COVERAGE_BINS - 1).astype(np.int64)
    random = scatter(ids)
    kinds = bins * SOURCE_BINS + (scatter(indices) * SOURCE_BINS).astype(np.int64)
    # Two more groups, so that the extremes are there whatever the other groups hold.
    lowest = np.full(len(ids), COVERAGE_BINS * SOURCE_BINS)
    keys = np.concatenate([random, coverage, -coverage]) + 10 * np.tile(sparse, 3)
    return {
        "group": np.concatenate([kinds, lowest, lowest + 1]),
        "key": keys,
        "id": np.tile(ids, 3),
        "coverage": np.tile(coverage, 3),
        "sparse": np.tile(sparse, 3),
        "source": np.tile(indices, 3),
        "bin": np.tile(bins, 3),
        "random": np.tile(random, 3),
    }
