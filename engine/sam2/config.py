"""The dimensions of SAM 2.1's networks and the thresholds of its automatic mask generator."""

from dataclasses import dataclass

from alps.engine.sam.config import NetworkConfig
from alps.engine.settings import ModelDefaults

STAGES = 4  # of Hiera: two that skip the decoder, two that make the image embedding
PATCH = 16  # pixels a token of the third


@dataclass(frozen=True)
class Sam2Config(NetworkConfig, kind="sam2"):
    """Every number that fixes the shapes of a SAM 2 network, its video part aside.

    Of each stage of Hiera there is a number; a stage halves the grid and doubles width and heads.
    """

    encoder_width: int = 96  # of the first stage
    encoder_heads: int = 1  # of the first stage
    stage_blocks: tuple[int, ...] = (1, 2, 7, 2)
    window_sizes: tuple[int, ...] = (8, 4, 14, 7)  # in tokens of the stage's grid
    global_blocks: tuple[int, ...] = (5, 7, 9)  # counted over all stages
    position_size: int = 7  # side of the grid of positions that is stretched over the image

    @property
    def encoded_channels(self) -> int:
        """The image embedding's, then what skips the decoder: as many, and twice as many.

        Two finer grids of features, a quarter and an eighth as wide, 4 and 16 places a patch.
        """
        return 4 * self.embedding_channels

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.encoder_width << stage for stage in range(len(self.stage_blocks)))


TINY = Sam2Config()
SMALL = Sam2Config(stage_blocks=(1, 2, 11, 2), global_blocks=(7, 10, 13))
BASE_PLUS = Sam2Config(
    encoder_width=112,
    encoder_heads=2,
    stage_blocks=(2, 3, 16, 3),
    global_blocks=(12, 16, 20),
    position_size=14,
)
LARGE = Sam2Config(
    encoder_width=144,
    encoder_heads=2,
    stage_blocks=(2, 6, 36, 4),
    window_sizes=(8, 4, 16, 8),
    global_blocks=(23, 33, 43),
)
OFFICIAL: dict[str, Sam2Config] = {
    "sam2.1_hiera_tiny": TINY,
    "sam2.1_hiera_small": SMALL,
    "sam2.1_hiera_base_plus": BASE_PLUS,
    "sam2.1_hiera_large": LARGE,
}

# Where SAM 2's generator starts from other values than SAM's (its automatic_mask_generator.py).
PRED_IOU_THRESH = 0.8
SAM2_DEFAULTS = ModelDefaults(pred_iou_thresh=PRED_IOU_THRESH)
