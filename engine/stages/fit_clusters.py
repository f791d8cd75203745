"""Fit clusters to a sample of an archive's tiles, for labelling all of it in one pass."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alps.engine.base.atomic import whole
from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.run_folder.plan import Plan
from alps.engine.settings import RunSettings
from alps.engine.stages.label import cluster_stage, refuse_failures, summarise
from alps.engine.stages.opening import (
    RunOptions,
    note_warnings,
    open_run,
    refuse_foreign,
)
from alps.engine.stages.regions import regions_cut
from alps.engine.stages.segment import collect_tiles
from alps.engine.stages.tiles.crew import crew_for
from alps.engine.stages.tiles.job import prepare_for, segment_with


def fit_clusters(
    src: str | Path,
    file: str | Path,
    sample: int,
    settings: RunSettings | None = None,
    options: RunOptions | None = None,
    work: Path | None = None,
) -> int:
    """Segment ``sample`` tiles drawn over the images at ``src``, cluster them, write ``file``.

    Args:
        src: the archive.
        file: receives the clusters, whole or not at all.
        sample: number of tiles; all where there are fewer.
        settings: of segments, regions and clusters; the seed draws the tiles too.
        options: the model and where it runs.
        work: the run folder of the sample, kept; None: one beside ``file``, dropped at the end.
            Started again after an interruption, it goes on.

    Returns the number of regions that were clustered.

    Raises errors as ``label_archive``.
    """
    settings, options = settings or RunSettings(), options or RunOptions()
    file = Path(file)
    if sample < 1:
        raise SettingsError(f"--sample {sample}: give at least one tile")
    if file.is_dir():
        raise SettingsError(f"{file} is a folder; give a file for the clusters, clusters.npz say")
    folder = RunFolder(work or file.with_name(f".{file.name}.sample"))
    refuse_foreign(folder)
    with locked(folder), crew_for(folder, options) as (crew, options):
        loaded = prepare_for(crew, folder, settings, options)
        _, loaded = open_run(
            folder,
            src,
            loaded,
            also={"sample": sample, "seed": settings.cluster.seed},
            choose_tiles=partial(draw_tiles, sample=sample, seed=settings.cluster.seed),
        )
        found = segment_with(crew, folder, loaded, options)
        note_warnings(folder, found, options.share)
        collect_tiles(folder)
        summary = summarise(folder)
        refuse_failures(folder, summary.tiles, summary.failed_reasons, options.max_failed)
        cluster_stage(folder, settings.cluster, options.device, crew=crew)
        count = regions_cut(folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole(file) as part:
            shutil.copyfile(folder.clusters, part)
    if work is None:
        shutil.rmtree(folder.root)
    return count


def draw_tiles(plan: Plan, sample: int, seed: int) -> pa.Table:
    """Rows of a plan of ``sample`` of a plan's tiles, in its order and numbered anew.

    Raises SourceError where no tile can be read.
    """
    readable = [pc.equal(block["reason"], "").to_numpy() for block in plan.blocks(["reason"])]
    usable = np.flatnonzero(np.concatenate(readable))
    if not len(usable):
        raise SourceError("no tile of the archive can be read; nothing to fit clusters to")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(usable, min(sample, len(usable)), replace=False))
    drawn = pa.concat_tables(plan.rows(row, row + 1) for row in rows.tolist()).combine_chunks()
    columns: dict[str, Any] = {"tile_id": np.arange(len(rows))}
    if len(rows) < len(usable):  # each is a scene of its own: what lies around is not segmented
        places = zip(*(drawn.column(key).to_pylist() for key in ("label", "x", "y")), strict=True)
        columns["source_index"] = np.arange(len(rows))
        columns["label"] = [f"{label}.{x}.{y}" for label, x, y in places]
    for name, values in columns.items():
        at = drawn.schema.get_field_index(name)
        field = drawn.schema.field(at)
        drawn = drawn.set_column(at, field, pa.array(values, field.type))
    return drawn
