"""The command ``alps inspect``: what a run would read, as a table and as JSON."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alps.engine.cli.options import device_option, model_option, pick, settings_options
from alps.engine.cli.options.sections import SectionCommand
from alps.engine.settings import RunSettings, SourceSettings

if TYPE_CHECKING:
    from alps.engine.stages.inspection import Inspection, SourceFacts

MOST_ROWS = 40  # of the table; --json has all
HEADINGS = ("source", "driver", "size", "type", "bands", "valid", "stretch", "place", "windows")
MINUTE, HOUR, DAY = 60, 3600, 86400


@click.command("inspect", cls=SectionCommand)
@click.argument("src")
@model_option
@device_option
@click.option(
    "--sample",
    default=16,
    show_default=True,
    type=click.IntRange(1),
    help="Read pixels of so many sources, spread over all; headers are read of each.",
)
@click.option(
    "--time/--no-time",
    "with_time",
    default=True,
    show_default=True,
    help="Segment one window, to estimate how long all of them take.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Write all that was found to FILE; - prints it in place of the table.",
)
@settings_options(SourceSettings)
def inspect(
    src: str,
    model: str,
    device: str,
    sample: int,
    with_time: bool,
    json_file: Path | None,
    **values: Any,
) -> None:
    """Say what of SRC would be read, before a run: nothing is written.

    For each source its driver, size and type, the bands that are taken and why, the share of valid
    pixels, the stretch, where it lies, its windows, and what is doubtful; for all of them how long
    segmenting takes. Options are those of alps label.
    """
    from alps.engine.stages.inspection import inspect_archive
    from alps.engine.stages.opening import RunOptions

    settings = RunSettings(source=pick(SourceSettings, values))
    options = RunOptions(model=model, device=device)
    found = inspect_archive(src, settings, options, sample, with_time)
    text = json.dumps(found.plain(), indent=2)
    if json_file is not None and str(json_file) == "-":
        click.echo(text)
        return
    if json_file is not None:
        json_file.write_text(text + "\n", encoding="utf-8")
    click.echo(table_of(found))


def table_of(found: "Inspection") -> str:
    """The table, and below it what is doubtful and how long it takes."""
    rows = [HEADINGS, *(_row(source) for source in found.sources[:MOST_ROWS])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if len(found.sources) > MOST_ROWS:
        lines.append(f"{len(found.sources) - MOST_ROWS} more sources: --json has all")
    lines += ["", *(f"reading {words}" for words in found.kinds)]
    doubts: dict[str, list[str]] = {}
    for source in found.sources:
        for text in [source.reason] if source.reason else source.doubts:
            doubts.setdefault(text, []).append(source.name)
    for text, names in doubts.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"warning: {names[0]}{others}: {text}")
    settings = found.settings.source
    lines.append(
        f"{len(found.sources)} sources, {found.windows} windows of {settings.tile} pixels a side"
    )
    if found.seconds is not None:
        lines.append(
            f"about {duration(found.seconds)} to segment them here, "
            f"{found.seconds_per_window:.2f} seconds a window"
        )
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would say."""
    for unit, name in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"


def _row(source: "SourceFacts") -> tuple[str, ...]:
    header, pixels = source.header, source.pixels
    if header is None:
        return (source.name, "-", "-", "-", "-", "-", "-", "-", "0")
    bands = f"{','.join(map(str, header.bands))} of {header.band_count}: {header.bands_why}"
    valid = "not sampled" if pixels is None else f"{pixels.valid_share:.1%}"
    return (
        " ".join(source.name.split()),  # names may have line breaks
        header.driver,
        f"{header.width} x {header.height}",
        header.dtype,
        bands,
        valid,
        "not sampled" if pixels is None else _stretch(pixels.stretch, pixels.low, pixels.high),
        header.place,
        str(source.windows),
    )


def _stretch(words: str, low: tuple[float, ...] | None, high: tuple[float, ...] | None) -> str:
    if low is None or high is None:
        return words
    limits = " ".join(f"{black:.5g}:{white:.5g}" for black, white in zip(low, high, strict=True))
    return f"{words} {limits}"
