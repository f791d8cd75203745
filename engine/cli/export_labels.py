"""The command ``alps export-labels``: label maps as a data set of another tool."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from alps.engine.cli.options import run_folder_argument

if TYPE_CHECKING:
    from alps.engine.datasets.export import Exported

from alps.engine.datasets.settings import LOCAL_FILES

FORMATS = ("coco", "yolo", "mmseg", "labelstudio", "cvat", "stac")


@click.command("export-labels")
@run_folder_argument(writes=False, file_okay=False)
@click.argument("dir", type=click.Path(path_type=Path))
@click.option("--format", required=True, type=click.Choice(FORMATS), help="What reads it.")
@click.option(
    "--val",
    default=0.0,
    show_default=True,
    metavar="SHARE",
    type=click.FloatRange(0, 1, max_open=True),
    help="Hold out this share of the scenes for validation.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Which scenes these are."
)
@click.option(
    "--scene",
    metavar="REGEX",
    help="What in an image's name is its scene, held out as a whole: the first group, or all that "
    "matches. Default: each image is one.",
)
@click.option(
    "--copy", is_flag=True, help="yolo, mmseg: copy images. Default: links to where they are."
)
@click.option(
    "--url",
    default=LOCAL_FILES,
    show_default=True,
    metavar="PREFIX",
    help="labelstudio: what stands before the path of an image below SRC. stac: before that of a "
    "label map, where the maps are published; default: where they are.",
)
@click.option("--overwrite", is_flag=True, help="Replace an export that DIR holds.")
def export_labels(
    out: Path,
    dir: Path,
    format: str,
    val: float,
    seed: int,
    scene: str | None,
    copy: bool,
    url: str,
    overwrite: bool,
) -> None:
    """Write the label maps of OUT into DIR as a data set that other tools import.

    coco: annotations/, a mask for each object, exact by pycocotools. yolo: images/, labels/ with
    an outline for each object, data.yaml, as Ultralytics trains on. mmseg: img_dir/, ann_dir/ with
    an index image each, as mmsegmentation and alps pretrain train on. labelstudio: tasks.json with
    a brush mask for each class of an image, config.xml. cvat: annotations.xml of CVAT for images
    1.1, a mask for each object, labels.json. stac: collection.json and an item for each label map,
    with its place, date, classes and checksum; the maps stay where they are.

    DIR appears once all of it is written; the same command goes on after an interruption.
    """
    from alps.engine.datasets.export import export_labels as export
    from alps.engine.datasets.settings import ExportSettings

    settings = ExportSettings(format, val, seed, scene, copy, url)
    _say(export(out, dir, settings, overwrite))


def _say(found: "Exported") -> None:
    for doubt in found.doubts:
        click.echo(f"warning: {doubt}", err=True)
    click.echo(
        f"{found.images} images, {found.annotations} annotations of {found.classes} classes: "
        f"{found.root}"
    )
    if found.patched:
        click.echo(
            f"of {found.patched} images the run kept no objects: their annotations are patches of "
            "a class"
        )
    if found.missing:
        click.echo(f"{found.missing} images are named, and are not files of this machine")
    if found.left_out:
        click.echo(f"{found.left_out} sources are left out: {found.root / 'left_out.jsonl'}")
