"""What everything mode is timed on."""

import os
from dataclasses import dataclass
from pathlib import Path

import click

from alps.engine.base.errors import SettingsError
from alps.engine.settings import setting

stock_from_option = click.option(
    "--stock-from",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Take stock's row from the --json of an earlier call on the same tiles and settings.",
)
json_option = click.option(
    "--json", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write all here too."
)


@dataclass(frozen=True)
class EverythingOptions:
    """What everything mode is timed on."""

    model: str = setting("tiny", "A name that `alps models` lists, or a checkpoint.")
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
