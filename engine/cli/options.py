"""Command-line options that several commands have, and settings dataclasses turned into options.

Name, default and help stand once.
"""

import re
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import IO, Any, get_args, get_type_hints

import click

from alps.engine.stores.address import is_address
from alps.engine.stores.out import opened, shown
from alps.engine.telemetry.metrics import parse_address

model_option = click.option(
    "--model", default="tiny", show_default=True, help="tiny, vit_b, vit_l, vit_h or a checkpoint."
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)

devices_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda for all GPUs, cuda:N, or several, cuda:0,2 say.",
)

NO_NUMBER = "none"
MOST_WORKERS = 1024


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


scratch_option = click.option(
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


class BandList(click.ParamType):
    """Band numbers, ``4,3,2``."""

    name = "bands"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a tuple of integers."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of band numbers such as 4,3,2", param, ctx)


class Number(click.ParamType):
    """A number, or ``none``."""

    name = "V"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """``-9999`` to -9999.0, ``none`` to itself."""
        if isinstance(value, float) or value == NO_NUMBER:
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is no number, nor none", param, ctx)


def _together(
    context: click.Context, parameter: click.Parameter, values: tuple[Any, ...]
) -> tuple[float, ...] | None:
    """Numbers that were given one by one; () for ``none``, None where there are none."""
    if not values:
        return None
    if NO_NUMBER in values and len(values) > 1:
        raise click.BadParameter("none goes alone", context, parameter)
    return () if NO_NUMBER in values else values


class ShardOf(click.ParamType):
    """One machine of several, ``i/n`` with i from 1."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """``2/8`` to (1, 8)."""
        if isinstance(value, tuple):
            return value
        try:
            index, count = (int(part) for part in value.split("/"))
        except ValueError:
            self.fail(f"{value!r} is not of the form i/n, 2/8 say", param, ctx)
        if not 1 <= index <= count:
            self.fail(f"{value!r}: i must be between 1 and n", param, ctx)
        return index - 1, count


class Address(click.ParamType):
    """A port, or a host and a port."""

    name = "[HOST:]PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """``9100`` to ("127.0.0.1", 9100)."""
        if isinstance(value, tuple):
            return value
        try:
            return parse_address(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


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


metrics_option = click.option(
    "--metrics",
    type=Address(),
    callback=_serve,
    expose_value=False,
    help="Tell Prometheus how the run goes, at http://HOST:PORT/metrics while it lasts. HOST is "
    "loopback by default: 0.0.0.0:9100 lets other machines ask.",
)


class WorkersOf(click.ParamType):
    """A number of processes, or ``auto``."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """``auto`` to None."""
        if value is None or value == "auto":
            return None
        if not str(value).isdecimal() or not 1 <= int(value) <= MOST_WORKERS:
            self.fail(f"{value!r}: give auto, or a number from 1 to {MOST_WORKERS}", param, ctx)
        return int(value)


class ClusterOf(click.ParamType):
    """A Ray cluster, ``ray`` or ``ray://HOST:PORT``."""

    name = "ray"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Itself."""
        if value != "ray" and not re.fullmatch(r"ray://[^/\s]+:\d+", value):
            self.fail(f"{value!r}: give ray, or ray://HOST:PORT", param, ctx)
        return value


def settings_options(*classes: type) -> Callable[[Callable], Callable]:
    """Add an option for every field of the dataclasses that carries a help text."""

    def decorate(command: Callable) -> Callable:
        for cls in reversed(classes):
            hints = get_type_hints(cls)
            for item in reversed(fields(cls)):
                if "help" in item.metadata:
                    command = _option(item.name, hints[item.name], item)(command)
        return command

    return decorate


def _option(name: str, hint: Any, item: Any) -> Callable[[Callable], Callable]:
    kinds = [kind for kind in (*get_args(hint), hint) if kind in (int, float, bool, str)]
    flag = "--" + name.replace("_", "-")
    text = item.metadata["help"]
    default = None if item.default is MISSING else item.default
    shown = default is not None
    if kinds and kinds[0] is bool:
        both = f"{flag}/--no-{name.replace('_', '-')}"
        return click.option(both, name, default=default, show_default=True, help=text)
    if item.metadata.get("form") == "numbers":
        how: dict[str, Any] = {"multiple": True, "type": Number(), "callback": _together}
        return click.option(flag, name, default=default, help=text, **how)
    if not kinds or "tuple" in str(hint):
        return click.option(flag, name, default=default, type=BandList(), help=text)
    return click.option(flag, name, default=default, type=kinds[0], show_default=shown, help=text)


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
