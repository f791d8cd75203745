"""What tiles.parquet says of sources: when they were taken, and which of them to show."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from alps.engine.base.errors import RunFolderError
from alps.engine.base.records import one_line
from alps.engine.images.dates import UNKNOWN, date_in_name
from alps.engine.images.facts.said import SaidTable
from alps.engine.report.rows.shortlist import Shortlist, scatter
from alps.engine.run_folder.tables import open_table

BATCH_ROWS = 16_384
MOST_SIDE = 6000  # pixels of a scene that are shown
COLUMNS = ("source_index", "source", "path", "label", "source_width", "source_height")


@dataclass(frozen=True)
class SourceRow:
    """One source, as much as a picture needs."""

    source_index: int
    source: str
    path: str | None  # what to open; None where the row does not say
    label: str | None  # label map, relative to OUT/labels
    width: int
    height: int


@dataclass(frozen=True)
class SourceSurvey:
    """All sources in short, and a few by lot."""

    dates: np.ndarray  # (S,) int32 of ``dates``, by source index; UNKNOWN for most archives
    scenes: list[int]  # indices of sources of several windows
    sample: list[int]  # indices of any


def survey_sources(
    path: Path, scenes: int, sample: int, latest: int, said: SaidTable | None = None
) -> SourceSurvey:
    """Read all rows once, batch by batch; up to ``scenes`` and ``sample`` sources are drawn.

    Scenes that are larger than MOST_SIDE come last: of those only a part could be shown.

    latest: year after which no image was taken. said: what a catalogue says of the sources.

    Raises RunFolderError where it cannot be read.
    """
    wanted = ["source_index", "source", "path", "status", "width", "height", *COLUMNS[-2:]]
    drawn, cut = Shortlist(sample, spread="id"), Shortlist(scenes, spread="id")
    dates = np.full(0, UNKNOWN, np.int32)
    try:
        with open_table(path) as file:
            names = file.schema_arrow.names
            columns = [name for name in wanted if name in names]
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                table = pa.Table.from_batches([batch])
                ok = np.isin(table["status"].to_numpy(), ["ok", "empty"])
                index = table["source_index"].to_numpy()
                dates = _dated(dates, table, latest, said)
                drawn.add(_lots(index[ok]))
                if set(COLUMNS[-2:]) <= set(names):
                    size = [table[name].to_numpy() for name in ("width", "height", *COLUMNS[-2:])]
                    several = (size[0] < size[2]) | (size[1] < size[3])
                    large = np.maximum(size[2], size[3]) > MOST_SIDE
                    cut.add(_lots(index[ok & several & ~large]))
                    cut.add(_lots(index[ok & several & large], last=True))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise RunFolderError(
            f"{path} cannot be read: {one_line(error)}. Run `alps label` on this folder again."
        ) from error
    return SourceSurvey(
        dates, *([row["id"] for row in shortlist.rows()] for shortlist in (cut, drawn))
    )


def read_sources(path: Path, indices: Iterable[int]) -> dict[int, SourceRow]:
    """The first row of each of these sources, by source index."""
    wanted = np.array(sorted(set(indices)), np.int64)
    found: dict[int, SourceRow] = {}
    if not len(wanted):
        return found
    with open_table(path) as file:
        columns = [name for name in COLUMNS if name in file.schema_arrow.names]
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            index = batch["source_index"].to_numpy()
            known, first = np.unique(index, return_index=True)
            new = first[np.isin(known, wanted)]
            for row in batch.take(pa.array(new)).to_pylist():
                if row["source_index"] not in found:
                    found[row["source_index"]] = SourceRow(
                        row["source_index"],
                        row["source"],
                        row.get("path"),
                        row.get("label"),
                        row.get("source_width") or 0,
                        row.get("source_height") or 0,
                    )
    return found


def _dated(dates: np.ndarray, table: pa.Table, latest: int, said: SaidTable | None) -> np.ndarray:
    """Add the dates of sources that these rows are the first of."""
    known, first = np.unique(table["source_index"].to_numpy(), return_index=True)
    known, first = known[known >= 0], first[known >= 0]
    if len(known) and known.max() >= len(dates):
        more = np.full(known.max() + 1 - len(dates), UNKNOWN, np.int32)
        dates = np.concatenate([dates, more])
    rows = table.take(pa.array(first))
    names = rows["source"].to_pylist()
    dates[known] = [date_in_name(name or "", latest) for name in names]
    if said is not None and "path" in table.column_names:
        by_item = np.array(said.dates(rows["path"].to_pylist()), np.int32)
        dates[known] = np.where(by_item == UNKNOWN, dates[known], by_item)
    return dates


def _lots(index: np.ndarray, last: bool = False) -> dict[str, np.ndarray]:
    ids = np.unique(index[index >= 0]).astype(np.int64)
    return {"group": np.zeros(len(ids), np.int64), "key": scatter(ids) + last, "id": ids}
