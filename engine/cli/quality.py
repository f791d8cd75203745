"""The command ``alps quality``: label maps against real labels, as a table and as JSON."""

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alps.engine.base.errors import SettingsError, printable
from alps.engine.cli.options import run_folder_argument
from alps.engine.quality.settings import QualitySettings

if TYPE_CHECKING:
    from alps.engine.quality.measure import Quality
    from alps.engine.quality.truth import Unmatched

DEFAULTS = QualitySettings()
NAMES_SHOWN = 5  # of files without counterpart; --json has them all


class IntegerList(click.ParamType):
    """Integers split by commas, or `none`."""

    name = "INT,…"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read "0,255" as (0, 255) and "none" as ()."""
        if isinstance(value, tuple):
            return value
        if value.strip().lower() == "none":
            return ()
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of integers such as 0,255, nor none", param, ctx)


@click.command()
@run_folder_argument(writes=False)
@click.option(
    "--truth",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of real labels: index images (PNG, TIFF, GIF, JPEG) of the same paths or stems.",
)
@click.option(
    "--truth-ignore",
    type=IntegerList(),
    multiple=True,
    help="Truth classes that do not count; repeat it, or split by commas, or say none. Outranks "
    "what GeoTIFFs call nodata. Default: 255, and that.",
)
@click.option(
    "--truth-threshold",
    type=float,
    default=DEFAULTS.truth_threshold,
    metavar="T",
    help="Truth values above T are class 1, others class 0; for masks of 0 and 255 give 127.",
)
@click.option("--only", metavar="GLOB", default=DEFAULTS.only, help="Score only images that match.")
@click.option(
    "--fit-only",
    metavar="GLOB",
    default=DEFAULTS.fit_only,
    help="Learn which pseudo-class is which truth class on these images, and score the others.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    metavar="N",
    default=DEFAULTS.folds,
    help="Part the images into N, and learn for each part on the others which class is which.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=DEFAULTS.seed,
    show_default=True,
    help="Which image lies in which part.",
)
@click.option(
    "--boundary-tolerance",
    type=click.FloatRange(min=0),
    default=DEFAULTS.boundary_tolerance,
    show_default=True,
    metavar="PIXELS",
    help="How far apart outlines may be that count as the same.",
)
@click.option(
    "--class-names", metavar="A,B,…", default="", help="Names of truth class 0, 1, … in the table."
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write all numbers and the mapping to FILE.",
)
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw which true class is read as which, to a PNG.",
)
def quality(
    out: Path,
    truth: Path,
    truth_ignore: tuple[tuple[int, ...], ...],
    truth_threshold: float | None,
    only: str | None,
    fit_only: str | None,
    folds: int | None,
    seed: int,
    boundary_tolerance: float,
    class_names: str,
    json_file: Path | None,
    plot: Path | None,
) -> None:
    """Hold the label maps of OUT against real labels.

    OUT is a run folder or any folder of label maps. Each pseudo-class is read as the truth class
    it overlaps most; without --fit-only or --folds this is learnt on the images that are scored.
    """
    settings = QualitySettings(
        truth_ignore=(
            tuple(sorted({value for values in truth_ignore for value in values}))
            if truth_ignore
            else None
        ),
        truth_threshold=truth_threshold,
        only=only,
        fit_only=fit_only,
        folds=folds,
        seed=seed,
        boundary_tolerance=boundary_tolerance,
        class_names=tuple(name.strip() for name in class_names.split(",")) if class_names else (),
    )
    # Not before: they bring pyarrow and scipy along.
    from alps.engine.quality.measure import measure_quality
    from alps.engine.run_folder.folder import RunFolder

    RunFolder(out).refuse_unpainted()
    result = measure_quality(out, truth, settings)
    click.echo(quality_text(result))
    if json_file is not None:
        _write_json(json_file, result)
    if plot is not None:
        from alps.engine.quality.confusion import save_confusion

        save_confusion(result, plot)


def quality_text(result: "Quality") -> str:
    """The table that ``alps quality`` prints, without a newline at its end."""
    used = len(result.mapping)
    learnt = f"{result.fit_images} other images" if result.fit_images else "the same images"
    if result.folds:
        learnt = f"the other {result.folds - 1} of {result.folds} parts of them"
    lines = [
        f"{result.images} images scored; {used} pseudo-classes mapped by majority to "
        f"{len(set(result.mapping.values()))} truth classes, learnt on {learnt}"
    ]
    lines += _names("label maps without truth, not scored", result.without_truth)
    lines += _names("truth files without label map, not scored", result.without_labels)
    width = max(len("class"), *(len(c.name) for c in result.classes))
    lines += ["", f"{'class':{width}}  value  share of pixels    IoU  pseudo-classes"]
    for c in result.classes:
        share = c.pixels / result.pixels
        lines.append(
            f"{c.name:{width}}  {c.value:5d}  {share:15.3f}  {_number(c.iou)}"
            f"  {c.pseudo_classes:14d}"
        )
    lines += [
        "",
        f"mIoU      {_number(result.miou)}  mean over the truth classes; unlabelled is a miss",
        f"accuracy  {_number(result.accuracy)}  of {result.pixels:,} truth pixels "
        f"({result.ignored_pixels:,} more ignored)",
        f"NMI       {_number(result.nmi)}  over labelled pixels",
        f"purity    {_number(result.purity)}  over labelled pixels",
        f"coverage  {_number(result.coverage)}  of truth pixels labelled",
        f"boundary  {_number(result.boundary_f1)}  F1 within {result.boundary_tolerance:g} pixels "
        f"(precision {_number(result.boundary_precision).strip()}, "
        f"recall {_number(result.boundary_recall).strip()})",
    ]
    if result.unmapped_pixels:
        lines.append(
            f"{result.unmapped_pixels:,} labelled pixels are of pseudo-classes that the fit "
            "images do not show; they count as misses"
        )
    return "\n".join(lines)


def _names(what: str, missing: tuple["Unmatched", ...]) -> list[str]:
    if not missing:
        return []
    lines = [f"{len(missing)} {what}:"]
    lines += [printable(f"  {m.name}: {m.reason}") for m in missing[:NAMES_SHOWN]]
    if len(missing) > NAMES_SHOWN:
        lines.append(f"  and {len(missing) - NAMES_SHOWN} more (--json lists them)")
    return lines


def _number(value: float) -> str:
    return "    –" if math.isnan(value) else f"{value:5.3f}"


def _write_json(path: Path, result: "Quality") -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(result.as_dict(), indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise SettingsError(f"--json {path} cannot be written: {error.strerror}") from error
