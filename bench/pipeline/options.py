"""What the whole pipeline is timed on."""

from dataclasses import dataclass

from alps.bench.everything.options import EverythingOptions
from alps.engine.base.errors import SettingsError
from alps.engine.settings import setting


@dataclass(frozen=True)
class PipelineOptions:
    """What the whole pipeline is timed on."""

    model: str = setting("tiny", "tiny, vit_b, vit_l, vit_h or a checkpoint.")
    random_weights: bool = setting(
        False,
        "Only the model's dimensions, with random weights and thresholds from the first tile's "
        "own masks.",
    )
    points_per_side: int | None = setting(None, "Prompts a side of a tile. Default: the model's.")
    clusters: int = setting(46, "Number of pseudo-classes, K.")
    limit: int = setting(20, "Take only so many tiles.")
    tile: int = setting(1024, "Cut images into windows of so many pixels a side; each is a tile.")
    threads: int | None = setting(None, "CPU threads of each side. Default: one a CPU.")
    device: str = setting("cpu", "auto, cpu, cuda or cuda:N.")
    seed: int = setting(0, "Seed of k-means, of random weights and of the generated scene.")

    def __post_init__(self) -> None:
        if self.clusters < 2:
            raise SettingsError(f"--clusters {self.clusters}: give at least 2")
        self.as_everything()

    def as_everything(self) -> EverythingOptions:
        """The same for the code that prepares tiles, weights and thresholds."""
        return EverythingOptions(
            model=self.model,
            random_weights=self.random_weights,
            points_per_side=self.points_per_side,
            limit=self.limit,
            tile=self.tile,
            threads=self.threads,
            device=self.device,
            seed=self.seed,
        )
