"""Writes OUT/report/index.html: reads the run, chooses what to show, and fills in the page."""

from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError
from alps.engine.report import run_facts, words
from alps.engine.report.cards import TileCard, draw_tile, mark_extremes
from alps.engine.report.exemplars import Exemplar, draw_exemplars, pick_exemplars
from alps.engine.report.run_facts import Classes, LabelClass
from alps.engine.report.segment_rows import find_candidates, segment_parts, segments_of_tiles
from alps.engine.report.sources import ReadTile, SourcePixels
from alps.engine.report.tile_rows import (
    TileFigures,
    choose_tiles,
    read_rows,
    survey_tiles,
)
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.schemas import STAGES

TILES_SHOWN = 12
CLASSES_PICTURED = 64  # the largest ones have exemplars
CLASSES_LISTED = 256
EXEMPLARS = 4  # a class
REASONS_LISTED = 40


@dataclass
class Pictures:
    """Everything on the page that is drawn."""

    tiles: list[TileCard] = field(default_factory=list)
    exemplars: dict[int, list[Exemplar]] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)  # sources that could not be read, and why


def build_report(run_folder: str | Path, read_tile: ReadTile | None = None) -> Path:
    """Write the run as one page that needs nothing else, and return the page's path.

    Whatever the archive's size the page stays below 6 MB and holds a sample: the same run gives
    the same bytes. Memory is bounded by a window and its masks.

    run_folder: what ``alps label`` wrote; label maps and clusters may still be missing.
    read_tile: reads a window of a source by the source's name; by default the files are opened
    that the run read. Where a source is gone the page says so.

    Raises RunFolderError where the folder is no run, or where it is damaged or unwritable.
    """
    folder = RunFolder(Path(run_folder))
    run = folder.read_run()
    if not folder.tiles.exists():
        raise RunFolderError(
            f"{folder.root} has no tiles.parquet yet; finish it with: alps label SRC OUT"
        )
    classes = run_facts.read_classes(folder.classes)
    figures, candidates = survey_tiles(folder.tiles)
    used = sorted((c for c in classes.classes if c.pixels or c.segments), key=_largest_first)
    bands = run_facts.find_setting(run.get("settings"), "bands")
    with SourcePixels(tuple(bands) if bands else None, read_tile) as sources:
        tile_ids = choose_tiles(candidates, TILES_SHOWN)
        pictured = _draw(folder, tile_ids, classes, used[:CLASSES_PICTURED], sources)
    page = _page().render(
        style=_asset("page.css"),
        script=_asset("page.js"),
        title=_title(run),
        run=_about(run),
        figures=figures,
        headline=_headline(run, figures),
        classes=classes,
        used=used[:CLASSES_LISTED],
        used_count=len(used),
        pictures=pictured,
        reasons=figures.reasons[:REASONS_LISTED],
        quality=run_facts.quality_numbers(run.get("quality")),
        stages=_stages(figures),
        wall=run_facts.stage_seconds(run),
    )
    return _write(folder.root / "report" / "index.html", page)


def _draw(
    folder: RunFolder,
    tile_ids: list[int],
    classes: Classes,
    pictured: list[LabelClass],
    sources: SourcePixels,
) -> Pictures:
    parts = segment_parts(folder.root)
    # Twice as many as are shown, because overlapping windows show some things twice.
    found = find_candidates(parts, [c.id for c in pictured], 2 * EXEMPLARS)
    needed = {s.tile_id for f in found.values() for s in (*f.clearest, *f.drawn)}
    rows = read_rows(folder.tiles, needed | set(tile_ids))
    exemplars = {c: pick_exemplars(candidates, rows, EXEMPLARS) for c, candidates in found.items()}
    segments = segments_of_tiles(parts, tile_ids)
    shown = sorted((rows[i] for i in tile_ids), key=lambda row: (-row.coverage, row.tile_id))
    marks = mark_extremes(shown)
    cards = {
        row.tile_id: draw_tile(
            folder, row, segments[row.tile_id], classes, sources, marks.get(row.tile_id, "")
        )
        for row in sorted(shown, key=lambda row: row.source)  # a source is opened once
    }
    return Pictures(
        tiles=[cards[row.tile_id] for row in shown],
        exemplars=draw_exemplars(exemplars, rows, sources),
        gone=sources.gone,
    )


def _page() -> Any:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "count": words.count,
        "share": words.share,
        "seconds": words.seconds,
        "duration": words.duration,
        "rate": words.rate,
    }
    source = files("alps.engine.report").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(source)


def _asset(name: str) -> Markup:
    return Markup(files("alps.engine.report").joinpath(name).read_text(encoding="utf-8"))


def _write(path: Path, page: str) -> Path:
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}; check the folder's permissions"
        ) from error
    with whole(path) as part:
        # A name that is no UTF-8 reads as \udc80 in JSON; the page shows it just so.
        part.write_bytes(page.encode("utf-8", "backslashreplace"))
    return path


def _largest_first(label_class: LabelClass) -> tuple[int, int, int]:
    return -label_class.pixels, -label_class.segments, label_class.id


def _title(run: dict[str, Any]) -> str:
    source = str(run.get("source") or "")
    return PurePath(source).name or source or "an archive"


def _about(run: dict[str, Any]) -> dict[str, Any]:
    """What ran, in words; keys that run.json has not are shown as a dash."""
    model = run.get("model")
    model = model if isinstance(model, dict) else {}
    sha256 = str(model.get("sha256") or "")
    parameters = model.get("parameters")
    versions = run.get("versions")
    return {
        "source": run_facts.plain(run.get("source")),
        "model": run_facts.plain(model.get("name")),
        "sha256": sha256[:12],
        "parameters": words.rate(parameters / 1e6) if isinstance(parameters, int) else "",
        "seed": run_facts.plain(run.get("seed")),
        "config_hash": str(run.get("config_hash") or "")[:12],
        "started": words.moment(run_facts.read_time(run.get("started"))),
        "seconds": run_facts.run_seconds(run),
        "versions": dict(run_facts.flat(versions)) if isinstance(versions, dict) else {},
        "changed": run_facts.changed_settings(run),
        "settings": [(n, run_facts.plain(v)) for n, v in run_facts.flat(run.get("settings"))],
    }


def _headline(run: dict[str, Any], figures: TileFigures) -> dict[str, Any]:
    took = run_facts.stage_seconds(run).get("segment") or run_facts.run_seconds(run)
    total = sum(figures.tiles.values())
    return {
        "tiles": total,
        "statuses": [(s, n, n / total) for s, n in figures.tiles.items() if n],
        "rate": figures.done / took if took and figures.done else None,
        "uncovered": None if figures.coverage is None else 1 - figures.coverage,
        "per_tile": figures.segments / figures.done if figures.done else None,
    }


def _stages(figures: TileFigures) -> list[tuple[str, float, float]]:
    """(stage, mean seconds a tile, share of all stages); none where nothing was timed."""
    total = sum(figures.seconds.values())
    if not total or not figures.done:
        return []
    return [(s, figures.seconds[s] / figures.done, figures.seconds[s] / total) for s in STAGES]
