"""The commands of the bench. torch and the peers are imported when one is called, not before."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from alps.engine.errors import SettingsError
from alps.engine.options import pick, settings_options
from alps.engine.settings import setting


@dataclass(frozen=True)
class EverythingOptions:
    """What everything mode is timed on."""

    model: str = setting("tiny", "tiny, vit_b, vit_l, vit_h or a checkpoint.")
    random_weights: bool = setting(
        False,
        "Only the model's dimensions, with random weights and thresholds from the first tile's "
        "own masks.",
    )
    points_per_side: int | None = setting(None, "Prompts a side of a tile. Default: the model's.")
    limit: int | None = setting(None, "Take only so many tiles.")
    tile: int | None = setting(
        None, "Cut images into windows of so many pixels a side. Default: each image is a tile."
    )
    threads: int | None = setting(None, "CPU threads of each side. Default: one a CPU.")
    repeat: int = setting(1, "Run each tile so many times; the fastest counts.")
    device: str = setting("cpu", "auto, cpu, cuda or cuda:N.")
    seed: int = setting(0, "Seed of random weights and of the generated scene.")

    def __post_init__(self) -> None:
        for name in ("points_per_side", "limit", "tile", "threads", "repeat"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"--{name.replace('_', '-')} {value}: give at least 1")

    @property
    def thread_count(self) -> int:
        """Threads, as given or one a CPU that this process may use."""
        if hasattr(os, "sched_getaffinity"):
            return self.threads or len(os.sched_getaffinity(0))
        return self.threads or os.cpu_count() or 1


@contextmanager
def _peers() -> Iterator[None]:
    """Imports of what the bench measures against; SettingsError says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"the bench needs {error.name}, which is not installed: pip install "
            "'alps-engine[bench]'"
        ) from error


class KeywordArguments(click.ParamType):
    """Options of MaskGenerator, ``precision=bf16,coarse_to_fine=true``."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a dict; values are JSON, or else text."""
        if isinstance(value, dict):
            return value
        pairs = [part.split("=", 1) for part in value.split(",")]
        if any(len(pair) != 2 or not pair[0].strip().isidentifier() for pair in pairs):
            self.fail(f"{value!r} is not of the form name=value,name=value", param, ctx)
        return {name.strip(): _value(text) for name, text in pairs}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@click.group()
def bench() -> None:
    """Our speed beside the peers' on this machine."""


@bench.command()
@click.argument("images", nargs=-1)
@settings_options(EverythingOptions)
@click.option(
    "--with",
    "variants",
    multiple=True,
    type=KeywordArguments(),
    help="One more row of ours with these options, precision=bf16 or coarse_to_fine=true say.",
)
@click.option(
    "--stock-from",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Take stock's row from the --json of an earlier call on the same tiles and settings.",
)
@click.option(
    "--json", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write all here too."
)
def everything(
    images: tuple[str, ...],
    variants: tuple[dict[str, Any], ...],
    stock_from: Path | None,
    target: Path | None,
    **values: Any,
) -> None:
    """Everything mode: the original SamAutomaticMaskGenerator and ours, side by side.

    Each side runs in a process of its own, with the same weights, images and thresholds. IMAGES
    are images, folders, globs or text files with a path a line; a generated scene without them.
    """
    with _peers():
        from alps.bench.everything import compare
    compare(
        images,
        pick(EverythingOptions, values),
        variants=variants,
        stock_from=stock_from,
        target=target,
        say=click.echo,
    )


@bench.command()
@click.argument("images", nargs=-1)
@settings_options(EverythingOptions)
@click.option(
    "--precisions",
    default="fp32,fp16,bf16,int8",
    show_default=True,
    help="Which to run, as far as a runtime has them.",
)
@click.option(
    "--artefacts",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of exports of the model. Default: exported anew for the comparison.",
)
@click.option(
    "--json", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write all here too."
)
def runtimes(
    images: tuple[str, ...],
    precisions: str,
    artefacts: Path | None,
    target: Path | None,
    **values: Any,
) -> None:
    """Everything mode by every runtime and precision that works here, beside PyTorch in fp32.

    Each in a process of its own: seconds of encoder and decoder, memory, and how many of PyTorch's
    masks it finds. IMAGES as for alps bench everything; int8 is calibrated on them.
    """
    with _peers():
        from alps.bench.runtimes import compare_runtimes
    compare_runtimes(
        images,
        pick(EverythingOptions, values),
        precisions.split(","),
        artefacts=artefacts,
        target=target,
        say=click.echo,
    )
