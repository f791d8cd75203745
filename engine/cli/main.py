"""The ``alps`` program: looks a command up among the installed rooms and loads only that one.

Each room declares its own commands and setup.py registers them under the entry-point group
``alps.commands``, so no room has to import another to share a command line, and ``alps --help``
imports no torch.
"""

import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from alps.engine.base.errors import AlpsError

GROUP = "alps.commands"


class InstalledCommands(click.Group):
    """A command group whose members are the entry points of ``alps.commands``."""

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, sorted."""
        return sorted(self._entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command, or None where no room offers it."""
        point = self._entry_points().get(cmd_name)
        return point.load() if point else None

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; click would say no more than "Aborted!" of an interruption."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("alps: interrupted; run the same command again to go on", err=True)
            ctx.exit(130)  # 128 + SIGINT, as shells count


@click.command(cls=InstalledCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="alps-engine", prog_name="alps")
def commands() -> None:
    """Label very large remote-sensing archives without human annotation."""


def main() -> None:
    """Run the command line; an expected error is one line on stderr and its exit code."""
    # OpenMP's threads burn their cores while they wait for each other; two runs on one machine were
    # six times slower for it, and one alone is no faster. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        commands(prog_name="alps")
    except AlpsError as error:
        click.echo(f"alps: {' '.join(str(error).splitlines())}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
