"""The dimensions of a SAM network and the thresholds that suit its weights."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from alps.engine.base.errors import ModelError
from alps.engine.base.records import BadRecordError, as_record
from alps.engine.settings import ModelDefaults

# Dimensions that older files do not have, and older versions do not know.
LATER = ("decoder_epsilon",)
KIND = "network"  # where files say it; those of the first SAM do not
SAM = "sam"
_KINDS: "dict[str, type[NetworkConfig]]" = {}


@dataclass(frozen=True)
class NetworkConfig:
    """The numbers that networks of this family share, whatever encodes their images.

    Lengths are in pixels of the network's input, ``image_size`` x ``image_size``.

    kind: what files call networks of a subclass, given where it is declared.
    """

    kind: ClassVar[str] = SAM

    image_size: int = 1024
    patch_size: int = 16
    embedding_channels: int = 256
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_hidden: int = 2048
    decoder_epsilon: float = 1e-5  # of the norms in the two-way blocks
    iou_head_hidden: int = 256
    iou_head_depth: int = 3
    mask_input_channels: int = 16
    multimask_outputs: int = 3

    @property
    def embedding_size(self) -> int:
        """Side of the image embedding, in patches."""
        return self.image_size // self.patch_size

    @property
    def encoded_channels(self) -> int:
        """Channels of what the encoder gives; the image embedding is the first of them."""
        return self.embedding_channels

    @property
    def low_resolution_size(self) -> int:
        """Side of the decoder's mask logits, in pixels."""
        return 4 * self.embedding_size

    def __init_subclass__(cls, kind: str | None = None) -> None:
        if kind is not None:
            cls.kind = kind
            _KINDS[kind] = cls

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; without those of ``LATER`` that are as they always were."""
        kind = {} if self.kind == SAM else {KIND: self.kind}
        return kind | {
            f.name: list(value) if isinstance(value, tuple) else value
            for f in fields(self)
            if (value := getattr(self, f.name)) != f.default or f.name not in LATER
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what ``to_dict`` wrote; unknown names and other types are refused: ModelError."""
        values = {name: value for name, value in values.items() if name != KIND}
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ModelError(
                f"the checkpoint names unknown dimensions: {', '.join(unknown)}; "
                "it was probably written by a newer version of ALPS: upgrade alps-engine"
            )
        try:
            return as_record(values, cls)
        except BadRecordError as error:
            raise ModelError(
                f"the checkpoint's dimensions are damaged ({error}); get the file again"
            ) from error


def config_of(values: dict[str, Any]) -> NetworkConfig:
    """The dimensions of whatever network ``to_dict`` wrote them of.

    Raises:
        ModelError: of none that this version knows, or they are damaged.
    """
    kind = values.get(KIND, SAM)
    if kind not in _KINDS:
        raise ModelError(
            f"the checkpoint is of a network this version does not know: {kind!r}; upgrade "
            "alps-engine"
        )
    return _KINDS[kind].from_dict(values)


@dataclass(frozen=True)
class SamConfig(NetworkConfig, kind=SAM):
    """Every number that fixes the shapes of a SAM network."""

    encoder_width: int = 768
    encoder_depth: int = 12
    encoder_heads: int = 12
    window_size: int = 14  # in patches; 0 where every block attends globally
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    relative_positions: bool = True

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """As of any network; where no blocks are named all attend in windows."""
        return super().from_dict({"global_blocks": ()} | values)


@dataclass(frozen=True)
class MobileSamConfig(NetworkConfig, kind="mobile_sam"):
    """Every number that fixes the shapes of a MobileSAM; of each stage of its TinyViT there is one.

    The first stage has 4 pixels a token and neither heads nor windows, though it has their numbers.
    """

    stage_widths: tuple[int, ...] = (64, 128, 160, 320)
    stage_blocks: tuple[int, ...] = (2, 2, 6, 2)
    stage_heads: tuple[int, ...] = (2, 4, 5, 10)
    window_sizes: tuple[int, ...] = (7, 7, 14, 7)  # in tokens of the stage's grid


VIT_B = SamConfig()
VIT_L = SamConfig(
    encoder_width=1024, encoder_depth=24, encoder_heads=16, global_blocks=(5, 11, 17, 23)
)
VIT_H = SamConfig(
    encoder_width=1280, encoder_depth=32, encoder_heads=16, global_blocks=(7, 15, 23, 31)
)
VIT_T = MobileSamConfig()
OFFICIAL: dict[str, SamConfig] = {"vit_b": VIT_B, "vit_l": VIT_L, "vit_h": VIT_H}


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a loaded checkpoint besides its weights."""

    name: str
    sha256: str
    parameters: int
    config: NetworkConfig
    defaults: ModelDefaults = field(default_factory=ModelDefaults)
