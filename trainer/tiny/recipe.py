"""Every number that the making of `tiny` depends on, in one place."""

from dataclasses import dataclass, field
from typing import ClassVar

from alps.engine.base.errors import SettingsError
from alps.engine.sam import ModelDefaults, SamConfig
from alps.engine.settings import setting
from alps.trainer.checks import check_range

_MOST = 10**8

# ViT-S of DINOv2, its first 6 of 12 layers, on 32 x 32 patches of a 512 px tile. No windows and no
# relative positions: at 1024 tokens global attention is cheap, and DINOv2 has neither.
TINY = SamConfig(
    image_size=512,
    patch_size=16,
    encoder_width=384,
    encoder_depth=6,
    encoder_heads=6,
    window_size=0,
    global_blocks=(),
    relative_positions=False,
    embedding_channels=128,
    decoder_heads=4,
    decoder_hidden=512,
    iou_head_hidden=128,
)


@dataclass(frozen=True)
class RegionSettings:
    """How fine the regions of a real image are: its superpixels, and where their tree is cut."""

    superpixel_scale: float = 25.0
    superpixel_min_pixels: int = 40
    # Ward distances at which the levels are cut, fine to coarse.
    cuts: tuple[float, ...] = (4.0, 9.0, 18.0)
    colour_weight: float = 1.0
    texture_weight: float = 0.5
    feature_weight: float = 1.0


@dataclass(frozen=True)
class PoolSettings:
    """What `tiny` is trained on."""

    SECTION: ClassVar[str] = "Pool"

    scenes: int = setting(3500, "Generated scenes to learn from.")
    crops: int = setting(2500, "Crops of SRC's images to learn from.")
    labelled: float = 0.6  # share of the crops of a labelled image whose labels are used
    # A crop's side over the input's: objects come larger and smaller than on a whole tile.
    crop_scale: tuple[float, float] = (0.35, 1.25)
    scene_metres: tuple[float, float] = (0.05, 10.0)
    regions: RegionSettings = field(default_factory=RegionSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, "scenes", 0, _MOST)
        check_range(self, "crops", 1, _MOST)  # the neck's start wants real images
        check_range(self, "seed", 0, _MOST)


@dataclass(frozen=True)
class TrainSettings:
    """How it is trained. Steps are of ``images`` x ``points`` prompts."""

    SECTION: ClassVar[str] = "Training"

    decoder_steps: int = setting(1500, "Steps with the encoder frozen.")
    joint_steps: int = setting(1050, "Steps of the whole network after them.")
    images: int = setting(16, "Images a step.")
    points: int = setting(32, "Points an image.")
    decoder_rate: float = 8e-4
    joint_rate: float = 4e-4
    # Its tokens are small, so a step of AdamW is large beside its weights: with 2 images a step
    # 2e-5 undid within 100 steps what it knew.
    encoder_rate: float = 5e-6
    warmup: int = 100
    falls: tuple[float, float] = (0.2, 0.8)  # last share of each stage in which the rate falls
    weight_decay: float = 0.01
    single_every: int = 8  # every so many steps boxes or several points, and one mask each
    average: float = 0.998  # of the weights, over steps
    # Class-balanced BCE, first and last weight. A decoder from nothing wants 1 at first.
    balance: tuple[float, float] = (1.0, 0.1)
    balance_steps: int = 500
    min_pixels: int = 40  # of a mask, at half the input's resolution
    max_share: float = 0.7
    seed: int = setting(0, "Seed of everything random.")

    def __post_init__(self) -> None:
        check_range(self, "decoder_steps", 0, _MOST)
        check_range(self, "joint_steps", 0, _MOST)
        check_range(self, "images", 1, _MOST)
        check_range(self, "points", 1, _MOST)
        check_range(self, "seed", 0, _MOST)


@dataclass(frozen=True)
class TinyRecipe:
    """The whole recipe."""

    model: SamConfig = TINY
    pool: PoolSettings = field(default_factory=PoolSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    # Chosen on crops of Dubai 1-6, OpenAerialMap and scenes: as few masks as find all that more of
    # them would, and cover nine tenths. Predicted IoU rarely passes 0.6 and logits are flat.
    defaults: ModelDefaults = field(
        default_factory=lambda: ModelDefaults(
            points_per_side=16,
            pred_iou_thresh=0.2,
            stability_score_thresh=0.4,
            stability_score_offset=0.3,
            box_nms_thresh=0.7,
            max_area=0.95,  # 0.3 of SAM's 1024 px tile is more than a whole tile of 512 px
            tile=512,
            overlap=64,
        )
    )

    def __post_init__(self) -> None:
        if self.train.images > self.pool.scenes + self.pool.crops:
            raise SettingsError(
                f"--images {self.train.images}: there are {self.pool.scenes} scenes and "
                f"{self.pool.crops} crops; give fewer images a step, or more of those"
            )
