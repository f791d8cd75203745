"""The command ``alps status``: how far a run is, and who is at work."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alps.engine.cli.options import run_folder_argument

if TYPE_CHECKING:
    from alps.engine.status.survey import Status

CLEAR = "\x1b[H\x1b[J"  # the cursor home, and nothing below it


@click.command("status")
@run_folder_argument(writes=False, only=("journal/",), file_okay=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, of a documented schema.")
@click.option(
    "--watch",
    is_flag=False,
    flag_value="5",
    type=click.FloatRange(0.1),
    metavar="[SECONDS]",
    help="Look again every so many seconds, 5 by default, until nobody is at work: on a terminal "
    "in place, elsewhere a line each time.",
)
def status(out: Path, as_json: bool, watch: float | None) -> None:
    """Tell how far the run in OUT is: in progress, finished or dead, of any kind.

    Stage, tiles that are done, failed and left, rate and time left, who is at work and since when,
    and what to run to go on. OUT is only read, and not locked; what is damaged alps verify tells.
    """
    from alps.engine.run_folder.folder import RunFolder
    from alps.engine.status.survey import status_of

    folder = RunFolder(out)
    found = status_of(folder)
    if watch is None:
        _say(found, as_json, is_short=False)
        return
    is_terminal = sys.stdout.isatty()
    while True:
        if is_terminal and not as_json:
            click.echo(CLEAR, nl=False)
        _say(found, as_json, is_short=not is_terminal)
        if not found.is_alive:
            return
        time.sleep(watch)
        found = status_of(folder, is_patient=False)
        if not found.is_alive:  # for sure, before this ends
            found = status_of(folder)


def _say(found: "Status", as_json: bool, is_short: bool) -> None:
    from alps.engine.status import words

    if as_json:
        click.echo(json.dumps(words.as_dict(found), indent=None if is_short else 1))
    else:
        click.echo(words.as_line(found) if is_short else words.as_text(found))
    sys.stdout.flush()
