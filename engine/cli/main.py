"""The ``alps`` program: looks a command up among the installed rooms and loads only that one.

Each room declares its own commands and setup.py registers them under the entry-point group
``alps.commands``, so no room has to import another to share a command line, and ``alps --help``
imports no torch.
"""

import gc
import os
import sys
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

import click

from alps.engine.base.errors import AlpsError, OutOfMemoryError
from alps.engine.base.memory import is_out_of_memory, out_of_memory
from alps.engine.base.stopping import Stopping, listen
from alps.engine.cli.options.sections import listed
from alps.engine.telemetry.record import as_given, recorder

GROUP = "alps.commands"
MOST_CHARACTERS = 300  # of a command's first sentence


# In the order of work, and in each section in the order of use.
SECTIONS = {
    "Label an archive": ("demo", "inspect", "label", "fit-clusters", "status", "verify"),
    "Stage by stage": ("segment", "cluster", "paint", "report"),
    "Use the labels": ("name", "quality", "vectors", "export-labels"),
    "Models": ("models", "export", "distill", "train-tiny"),
    "Segmentation models": (
        "prepare",
        "pretrain",
        "finetune",
        "evaluate",
        "predict",
        "experiment",
    ),
    "Speed": ("bench",),
}


class InstalledCommands(click.Group):
    """A command group whose members are the entry points of ``alps.commands``."""

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, as ``--help`` lists them."""
        return [name for names in listed(self._entry_points(), SECTIONS).values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command, or None where no room offers it."""
        point = self._entry_points().get(cmd_name)
        return point.load() if point else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is called. Raises UsageError, with names that are like it, for none."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            near = get_close_matches(args[0], self._entry_points(), cutoff=0.5)
            if not near:
                raise
            others = " or ".join(repr(name) for name in near)
            ctx.fail(f"No such command {args[0]!r}. (Did you mean {others}?)")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections; of each command its first sentence, whole."""
        width = max(map(len, self._entry_points()), default=0)
        for heading, names in listed(self._entry_points(), SECTIONS).items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [
                (f"{name:{width}}", command.get_short_help_str(limit=MOST_CHARACTERS))
                for name, command in found
                if command is not None and not command.hidden
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)


@click.command(cls=InstalledCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="alps-engine", prog_name="alps")
def commands() -> None:
    """Label very large remote-sensing archives without human annotation."""


def main() -> None:
    """Run the command line; an expected error is one line on stderr and its exit code.

    So is a signal that ends it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
    """
    # OpenMP's threads burn their cores while they wait for each other; two runs on one machine were
    # six times slower for it, and one alone is no faster. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # torchrun ends processes whose peers are gone with SIGTERM, while they wait for these in C.
    recorder.command = as_given(["alps", *sys.argv[1:]])
    signals = listen(at_once=int(os.environ.get("WORLD_SIZE", "1")) > 1)
    code = _run(signals)
    signals.over()
    gc.freeze()  # the interpreter's end would look through all that was imported, for 0.7 seconds
    sys.exit(code)


def _run(signals: Stopping) -> int | str | None:
    """The exit code of the command that was asked for; its error is said."""
    code: int | str | None
    text = ""
    try:
        commands(prog_name="alps")
    except SystemExit as done:  # click's way of ending, in good and in bad
        code = done.code
    except BaseException as error:
        known = _as_known(error)
        if known is not None:
            code, text = known.exit_code, " ".join(str(known).splitlines())
        elif signals.received:
            code = None
        else:  # a fault of ours is not hidden
            raise
    # Whatever came of it: a signal that is raised in the wrong place shows as any error.
    if signals.received:
        code, text = signals.exit_code, signals.text
    if text:
        click.echo(f"alps: {text}", err=True)
    return code


def _as_known(error: BaseException) -> AlpsError | None:
    """What a person is told of an error; None where it is a fault of ours."""
    if isinstance(error, OutOfMemoryError):
        return error
    if is_out_of_memory(error):  # an error that it caused would give the wrong advice
        return out_of_memory(error)
    return error if isinstance(error, AlpsError) else None


if __name__ == "__main__":
    main()
