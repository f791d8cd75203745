"""Kinds of values that options take, beside those that click knows."""

import re
from typing import Any

import click

from alps.engine.telemetry.metrics import parse_address

NO_NUMBER = "none"
MOST_WORKERS = 1024


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
