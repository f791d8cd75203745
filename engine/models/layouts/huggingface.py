"""What ``SamModel.save_pretrained`` of Hugging Face's transformers writes, and opens.

A folder: weights by names of its own, dimensions in config.json. Thresholds, of which transformers
knows none, stand in config.json too, where it leaves them as they are.
"""

import re
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from alps.engine.base.errors import ModelError
from alps.engine.base.records import BadRecordError, as_record
from alps.engine.models.folder import CONFIG, PREPROCESSOR, PROCESSORS
from alps.engine.models.layouts.base import Contents, Form, Layout, Stored, Written
from alps.engine.models.layouts.dimensions import check_dimensions
from alps.engine.models.layouts.own import as_defaults
from alps.engine.sam.config import ModelDefaults, SamConfig
from alps.engine.sam.empty import empty_sam
from alps.engine.sam.model import PIXEL_MEAN, PIXEL_STD

MODEL_TYPE = "sam"
DEFAULTS = "alps_defaults"
FREQUENCIES = "shared_image_embedding.positional_embedding"
# Its second name, which older files have too.
SAME_FREQUENCIES = "prompt_encoder.shared_embedding.positional_embedding"
# Pieces of our names and theirs; the first that a name holds in an entry's place is taken.
PIECES = (
    ("image_encoder.patch_embed.proj.", "vision_encoder.patch_embed.projection."),
    ("image_encoder.neck.0.", "vision_encoder.neck.conv1."),
    ("image_encoder.neck.1.", "vision_encoder.neck.layer_norm1."),
    ("image_encoder.neck.2.", "vision_encoder.neck.conv2."),
    ("image_encoder.neck.3.", "vision_encoder.neck.layer_norm2."),
    ("image_encoder.blocks.", "vision_encoder.layers."),
    ("image_encoder.", "vision_encoder."),
    ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", FREQUENCIES),
    ("prompt_encoder.point_embeddings.", "prompt_encoder.point_embed."),
    ("prompt_encoder.mask_downscaling.0.", "prompt_encoder.mask_embed.conv1."),
    ("prompt_encoder.mask_downscaling.1.", "prompt_encoder.mask_embed.layer_norm1."),
    ("prompt_encoder.mask_downscaling.3.", "prompt_encoder.mask_embed.conv2."),
    ("prompt_encoder.mask_downscaling.4.", "prompt_encoder.mask_embed.layer_norm2."),
    ("prompt_encoder.mask_downscaling.6.", "prompt_encoder.mask_embed.conv3."),
    ("mask_decoder.output_upscaling.0.", "mask_decoder.upscale_conv1."),
    ("mask_decoder.output_upscaling.1.", "mask_decoder.upscale_layer_norm."),
    ("mask_decoder.output_upscaling.3.", "mask_decoder.upscale_conv2."),
)
HYPERNETWORK_DEPTH = 3
IN_HEAD = re.compile(
    r"(.*(?:iou_prediction_head|output_hypernetworks_mlps\.\d+))\.layers\.(\d+)\.(.*)"
)
NORM = re.compile(r"\.norm(?=\d\.|_final_attn\.)")


@dataclass(frozen=True)
class Vision:
    """``vision_config``; what a file leaves out is as in the library."""

    hidden_size: int = 768
    output_channels: int = 256
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 1024
    patch_size: int = 16
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    use_rel_pos: bool = True
    window_size: int = 14
    global_attn_indexes: tuple[int, ...] = (2, 5, 8, 11)
    num_pos_feats: int = 128


@dataclass(frozen=True)
class Prompts:
    """``prompt_encoder_config``."""

    hidden_size: int = 256
    image_size: int = 1024
    patch_size: int = 16
    mask_input_channels: int = 16
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6


@dataclass(frozen=True)
class Decoder:
    """``mask_decoder_config``. ``layer_norm_eps`` is of the two-way blocks alone."""

    hidden_size: int = 256
    hidden_act: str = "relu"
    mlp_dim: int = 2048
    num_hidden_layers: int = 2
    num_attention_heads: int = 8
    attention_downsample_rate: int = 2
    num_multimask_outputs: int = 3
    iou_head_depth: Annotated[int, Meta(ge=2)] = 3
    iou_head_hidden_dim: int = 256
    layer_norm_eps: float = 1e-6


@dataclass(frozen=True)
class Config:
    """config.json."""

    vision_config: Vision = field(default_factory=Vision)
    prompt_encoder_config: Prompts = field(default_factory=Prompts)
    mask_decoder_config: Decoder = field(default_factory=Decoder)
    alps_defaults: dict[str, Any] | None = None


@dataclass(frozen=True)
class Normalisation:
    """What the processor's file says of pixels, of 0…1."""

    image_mean: tuple[float, ...] | None = None
    image_std: tuple[float, ...] | None = None


def _recognises(stored: Stored) -> bool:
    said = stored.config.get("model_type")
    return said == MODEL_TYPE or (said is None and FREQUENCIES in stored.tensors)


def _read(stored: Stored) -> Contents:
    if not stored.config:
        raise ModelError(
            f"{stored.path}: a SAM of Hugging Face's without its dimensions; put the {CONFIG} that "
            "was saved with it into the same folder"
        )
    try:
        said = as_record(stored.config, Config)
    except BadRecordError as error:
        raise ModelError(f"{stored.path}: {CONFIG} is no SAM's ({error})") from error
    _refuse_others(said, stored)
    _refuse_other_pixels(stored)
    config = _dimensions(said)
    check_dimensions(config, len(stored.tensors), stored.path)
    ours = {_theirs(name, config): name for name in empty_sam(config).state_dict()}
    tensors = {ours.get(name, name): tensor for name, tensor in stored.tensors.items()}
    tensors.pop(SAME_FREQUENCIES, None)
    defaults = ModelDefaults()
    if said.alps_defaults is not None:
        defaults = as_defaults(said.alps_defaults, f"{DEFAULTS} of {CONFIG}", stored.path)
    return Contents(config, tensors, defaults)


def _refuse_others(said: Config, stored: Stored) -> None:
    """Refuse what would load, and compute something else."""
    vision, prompts = said.vision_config, said.prompt_encoder_config
    decoder = said.mask_decoder_config
    for what, found, needed in (
        ("vision_config.hidden_act", vision.hidden_act, "gelu"),
        ("vision_config.layer_norm_eps", vision.layer_norm_eps, 1e-6),
        ("prompt_encoder_config.hidden_act", prompts.hidden_act, "gelu"),
        ("prompt_encoder_config.layer_norm_eps", prompts.layer_norm_eps, 1e-6),
        ("prompt_encoder_config.image_size", prompts.image_size, vision.image_size),
        ("mask_decoder_config.hidden_act", decoder.hidden_act, "relu"),
        ("mask_decoder_config.attention_downsample_rate", decoder.attention_downsample_rate, 2),
    ):
        if found != needed:
            raise ModelError(
                f"{stored.path}: {CONFIG} has {what} {found!r}, and only {needed!r} can be run; "
                "take another model"
            )


def _refuse_other_pixels(stored: Stored) -> None:
    """Refuse a model that was trained on images normalised otherwise."""
    for name in PROCESSORS:
        values = stored.documents.get(name, {})
        try:
            said = as_record(values.get("image_processor", values), Normalisation)
        except BadRecordError as error:
            raise ModelError(f"{stored.path}: {name} is no SAM's ({error})") from error
        for what, found, needed in (
            ("mean", said.image_mean, PIXEL_MEAN),
            ("std", said.image_std, PIXEL_STD),
        ):
            if found is not None and not _is_near(found, needed):
                raise ModelError(
                    f"{stored.path}: {name} has image_{what} {list(found)}, which is not SAM's; "
                    "take another model"
                )


def _is_near(found: tuple[float, ...], needed: tuple[float, ...]) -> bool:
    """Whether values of 0…1 are those of 0…255."""
    return len(found) == len(needed) and all(
        abs(255 * a - b) < 0.05 for a, b in zip(found, needed, strict=True)
    )


def _dimensions(said: Config) -> SamConfig:
    vision, decoder = said.vision_config, said.mask_decoder_config
    return SamConfig(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        encoder_width=vision.hidden_size,
        encoder_depth=vision.num_hidden_layers,
        encoder_heads=vision.num_attention_heads,
        window_size=vision.window_size,
        global_blocks=vision.global_attn_indexes,
        relative_positions=vision.use_rel_pos,
        embedding_channels=vision.output_channels,
        decoder_depth=decoder.num_hidden_layers,
        decoder_heads=decoder.num_attention_heads,
        decoder_hidden=decoder.mlp_dim,
        decoder_epsilon=decoder.layer_norm_eps,
        iou_head_hidden=decoder.iou_head_hidden_dim,
        iou_head_depth=decoder.iou_head_depth,
        mask_input_channels=said.prompt_encoder_config.mask_input_channels,
        multimask_outputs=decoder.num_multimask_outputs,
    )


def _theirs(name: str, config: SamConfig) -> str:
    """What a tensor of ours is called there."""
    for ours, theirs in PIECES:
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
            break
    if in_head := IN_HEAD.fullmatch(name):
        head, index, rest = in_head[1], int(in_head[2]), in_head[3]
        last = (config.iou_head_depth if "iou" in head else HYPERNETWORK_DEPTH) - 1
        layer = {0: "proj_in", last: "proj_out"}.get(index, f"layers.{index - 1}")
        return f"{head}.{layer}.{rest}"
    return NORM.sub(r".layer_norm", name)


def _write(contents: Contents) -> Written:
    config = contents.config
    tensors = {_theirs(name, config): tensor for name, tensor in contents.tensors.items()}
    said = Config(
        Vision(
            hidden_size=config.encoder_width,
            output_channels=config.embedding_channels,
            num_hidden_layers=config.encoder_depth,
            num_attention_heads=config.encoder_heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
            use_rel_pos=config.relative_positions,
            window_size=config.window_size,
            global_attn_indexes=config.global_blocks,
            num_pos_feats=config.embedding_channels // 2,
        ),
        Prompts(
            hidden_size=config.embedding_channels,
            image_size=config.image_size,
            patch_size=config.patch_size,
            mask_input_channels=config.mask_input_channels,
        ),
        Decoder(
            hidden_size=config.embedding_channels,
            mlp_dim=config.decoder_hidden,
            num_hidden_layers=config.decoder_depth,
            num_attention_heads=config.decoder_heads,
            num_multimask_outputs=config.multimask_outputs,
            iou_head_depth=config.iou_head_depth,
            iou_head_hidden_dim=config.iou_head_hidden,
            layer_norm_eps=config.decoder_epsilon,
        ),
        contents.defaults.given() or None,
    )
    values = {name: value for name, value in asdict(said).items() if value is not None}
    kind = {"architectures": ["SamModel"], "dtype": "float32", "model_type": MODEL_TYPE}
    return Written(
        tensors,
        metadata={"format": "pt"},  # transformers opens no file without it
        documents={CONFIG: kind | values, PREPROCESSOR: _preprocessor(config)},
    )


def _preprocessor(config: SamConfig) -> dict[str, Any]:
    """What ``SamProcessor.from_pretrained`` asks for."""
    side, masks = config.image_size, config.low_resolution_size
    return {
        "image_processor_type": "SamImageProcessor",
        "processor_class": "SamProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [value / 255 for value in PIXEL_MEAN],
        "image_std": [value / 255 for value in PIXEL_STD],
        "pad_size": {"height": side, "width": side},
        "size": {"longest_edge": side},
        "mask_pad_size": {"height": masks, "width": masks},
        "mask_size": {"longest_edge": masks},
        "resample": 2,
        "rescale_factor": 1 / 255,
    }


def _holds(config: Any) -> bool:
    return isinstance(config, SamConfig) and config.iou_head_depth > 1


LAYOUT = Layout(
    "Hugging Face's SAM", Form.FOLDER, _recognises, _read, _holds, _write, model_types=(MODEL_TYPE,)
)
