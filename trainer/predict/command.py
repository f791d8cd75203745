"""``alps predict``. torch is imported when it is called."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alps.engine.cli.commands import (
    out_argument,
    run_options,
    say_failures,
    say_share,
    workers_options,
)
from alps.engine.cli.options import (
    devices_option,
    pick,
    run_option,
    settings_options,
)
from alps.engine.cli.options.kinds import ShardOf
from alps.engine.cli.options.sections import SectionCommand
from alps.engine.settings import SourceSettings
from alps.trainer.predict.recipe import PredictSettings

if TYPE_CHECKING:
    from alps.engine.stages.label import RunSummary


@click.command(cls=SectionCommand)
@click.argument("model")
@click.argument("src")
@out_argument
@workers_options
@devices_option
@run_options
@run_option(
    "--shard",
    "share",
    type=ShardOf(),
    default="1/1",
    help="This machine's share of the tiles, i/n; label maps are written by the same command "
    "without it, when all shares are there.",
)
@settings_options(SourceSettings, PredictSettings)
def predict(
    model: str,
    src: str,
    out: Path,
    ray_cluster: str | None,
    **values: Any,
) -> None:
    """Predict every image of SRC with MODEL: label maps of an archive without labels.

    MODEL is an OUT of alps finetune or alps pretrain, a folder of transformers, or a name on the
    hub. SRC is as of alps label. Windows overlap, and are blended. OUT receives label maps with the
    names and colours of the model's classes; run the same command again after an interruption, and
    it goes on where it was.
    """
    from alps.engine.stages.opening import RunOptions
    from alps.trainer.predict.job import predict_archive

    options = replace(pick(RunOptions, values), model=model, cluster=ray_cluster)
    done = predict_archive(
        src, out, pick(SourceSettings, values), pick(PredictSettings, values), options
    )
    if isinstance(done, int):
        rest = f"{done} shards are left to other machines" if done else "all shards are predicted"
        click.echo(f"{rest}; then: alps predict {model} {src} {out}")
    else:
        _say(done)


def _say(summary: "RunSummary") -> None:
    """What a person wants to know at the end of a run."""
    tiles = ", ".join(f"{count} {status}" for status, count in summary.tiles.items())
    click.echo(f"{summary.sources} sources, tiles: {tiles}")
    if summary.labelled is not None:
        click.echo(f"predicted: {say_share(summary.labelled)} of valid pixels have a class")
    say_failures(summary.failed_reasons, summary.folder)
    click.echo(f"label maps: {summary.folder / 'labels'}")
    click.echo(f"report: {summary.folder / 'report' / 'index.html'}")
