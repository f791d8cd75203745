"""``alps models``: what models there are, and fetching them. Imports no torch."""

import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from alps.engine.base.digests import file_sha256
from alps.engine.base.errors import FetchError
from alps.engine.base.progress import format_bytes
from alps.engine.base.records import MOST_BYTES, BadRecordError, Count, as_record, parse_record
from alps.engine.models.registry import (
    MODELS,
    ModelEntry,
    find_model,
    model_file,
)

MOST_TIMES = 4  # as large as the official file another one may be
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class Tensor:
    """What the header of a safetensors file says of a tensor."""

    shape: tuple[Count, ...]


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models that --model knows by name, and where they are."""
    if context.invoked_subcommand is None:
        click.echo(_table())


@models.command("fetch")
@click.argument("name", type=click.Choice(list(MODELS)))
@click.option("--url", help="Fetch from this http(s) address, a mirror say.")
@click.option("--sha256", metavar="HEX", help="Expect this SHA-256 instead of the official one.")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Put the file into this folder instead of the model folder.",
)
def fetch_command(name: str, url: str | None, sha256: str | None, folder: Path | None) -> None:
    """Download model NAME and verify it; what is there already is only verified.

    A download that ends early goes on where it stopped when the command runs again. The file
    appears under its name only when its SHA-256 is right; of SAM 2.1 none is published, and the
    shapes of its tensors decide.
    """
    entry = MODELS[name]
    if entry.url is None:  # shipped
        if url or sha256 or folder:
            raise click.UsageError(f"{name} comes with ALPS; it takes no --url, --sha256 or --to")
        click.echo(f"{name} comes with ALPS, nothing to fetch: {find_model(name)}")
        return
    if sha256 is not None and not SHA256.fullmatch(sha256):
        raise click.BadParameter("64 hexadecimal digits are needed", param_hint="--sha256")
    from alps.engine.models.download import RetryPolicy, fetch  # brings requests along

    target = model_file(entry) if folder is None else folder / entry.filename
    official = sha256 is None or sha256.lower() == entry.sha256
    expected = sha256 or entry.sha256
    # Somebody's own weights of this model: with an optimiser's state beside them at the most.
    policy = RetryPolicy(most_bytes=MOST_TIMES * entry.size_bytes) if entry.size_bytes else None
    done = fetch(
        url or entry.url,
        target,
        expected,
        size_bytes=entry.size_bytes if official else None,
        policy=policy,
        check=partial(_require_shapes, name),
    )
    how = "SHA-256 verified"
    if expected is None:
        digest = file_sha256(done.path)
        how = f"verified by the shapes of its tensors, no SHA-256 is published (this is {digest})"
    click.echo(
        f"{name} {'is there already' if done.already_there else 'fetched'}; {how}: {done.path}"
    )
    if folder is not None:
        click.echo(f"Use it with --model {done.path}")


@models.command("convert")
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
def convert_command(model: str, out: Path) -> None:
    """Write MODEL, a name or a checkpoint, in the layout that OUT's name asks for.

    OUT ending in .pth or .pt: as the model's authors store it. OUT ending in .safetensors: as ALPS
    does. Any other OUT: a folder as Hugging Face's transformers writes it. The weights stay what
    they are, in float32; they are read back and compared before OUT gets its name.
    """
    from alps.engine.models.convert import convert_model

    done = convert_model(model, out)
    click.echo(f"{done.path}: {model} in the layout of {done.layout}, read back and equal")
    if done.lost:
        click.echo(
            f"It has no place for these, so say them again: {', '.join(done.lost)}", err=True
        )


def _require_shapes(name: str, path: Path) -> None:
    """Refuse a file that does not hold the official model of this name."""
    from alps.engine.models.checkpoints import load_network

    found = load_network(path)[1].name
    if found != name:
        raise FetchError(f"{path}: holds {found}, not {name}; check the URL, or move it away")


def _table() -> str:
    head = ("NAME", "PARAMETERS", "SIZE", "LICENCE", "WHERE")
    rows = [head, *(_row(entry) for entry in MODELS.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    about = [f"{entry.name}: {entry.description}" for entry in MODELS.values()]
    return "\n".join([*lines, "", *about])


def _row(entry: ModelEntry) -> tuple[str, ...]:
    path = model_file(entry)
    size = path.stat().st_size if path.is_file() else None
    parameters = entry.parameters
    if entry.is_shipped:
        parameters = None if size is None else _parameters_in(path)
        where = f"shipped: {path}" if parameters else "missing or damaged; install ALPS again"
    elif size is None:
        where = "not fetched"
    elif entry.size_bytes in (None, size):
        where = str(path)
    else:
        where = f"{path} ({size} bytes, not the official {entry.size_bytes}; fetch verifies it)"
    shown_size = entry.size_bytes or size
    return (
        entry.name,
        "?" if parameters is None else f"{parameters / 1e6:.1f} M",
        "?" if shown_size is None else format_bytes(shown_size),
        entry.licence,
        where,
    )


def _parameters_in(path: Path) -> int | None:
    """Count the values in a safetensors file from its header alone; None if it is no such file.

    Layout: 8 bytes little-endian with the header's length, then the header as JSON
    (https://github.com/huggingface/safetensors#format).
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(min(length, path.stat().st_size, MOST_BYTES))
        header = parse_record(text, dict[str, Any])
        header.pop("__metadata__", None)
        tensors = as_record(header, dict[str, Tensor])
        return sum(math.prod(tensor.shape) for tensor in tensors.values())
    except (OSError, BadRecordError):
        return None
