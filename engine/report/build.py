"""Writes OUT/report/index.html: reads the run, chooses what to show, and fills in the page."""

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from alps.engine.base.atomic import whole
from alps.engine.base.errors import RunFolderError
from alps.engine.images.dates import UNKNOWN, date_in_tags, date_words
from alps.engine.labels.classes import Classes, LabelClass, read_classes
from alps.engine.report import run_facts, words
from alps.engine.report.cards import TileCard, draw_tile, mark_extremes
from alps.engine.report.exemplars import Exemplar, draw_exemplars, pick_exemplars
from alps.engine.report.rows.masks import masks_of_tiles, segment_parts
from alps.engine.report.rows.regions import find_candidates, region_parts
from alps.engine.report.rows.sources import SourceSurvey, read_sources, survey_sources
from alps.engine.report.rows.tiles import (
    TileFigures,
    choose_tiles,
    read_rows,
    survey_tiles,
)
from alps.engine.report.scenes import SceneCard, draw_scene, planned_tiles
from alps.engine.report.shares import Shares, classes_by_source
from alps.engine.report.sources import ReadTile, SourcePixels
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.inside import refuse_links
from alps.engine.run_folder.items import reading_of
from alps.engine.run_folder.run_record import LABEL
from alps.engine.run_folder.schemas import STAGES

SCENES_SHOWN = 4
TILES_SHOWN = 12
TILES_BESIDE_SCENES = 6
SOURCES_LISTED = 12  # with their classes
LATEST_YEAR = 2099  # of images, where the run does not say when it was
MOST_TAGS_READ = 64  # sources whose name says no date
CLASSES_PICTURED = 64  # the largest ones have exemplars
CLASSES_LISTED = 256
EXEMPLARS = 4  # a class
REASONS_LISTED = 40


@dataclass
class Pictures:
    """Everything on the page that is drawn."""

    scenes: list[SceneCard] = field(default_factory=list)
    tiles: list[TileCard] = field(default_factory=list)
    exemplars: dict[int, list[Exemplar]] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)  # sources that could not be read, and why


def build_report(run_folder: str | Path, read_tile: ReadTile | None = None) -> Path:
    """Write the run as one page that needs nothing else, and return the page's path.

    Whatever the archive's size the page stays below 6 MB and holds a sample: the same run gives
    the same bytes. Memory is bounded by a window and its masks.

    run_folder: what ``alps label`` wrote, where label maps and clusters may still be missing, or
    what ``alps predict`` wrote.
    read_tile: reads a window of a source by the source's name; by default the files are opened
    that the run read. Where a source is gone the page says so.

    Raises RunFolderError where the folder is no run, or where it is damaged or unwritable.
    """
    folder = RunFolder(Path(run_folder))
    run = folder.read_run()
    refuse_links(folder.root)
    if not folder.tiles.exists():
        raise RunFolderError(
            f"{folder.root} has no tiles.parquet yet; finish it with the command that began it: "
            f"alps {run.get('kind', LABEL)}"
        )
    classes = read_classes(folder.classes)
    figures, candidates = survey_tiles(folder.tiles)
    used = sorted((c for c in classes.classes if c.pixels or c.regions), key=_largest_first)
    started = run_facts.read_time(run.get("started"))
    latest = started.year if started else LATEST_YEAR
    reading = reading_of(folder, run)
    survey = survey_sources(folder.tiles, SCENES_SHOWN, SOURCES_LISTED, latest, reading.said)
    tile_ids = choose_tiles(candidates, TILES_BESIDE_SCENES if survey.scenes else TILES_SHOWN)
    with SourcePixels(reading, read_tile) as sources:
        pictured = _draw(folder, tile_ids, classes, used[:CLASSES_PICTURED], sources)
        pictured.scenes = _draw_scenes(folder, survey.scenes, classes, sources)
    if read_tile is None:
        _read_tags(folder, survey, latest)
    page = _page().render(
        style=_asset("page.css"),
        script=_asset("page.js"),
        title=_title(run),
        sam=run.get("kind", LABEL) == LABEL,
        run=_about(run),
        figures=figures,
        headline=_headline(run, figures),
        classes=classes,
        used=used[:CLASSES_LISTED],
        used_count=len(used),
        pictures=pictured,
        shares=_shares(folder, survey, classes),
        scene_dates=_scene_dates(survey),
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
    # Twice as many as are shown, because some are of one thing.
    found = find_candidates(region_parts(folder), [c.id for c in pictured], 2 * EXEMPLARS)
    chosen = {c: pick_exemplars(candidates, EXEMPLARS) for c, candidates in found.items()}
    homes = read_sources(folder.tiles, (r.source_index for own in chosen.values() for r in own))
    rows = read_rows(folder.tiles, tile_ids)
    parts = segment_parts(folder.root)
    masks = masks_of_tiles(parts, tile_ids) if parts else {}
    shown = sorted((rows[i] for i in tile_ids), key=lambda row: (-row.coverage, row.tile_id))
    marks = mark_extremes(shown)
    cards = {
        row.tile_id: draw_tile(
            folder, row, masks.get(row.tile_id), classes, sources, marks.get(row.tile_id, "")
        )
        for row in sorted(shown, key=lambda row: row.source)  # a source is opened once
    }
    return Pictures(
        tiles=[cards[row.tile_id] for row in shown],
        exemplars=draw_exemplars(folder, chosen, homes, sources),
        gone=sources.gone,
    )


def _draw_scenes(
    folder: RunFolder, indices: list[int], classes: Classes, sources: SourcePixels
) -> list[SceneCard]:
    rows, tiles = read_sources(folder.tiles, indices), planned_tiles(folder, indices)
    cards = [draw_scene(folder, rows[i], tiles[i], classes, sources) for i in sorted(indices)]
    return sorted(cards, key=lambda card: (card.row.source, card.row.source_index))


def _read_tags(folder: RunFolder, survey: SourceSurvey, latest: int) -> None:
    """Look for the dates of a few sources in their TIFF tags, where no name says any."""
    if survey.dates.any() or len(survey.dates) > MOST_TAGS_READ:
        return
    for index, row in read_sources(folder.tiles, range(len(survey.dates))).items():
        if row.path and PurePath(row.path).suffix.lower() in (".tif", ".tiff"):
            survey.dates[index] = date_in_tags(row.path, latest)


def _shares(folder: RunFolder, survey: SourceSurvey, classes: Classes) -> Shares:
    rows = read_sources(folder.tiles, survey.sample)
    names = {index: row.source for index, row in rows.items()}
    return classes_by_source(folder.painted, classes, survey.dates, names)


def _scene_dates(survey: SourceSurvey) -> dict[int, str]:
    return {i: date_words(d) for i in survey.scenes if (d := int(survey.dates[i])) != UNKNOWN}


@cache
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
    return -label_class.pixels, -label_class.regions, label_class.id


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
        "per_tile": figures.segments / figures.done if figures.done else None,
    }


def _stages(figures: TileFigures) -> list[tuple[str, float, float]]:
    """(stage, mean seconds a tile, share of all stages); none where nothing was timed."""
    total = sum(figures.seconds.values())
    if not total or not figures.done:
        return []
    return [(s, figures.seconds[s] / figures.done, figures.seconds[s] / total) for s in STAGES]
