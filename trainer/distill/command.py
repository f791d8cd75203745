"""``alps distill``. torch is imported when it is called, not before."""

from pathlib import Path
from typing import Any

import click

from alps.engine.cli.options import complete, device_option, pick, run_option, settings_options
from alps.engine.cli.options.sections import SectionCommand
from alps.engine.settings import SourceSettings
from alps.trainer.distill.recipe import (
    AgreementSettings,
    DistillSettings,
    StudentSettings,
    TrainSettings,
)
from alps.trainer.options import checkpoint_every_option


@click.command(cls=SectionCommand)
@click.argument("src")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@run_option(
    "--teacher",
    required=True,
    shell_complete=complete.model,
    help="A name that `alps models` lists, a checkpoint, a folder of one, or hf:owner/name.",
)
@device_option
@checkpoint_every_option
@settings_options(StudentSettings, TrainSettings, SourceSettings, AgreementSettings)
def distill(
    src: str, out: Path, teacher: str, device: str, checkpoint_every: int, **values: Any
) -> None:
    """Teach a smaller SAM encoder the teacher's embeddings on the unlabelled images of SRC.

    OUT receives student.safetensors, which runs wherever its teacher does (alps label --model
    OUT/student.safetensors), and distill.json: speed gained, and agreement with the teacher on
    windows kept out. Run the same command again after an interruption, and it goes on where it
    was. On several GPUs: torchrun --nproc-per-node N --no-python alps distill SRC OUT ...
    """
    from alps.trainer.distill.distill import DistillOptions
    from alps.trainer.distill.distill import distill as run

    settings = pick(DistillSettings, values)
    result = run(src, out, teacher, settings, DistillOptions(device, checkpoint_every))
    if result is None:  # the first process says it
        return
    click.echo(
        f"{result.steps} steps on {result.train_windows} windows in {result.train_seconds:.0f} "
        f"seconds, from {result.start}; {result.held_out_windows} windows held out, "
        f"whole {result.held_out_by}s"
    )
    if result.unopened or result.unread:
        click.echo(
            f"{result.unopened} images could not be opened, {result.unread} times a window could "
            "not be read: reasons stand above"
        )
    click.echo(result.table())
    click.echo(f"use it with: alps label SRC OUT --model {result.student}")
