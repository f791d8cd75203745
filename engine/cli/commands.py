"""The commands of the engine. torch and the stages are imported when one is called, not before."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alps.engine.base.errors import SettingsError
from alps.engine.cli.export_labels import export_labels
from alps.engine.cli.inspect import inspect
from alps.engine.cli.models import models
from alps.engine.cli.name import name
from alps.engine.cli.options import (
    device_option,
    devices_option,
    metrics_option,
    model_option,
    pick,
    run_folder_argument,
    run_option,
    settings_options,
)
from alps.engine.cli.options.kinds import ClusterOf, ShardOf, WorkersOf
from alps.engine.cli.options.sections import SectionCommand, SectionOption
from alps.engine.cli.quality import quality
from alps.engine.cli.status import status
from alps.engine.cli.vectors import vectors
from alps.engine.cli.verify import verify
from alps.engine.settings import (
    ClusterSettings,
    PaintSettings,
    RunSettings,
    SegmentSettings,
    SourceSettings,
)
from alps.engine.stages.tiles.early import expected_workers

if TYPE_CHECKING:
    from alps.engine.stages.label import RunSummary

__all__ = [
    "cluster",
    "demo",
    "export_labels",
    "fit_clusters",
    "inspect",
    "label",
    "models",
    "name",
    "paint",
    "quality",
    "report",
    "segment",
    "status",
    "vectors",
    "verify",
]

out_argument = run_folder_argument(writes=True, file_okay=False)
clusters_option = partial(click.option, cls=SectionOption, section=ClusterSettings.SECTION)
artefacts_option = run_option(
    "--artefacts",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of exports for --runtime. Default: where alps export puts them.",
)

max_failed_option = run_option(
    "--max-failed",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Exit with an error where a larger share of tiles cannot be read.",
)


update_option = run_option(
    "--update",
    is_flag=True,
    help="Add images that came to SRC since the run was planned, and make anew what was made of "
    "those that were changed.",
)
retry_option = run_option(
    "--retry-failed",
    is_flag=True,
    help="Do again all tiles that failed, and open again images that could not be opened.",
)


any_device_option = run_option(
    "--any-device",
    is_flag=True,
    help="Go on with a run that a GPU of another model, or a CPU, began; it rounds otherwise.",
)


workers_option = run_option(
    "--workers",
    type=WorkersOf(),
    default="auto",
    show_default=True,
    help="Processes that share the work: one a GPU, or cores of the CPU between them.",
)


cluster_option = run_option(
    "--cluster",
    "ray_cluster",
    type=ClusterOf(),
    help="Share the work out on the nodes of a Ray cluster: ray for the one that RAY_ADDRESS names "
    "or that this machine belongs to, ray://HOST:PORT for another.",
)
worker_cores_option = run_option(
    "--worker-cores",
    type=click.IntRange(1),
    help="With --cluster: cores of each worker that has no GPU, or beside it. Default: up to 8.",
)


def workers_options(command: Callable) -> Callable:
    """Who does the work."""
    return workers_option(cluster_option(worker_cores_option(command)))


def run_options(command: Callable) -> Callable:
    """What becomes of images that fail, change or come back, and who is told how a run goes."""
    return max_failed_option(update_option(retry_option(metrics_option(command))))


def model_options(command: Callable) -> Callable:
    """What segments, and where; workers begin to be made before the command imports anything."""
    command = _with_early_workers(command)
    for option in (artefacts_option, workers_options, any_device_option, devices_option):
        command = option(command)
    return model_option(command)


def _with_early_workers(command: Callable) -> Callable:
    @wraps(command)
    def begun(*arguments: Any, **values: Any) -> None:
        with expected_workers(values["workers"], values["device"], values["ray_cluster"]):
            command(*arguments, **values)

    return begun


MOST_REASONS = 5  # that the end of a run names


@click.command(cls=SectionCommand)
@click.argument("src")
@out_argument
@model_options
@run_options
@settings_options(SourceSettings, SegmentSettings, ClusterSettings, PaintSettings)
@clusters_option(
    "--clusters-from",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Label in one pass with the clusters of this file: of alps fit-clusters, or of a run.",
)
@clusters_option(
    "--keep-segments/--no-keep-segments",
    default=False,
    show_default=True,
    help="With --clusters-from: keep OUT/segments, to cluster them again one day.",
)
@click.pass_context
def label(
    context: click.Context,
    src: str,
    out: Path,
    ray_cluster: str | None,
    clusters_from: Path | None,
    keep_segments: bool,
    **values: Any,
) -> None:
    """Label every image of SRC: segment, gate, pool, cluster, align, report.

    SRC is an image, a folder (searched recursively), a glob, a text file with a path a line, or
    STAC: an item, a collection of items, a catalogue; or the address of images in a store:
    s3://bucket/prefix, gs://, az://, https:// of one file.
    OUT, a folder or an address, receives label maps and everything that led to them; run the same
    command again after an interruption, and it goes on where it was.

    With --clusters-from, label maps are painted as their tiles are done, and nothing else is kept:
    for archives of any size.
    """
    one_pass = None
    if clusters_from is not None:
        _refuse_given(context, ClusterSettings, "--clusters-from brings its own")
        from alps.engine.stages.one_pass import OnePass

        one_pass = OnePass(clusters_from, keep_segments)
    elif keep_segments:
        raise SettingsError("--keep-segments goes with --clusters-from; without it all are kept")
    from alps.engine.stages.label import RunOptions, label_archive

    options = replace(pick(RunOptions, values), cluster=ray_cluster)
    _say(label_archive(src, out, pick(RunSettings, values), options, one_pass))


def _refuse_given(context: click.Context, settings: type, why: str) -> None:
    """Raise SettingsError where options of ``settings`` were given that would do nothing."""
    for item in fields(settings):
        if context.get_parameter_source(item.name) is click.core.ParameterSource.COMMANDLINE:
            raise SettingsError(f"--{item.name.replace('_', '-')} has no effect here: {why}")


@click.command("fit-clusters", cls=SectionCommand)
@click.argument("src")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@run_option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the run folder of the sample here. Default: beside FILE, deleted at the end.",
)
@model_options
@max_failed_option
@settings_options(SourceSettings, SegmentSettings, ClusterSettings)
@clusters_option(
    "--sample",
    default=1000,
    show_default=True,
    type=click.IntRange(1),
    help="Number of tiles to draw over the archive.",
)
def fit_clusters(
    src: str,
    file: Path,
    sample: int,
    work: Path | None,
    ray_cluster: str | None,
    **values: Any,
) -> None:
    """Fit clusters to a sample of SRC's tiles and write them to FILE.

    Then alps label SRC OUT --clusters-from FILE labels all of SRC, and other archives like it, in
    one pass.
    """
    from alps.engine.stages.fit_clusters import fit_clusters as fit
    from alps.engine.stages.label import RunOptions

    options = replace(pick(RunOptions, values), cluster=ray_cluster)
    count = fit(src, file, sample, pick(RunSettings, values), options, work)
    click.echo(f"{values['clusters']} clusters of {count} regions: {file}")
    click.echo(f"next: alps label SRC OUT --clusters-from {file}")


@click.command(cls=SectionCommand)
@click.argument("src")
@out_argument
@model_options
@run_options
@run_option(
    "--shard",
    "share",
    type=ShardOf(),
    default="1/1",
    help="This machine's share of the tiles, i/n.",
)
@settings_options(SourceSettings, SegmentSettings)
def segment(
    src: str,
    out: Path,
    ray_cluster: str | None,
    **values: Any,
) -> None:
    """Only segment SRC: masks and their embeddings, into OUT/segments."""
    from alps.engine.stages import single
    from alps.engine.stages.opening import RunOptions

    options = replace(pick(RunOptions, values), cluster=ray_cluster)
    done = single.segment(src, out, pick(RunSettings, values), options)
    click.echo(f"tiles: {', '.join(f'{count} {status}' for status, count in done.tiles.items())}")
    say_failures(done.failed_reasons, out)
    rest = f"; {done.missing} shards are left to other machines" if done.missing else ""
    click.echo(f"segmented into {out}{rest}; next: alps cluster {out}")


@click.command(cls=SectionCommand)
@out_argument
@devices_option
@workers_options
@settings_options(ClusterSettings)
def cluster(
    out: Path,
    device: str,
    workers: int | None,
    ray_cluster: str | None,
    worker_cores: int | None,
    **values: Any,
) -> None:
    """Cluster the regions of OUT again, with another K say; runs no SAM."""
    from alps.engine.stages import single

    settings = pick(ClusterSettings, values)
    single.cluster(out, settings, device, workers, ray_cluster, worker_cores)
    click.echo(f"clustered {out}; next: alps paint {out}")


@click.command(cls=SectionCommand)
@out_argument
@max_failed_option
@workers_options
@settings_options(PaintSettings)
def paint(
    out: Path,
    max_failed: float,
    workers: int | None,
    ray_cluster: str | None,
    worker_cores: int | None,
    **values: Any,
) -> None:
    """Paint the label maps of OUT with its clusters, and write the report."""
    from alps.engine.stages import single

    settings = pick(PaintSettings, values)
    _say(single.paint(out, settings, max_failed, workers, ray_cluster, worker_cores))


@click.command()
@run_folder_argument(writes=False, file_okay=False)
def report(out: Path) -> None:
    """Write OUT/report/index.html: the run as one self-contained page."""
    from alps.engine.report import build_report
    from alps.engine.run_folder.folder import RunFolder

    RunFolder(out).refuse_unpainted()
    click.echo(build_report(out))


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False), default="alps-demo")
@model_option
@device_option
@click.option(
    "--scenes",
    default=8,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Number of images in the archive.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the scenes."
)
def demo(out: Path, model: str, device: str, scenes: int, seed: int) -> None:
    """Label a small archive that needs no download, and say how right the labels are.

    The scenes are generated with exact classes, so the labels can be scored: OUT/images and
    OUT/truth hold them, OUT/run the label maps and the report.
    """
    from alps.engine.demo.run import run_demo

    found = run_demo(out, scenes=scenes, seed=seed, model=model, device=device)
    _say(found.summary)
    score = found.quality
    click.echo(
        f"against the scenes' exact classes: majority-mapped mIoU {score.miou:.2f}, "
        f"NMI {score.nmi:.2f}, purity {score.purity:.2f}"
    )


def _say(summary: "RunSummary") -> None:
    """What a person wants to know at the end of a run."""
    tiles = ", ".join(f"{count} {status}" for status, count in summary.tiles.items())
    click.echo(
        f"{summary.sources} sources, tiles: {tiles}; "
        f"{summary.segments} segments, {summary.regions} regions"
    )
    if summary.labelled is not None:
        click.echo(f"labelled: {say_share(summary.labelled)} of valid pixels have a class")
    click.echo(f"under SAM's masks: {say_share(summary.coverage)} of valid pixels")
    if summary.seconds_per_tile:
        stages = ", ".join(f"{s} {v:.2f}" for s, v in summary.seconds_per_tile.items())
        click.echo(f"seconds a tile: {stages}")
    say_failures(summary.failed_reasons, summary.folder)
    click.echo(f"label maps: {summary.folder / 'labels'}")
    if (items := summary.folder / "stac" / "collection.json").exists():
        click.echo(f"STAC items: {items}")
    click.echo(f"report: {summary.folder / 'report' / 'index.html'}")


def say_failures(failed: dict[str, int], out: Path) -> None:
    """The commonest reasons of tiles that failed."""
    reasons = sorted(failed.items(), key=lambda item: -item[1])
    for reason, count in reasons[:MOST_REASONS]:
        click.echo(f"failed ({count} tiles): {reason}")
    if len(reasons) > MOST_REASONS:
        click.echo(f"{len(reasons) - MOST_REASONS} more reasons: {out / 'tiles.parquet'}")


def say_share(value: float) -> str:
    """As in the report, where nearly all does not read as all."""
    from alps.engine.report.words import share

    return share(value).replace("\u00a0", " ")
