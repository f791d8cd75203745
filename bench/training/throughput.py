"""Images a second of a training: the loader alone, the network alone, and both in the loop.

    python -m alps.bench.training.throughput DATA --model segformer_b0 --crop 512 --batch 8

The loader must not be what waits: it has to be faster than the network. DATA is anything that
alps finetune takes.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import click

from alps.engine.base.errors import AlpsError
from alps.trainer.data.loader import Drawn, batches
from alps.trainer.data.samples import (
    Augmentation,
    Cells,
    Sample,
    Samples,
)
from alps.trainer.data.settings import DataSettings
from alps.trainer.numerics import autocast_for, choose_precision
from alps.trainer.processes import joined
from alps.trainer.segmentation.begin import begin
from alps.trainer.segmentation.folder import TrainingFolder
from alps.trainer.segmentation.lesson import Workshop, teach
from alps.trainer.segmentation.loss import class_weights
from alps.trainer.segmentation.models import build_model
from alps.trainer.segmentation.recipe import RunOptions, TrainSettings
from alps.trainer.segmentation.run import Recipe, prepared
from alps.trainer.segmentation.targets import Classes

WARM_UP = 2  # steps


@dataclass(frozen=True)
class Speeds:
    """Images a second; ``waited`` is the share of the loop's time spent waiting for crops."""

    loader: float
    network: float
    loop: float
    waited: float

    def table(self) -> str:
        """A line each."""
        return (
            f"loader alone   {self.loader:9.1f} images/s\n"
            f"network alone  {self.network:9.1f} images/s\n"
            f"loop           {self.loop:9.1f} images/s, {self.waited:.1%} of it waiting for crops"
        )


def measure_speeds(
    data: Path, model: str, settings: TrainSettings, options: RunOptions, steps: int
) -> Speeds:
    """Time ``steps`` steps of each, after a warm-up."""
    with joined(options.device, settings.batch) as group, tempfile.TemporaryDirectory() as where:
        root = Path(where)
        recipe = Recipe(train=settings, data=DataSettings(hold_out=0))
        cache = prepared(recipe, data, root / "cache", ("train",), root / "report.txt")
        cells = Cells(cache, "train")
        how = Augmentation(settings.orientations, settings.scale, settings.colour)
        samples = Samples(cells, settings.crop, how, settings.seed)
        loader = _loader(samples, settings, options, steps)

        network = build_model(model, cache.rules.classes, 0).to(group.device)
        weights = class_weights(cells.class_pixels(), "none")
        precision = choose_precision(group.device, settings.precision)

        def run(count: int, made: Drawn, folder: str) -> TrainingFolder:
            asked = replace(settings, steps=count)
            out = TrainingFolder(root / folder)
            out.root.mkdir(exist_ok=True)
            once = replace(options, log_every=count, checkpoint_every=10**9)
            shop = Workshop(asked, once, out, group, autocast_for(group.device, precision), _none)
            teach(begin(network, asked), made, [Classes(weights)], shop)
            return out

        run(WARM_UP, samples, "warm")
        alone = run(steps, _Same(samples), "alone").log_lines()[-1]
        both = run(steps, samples, "loop").log_lines()[-1]
    return Speeds(loader, alone["images_per_second"], both["images_per_second"], both["waited"])


class _Same:
    """Samples that cost nothing: always the first one."""

    def __init__(self, samples: Samples) -> None:
        self._sample = samples.make(0, samples.place(0))

    def place(self, _: int) -> int:
        return 0

    def make(self, *_: int) -> Sample:
        return self._sample


def _loader(samples: Samples, settings: TrainSettings, options: RunOptions, steps: int) -> float:
    made = batches(
        samples, range(WARM_UP + steps), settings.batch, slice(None), workers=options.workers
    )
    for _ in range(WARM_UP):
        next(made)
    then = time.perf_counter()
    count = sum(len(batch.pixels) for batch in made)
    return count / (time.perf_counter() - then)


def _none(*_: object) -> dict[str, float]:
    return {}


@click.command(context_settings={"show_default": True})
@click.argument("data", type=click.Path(path_type=Path, file_okay=False))
@click.option("--model", default="segformer_b0")
@click.option("--crop", default=512)
@click.option("--batch", default=8)
@click.option("--workers", default=2)
@click.option("--steps", default=20)
@click.option("--device", default="auto")
def main(
    data: Path, model: str, crop: int, batch: int, workers: int, steps: int, device: str
) -> None:
    """Time loader, network and loop on DATA."""
    settings = TrainSettings(crop=crop, batch=batch)
    options = RunOptions(device, workers=workers)
    try:
        click.echo(measure_speeds(data, model, settings, options, steps).table())
    except AlpsError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
