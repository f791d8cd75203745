"""The command ``alps verify``: a run folder against the checksums in its journal."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from alps.engine.base.errors import RunFolderError
from alps.engine.base.progress import format_bytes
from alps.engine.cli.options import run_folder_argument
from alps.engine.run_folder.run_record import LABEL, PREDICT

if TYPE_CHECKING:
    from alps.engine.stages.verify import Verification


@click.command("verify")
@run_folder_argument(writes=True, file_okay=False)
@click.option(
    "--repair",
    is_flag=True,
    help="Remove what is damaged, and take back the marks of its stage: the command that made OUT "
    "makes it again.",
)
def verify(out: Path, repair: bool) -> None:
    """Hold every file of OUT against the checksum of what was written.

    Names what is damaged or missing and ends with exit code 1 where there is any; without --repair
    nothing is written.
    """
    from alps.engine.run_folder.folder import RunFolder
    from alps.engine.stages import verify as stage

    folder = RunFolder(out)
    if not repair:
        found = stage.verify_archive(folder)
        _say(out, found)
        if not found.is_right:
            raise RunFolderError(
                f"{_count(found)} of {out} damaged or missing; give alps verify {out} --repair, "
                "and then the command that made it"
            )
        return
    found, lost = stage.repair(folder)
    _say(out, found)
    if lost:
        raise RunFolderError(
            f"{out / lost[0]} cannot be put together again from what is left; put back a copy, or "
            "label into another OUT"
        )
    if not found.is_right:
        run = folder.read_run()
        model = f"{run['model']['name']} " if run.get("kind") == PREDICT else ""
        command = f"alps {run.get('kind', LABEL)} {model}{run['source']} {out}"
        click.echo(
            f"repaired: {_count(found)} removed; to make it again give the command that made "
            f"{out}: {command}, with its options"
        )


def _say(out: Path, found: "Verification") -> None:
    for finding in found.findings:
        click.echo(f"{out / finding.name} {finding.why}")
    if found.lines:
        click.echo(f"{found.lines} lines of the journal of {out} are damaged")
    if found.open_shards:
        click.echo(f"{found.open_shards} shards are not segmented yet")
    if found.unknown:
        click.echo(f"{found.unknown} files have no checksum: an older version wrote them")
    if found.is_right:
        click.echo(f"{found.files} files, {format_bytes(found.bytes)}: all as they were written")


def _count(found: "Verification") -> str:
    files = f"{len(found.findings)} of {found.files} files"
    return f"{files} and {found.lines} lines of the journal" if found.lines else files
