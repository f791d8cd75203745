"""The command ``alps vectors``: the label maps of a run as polygons."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alps.engine.base.errors import SettingsError, printable
from alps.engine.cli.options import pick, run_folder_argument, settings_options
from alps.engine.polygons.settings import PolygonSettings

if TYPE_CHECKING:
    from alps.engine.polygons.export import Polygons

NEEDED = ("pyogrio", "pyproj", "shapely")  # of the extra `vectors`


@click.command()
@run_folder_argument(writes=False, file_okay=False)
@click.argument("file", type=click.Path(path_type=Path))
@settings_options(PolygonSettings)
@click.option("--overwrite", is_flag=True, help="Replace FILE where it is there already.")
def vectors(out: Path, file: Path, overwrite: bool, **values: Any) -> None:
    """Write the label maps of OUT as polygons to FILE.

    FILE's suffix says the format: .gpkg (GeoPackage, with QGIS's colours), .parquet (GeoParquet),
    .fgb (FlatGeobuf) or .geojson. Each polygon is a patch of one class, along the edges of its
    pixels, with class, name, colour, margin, pixels, area in square metres, source and date;
    unlabelled pixels are in none. Images that lie nowhere give pixels, y upwards, as QGIS shows
    them.
    """
    try:
        from alps.engine.polygons.export import write_polygons
    except ImportError as error:
        if error.name not in NEEDED:
            raise
        raise SettingsError(
            f"vectors need {error.name}, which is not installed: pip install 'alps-engine[vectors]'"
        ) from error
    _say(write_polygons(out, file, pick(PolygonSettings, values), overwrite))


def _say(done: "Polygons") -> None:
    click.echo(f"{done.count} polygons of {done.sources} sources, {done.crs}: {done.file}")
    if done.left_out:
        click.echo(f"{done.left_out} are smaller than --min-area and left out")
    for words, count in done.reprojected.items():
        click.echo(f"{count} sources were brought from {words} to {done.crs}")
    if done.missing:
        name, why = next(iter(done.missing.items()))
        click.echo(printable(f"{len(done.missing)} sources have no label map: {name}: {why}"))
