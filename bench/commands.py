"""The commands of the bench. torch and the peers are imported when one is called, not before."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from alps.bench.everything.options import EverythingOptions, json_option, stock_from_option
from alps.bench.pipeline.options import PipelineOptions
from alps.engine.base.errors import SettingsError
from alps.engine.cli.options import pick, settings_options


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
@stock_from_option
@json_option
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
        from alps.bench.everything.compare import compare
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
@json_option
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
        from alps.bench.everything.runtimes import compare_runtimes
    compare_runtimes(
        images,
        pick(EverythingOptions, values),
        precisions.split(","),
        artefacts=artefacts,
        target=target,
        say=click.echo,
    )


@bench.command()
@click.argument("images", nargs=-1)
@settings_options(PipelineOptions)
@json_option
def pipeline(images: tuple[str, ...], target: Path | None, **values: Any) -> None:
    """From images to label maps: the published code's pipeline and alps label, side by side.

    The published one is written anew, figures left out: the original SamAutomaticMaskGenerator, a
    second encoding, a PNG and a vector a mask, k-means in one pass, painting pixel by pixel. Same
    weights, tiles, prompts and thresholds; each side in a process of its own, timed from its
    start to its end. IMAGES as for alps bench everything.
    """
    with _peers():
        from alps.bench.pipeline.compare import compare_pipelines
    compare_pipelines(images, pick(PipelineOptions, values), target=target, say=click.echo)
