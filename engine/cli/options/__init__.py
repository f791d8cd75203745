"""Command-line options that several commands have, and settings dataclasses turned into options.

Name, default and help stand once.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import partial, wraps
from pathlib import Path
from typing import IO, Any, get_args, get_type_hints

import click

from alps.engine.cli.options import complete
from alps.engine.cli.options.kinds import NO_NUMBER, Address, BandList, Number
from alps.engine.cli.options.sections import REST, RUN, SectionOption
from alps.engine.stores.address import is_address
from alps.engine.stores.out import opened, shown

run_option = partial(click.option, cls=SectionOption, section=RUN)

model_option = run_option(
    "--model",
    default="tiny",
    show_default=True,
    shell_complete=complete.model,
    help="A name that `alps models` lists, a checkpoint, a folder of one, or hf:owner/name.",
)
_device = partial(
    run_option, "--device", default="auto", show_default=True, shell_complete=complete.device
)
device_option = _device(help="auto, cpu, cuda, cuda:N or mps.")
devices_option = _device(
    help="auto, cpu, cuda for all GPUs, cuda:N, or several, cuda:0,2 say; mps."
)


class RunPlace(click.Path):
    """A run folder: a path, or an address in a store, which stays text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a path or an address."""
        return value if is_address(value) else super().convert(value, param, ctx)


def run_folder_argument(
    *, writes: bool, only: tuple[str, ...] = (), **more: Any
) -> Callable[[Callable], Callable]:
    """The argument OUT: the command gets a local folder, also where OUT lies in a store.

    writes: whether it must not be written by others meanwhile. only: rooms of it that are read, as
    of ``opened``. more: of ``click.Path``.
    """

    def decorate(command: Callable) -> Callable:
        @wraps(command)
        def call(*args: Any, out: str | Path, scratch: Path | None, **values: Any) -> Any:
            with ExitStack() as stack:
                if is_address(out):
                    for redirect, stream in (
                        (redirect_stdout, sys.stdout),
                        (redirect_stderr, sys.stderr),
                    ):
                        stack.enter_context(redirect(_Shown(stream)))
                folder = stack.enter_context(opened(out, writes=writes, scratch=scratch, only=only))
                return command(*args, out=folder, **values)

        return click.argument("out", type=RunPlace(path_type=Path, **more))(scratch_option(call))

    return decorate


scratch_option = run_option(
    "--scratch",
    type=click.Path(path_type=Path, file_okay=False),
    help="With OUT in a store: where the local folder that stands for it lies. Default: in the "
    "user's cache.",
)


class _Shown:
    """A stream of text in which places of a local folder are what they stand for in a store."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text. Raises TypeError for bytes, by which click knows a stream of text."""
        if not isinstance(text, str):
            raise TypeError(f"text is written here, not {type(text).__name__}")
        self._stream.write(shown(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _together(
    context: click.Context, parameter: click.Parameter, values: tuple[Any, ...]
) -> tuple[float, ...] | None:
    """Numbers that were given one by one; () for ``none``, None where there are none."""
    if not values:
        return None
    if NO_NUMBER in values and len(values) > 1:
        raise click.BadParameter("none goes alone", context, parameter)
    return () if NO_NUMBER in values else values


def _serve(
    context: click.Context, parameter: click.Parameter, address: tuple[str, int] | None
) -> None:
    """Begin to answer before hours of work, and end with the command."""
    if address is not None and not context.resilient_parsing:
        from alps.engine.telemetry.metrics import serving

        def out() -> Path | None:  # workers' signs of life lie in a folder, and in no store
            given = context.params.get("out")
            return given if isinstance(given, Path) else None

        context.with_resource(serving(address, out))


metrics_option = run_option(
    "--metrics",
    type=Address(),
    callback=_serve,
    expose_value=False,
    help="Tell Prometheus how the run goes, at http://HOST:PORT/metrics while it lasts. HOST is "
    "loopback by default: 0.0.0.0:9100 lets other machines ask.",
)


def settings_options(*classes: type) -> Callable[[Callable], Callable]:
    """Add an option for every field of the dataclasses that carries a help text.

    ``--help`` lists those of a class under its SECTION.
    """

    def decorate(command: Callable) -> Callable:
        for cls in reversed(classes):
            hints = get_type_hints(cls)
            add = partial(click.option, cls=SectionOption, section=getattr(cls, "SECTION", REST))
            for item in reversed(fields(cls)):
                if "help" in item.metadata:
                    names, how = _option(item, hints[item.name])
                    command = add(*names, default=_default(item), **how)(command)
        return command

    return decorate


def _default(item: Field) -> Any:
    return None if item.default is MISSING else item.default


def _option(item: Field, hint: Any) -> tuple[tuple[str, str], dict[str, Any]]:
    """Names of the option of a field, and what else makes it."""
    kinds = [kind for kind in (*get_args(hint), hint) if kind in (int, float, bool, str)]
    flag = "--" + item.name.replace("_", "-")
    how: dict[str, Any] = {"help": item.metadata["help"]}
    if words := item.metadata.get("words"):
        how["shell_complete"] = complete.words(words)
    if kinds and kinds[0] is bool:
        how["show_default"] = True
        return (f"{flag}/--no-{flag[2:]}", item.name), how
    if item.metadata.get("form") == "numbers":
        how |= {"multiple": True, "type": Number(), "callback": _together}
    elif not kinds or "tuple" in str(hint):
        how["type"] = BandList()
    else:
        how |= {"type": kinds[0], "show_default": _default(item) is not None}
    return (flag, item.name), how


def pick(cls: type, values: dict[str, Any]) -> Any:
    """An instance of a settings dataclass, and of those it holds, from a command's arguments."""
    hints = get_type_hints(cls)
    given = {item.name: values[item.name] for item in fields(cls) if item.name in values}
    parts = {
        item.name: pick(hints[item.name], values)
        for item in fields(cls)
        if is_dataclass(hints[item.name])
    }
    return cls(**given | parts)
