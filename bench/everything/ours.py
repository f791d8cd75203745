"""The side "ours": MaskGenerator as it comes, or with options."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from alps.bench.everything.sides import Job, TileMasks, warm_up_picture
from alps.bench.everything.thresholds import keep_all
from alps.engine.masks.generator import MaskGenerator
from alps.engine.models.checkpoints import load_network
from alps.engine.runtimes.choose import Model, open_runtime
from alps.engine.runtimes.protocol import Runtime
from alps.engine.runtimes.pytorch import TorchRuntime

# TorchRuntime's, and those of exports; all others are MaskGenerator's.
RUNTIME_OPTIONS = ("precision", "decoder", "runtime", "artefacts")


class OurGenerator:
    """MaskGenerator with a clock around it.

    Args:
        runtime: a network that is ready to run.
        settings: MaskGenerator's keyword arguments.
    """

    def __init__(self, runtime: Runtime, **settings: Any) -> None:
        self.runtime, self.settings = runtime, settings
        self.generator = MaskGenerator(runtime, **settings)

    def warm_up(self) -> None:
        """Load or compile the kernels, set up threads and buffers."""
        settings = keep_all(self.settings) | {"points_per_side": 2}
        MaskGenerator(self.runtime, **settings).segment(warm_up_picture())

    def segment(self, image: np.ndarray) -> TileMasks:
        """Masks of an image (H, W, 3) uint8 RGB."""
        started = time.perf_counter()
        segments = self.generator.segment(image)
        return TileMasks(
            size=segments.size,
            counts=segments.counts,
            seconds=segments.seconds,
            total=time.perf_counter() - started,
            prompted=segments.prompted,
        )


def build(job: Job) -> OurGenerator:
    """The side of a comparison that runs our engine with ``job.options``."""
    sam, info = load_network(job.checkpoint, device=job.device)
    options = {name: job.options[name] for name in RUNTIME_OPTIONS if name in job.options}
    others = {name: value for name, value in job.options.items() if name not in options}
    if "runtime" not in options:
        return OurGenerator(TorchRuntime(sam, **options), **job.settings, **others)
    folder = options.get("artefacts")
    model = Model(sam, info, options.get("precision", "fp32"), folder and Path(folder))
    return OurGenerator(open_runtime(model, options["runtime"]), **job.settings, **others)
