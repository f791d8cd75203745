"""What ``Sam2Model.save_pretrained`` of Hugging Face's transformers writes, and opens.

facebook/sam2.1-hiera-tiny and its like hold the video part too; what an image does not need of
them is left out.
"""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from alps.engine.base.errors import ModelError
from alps.engine.base.records import BadRecordError, as_record
from alps.engine.models.folder import CONFIG, PREPROCESSOR
from alps.engine.models.layouts.base import Contents, Form, Layout, Stored, Written
from alps.engine.models.layouts.dimensions import check_dimensions
from alps.engine.models.layouts.huggingface import (
    DEFAULTS,
    FREQUENCIES,
    SAME_FREQUENCIES,
    Prompts,
)
from alps.engine.models.layouts.own import as_defaults
from alps.engine.sam.model import PIXEL_MEAN, PIXEL_STD
from alps.engine.sam2 import SAM2_DEFAULTS, Sam2Config
from alps.engine.sam2.empty import empty_sam2

MODEL_TYPES = ("sam2", "sam2_video")
KNOWN_BY = "vision_encoder.backbone.patch_embed.projection.weight"
VIDEO = re.compile(
    r"(memory_attention|memory_encoder|object_pointer_proj|mask_downsample"
    r"|temporal_positional_encoding_projection_layer)\..*"
    r"|memory_temporal_positional_encoding|no_memory_positional_encoding|no_object_pointer"
    r"|occlusion_spatial_embedding_parameter"
)
POINTS, OUR_POINTS = "prompt_encoder.point_embed.weight", "prompt_encoder.point_embeddings."
# Beginnings of our names and theirs; the first that fits is taken.
BEGINNINGS = (
    ("image_encoder.trunk.patch_embed.proj.", "vision_encoder.backbone.patch_embed.projection."),
    ("image_encoder.trunk.", "vision_encoder.backbone."),
    ("image_encoder.neck.", "vision_encoder.neck."),
    ("no_mem_embed", "no_memory_embedding"),
    ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", FREQUENCIES),
    ("prompt_encoder.mask_downscaling.0.", "prompt_encoder.mask_embed.conv1."),
    ("prompt_encoder.mask_downscaling.1.", "prompt_encoder.mask_embed.layer_norm1."),
    ("prompt_encoder.mask_downscaling.3.", "prompt_encoder.mask_embed.conv2."),
    ("prompt_encoder.mask_downscaling.4.", "prompt_encoder.mask_embed.layer_norm2."),
    ("prompt_encoder.mask_downscaling.6.", "prompt_encoder.mask_embed.conv3."),
    ("mask_decoder.output_upscaling.0.", "mask_decoder.upscale_conv1."),
    ("mask_decoder.output_upscaling.1.", "mask_decoder.upscale_layer_norm."),
    ("mask_decoder.output_upscaling.3.", "mask_decoder.upscale_conv2."),
)
# Parts within names, likewise.
WITHIN = (
    (re.compile(r"(neck\.convs\.\d+\.)conv\."), r"\1"),
    (re.compile(r"\.norm(?=\d\.|_final_attn\.)"), ".layer_norm"),
    (re.compile(r"\.mlp\.lin1\."), ".mlp.proj_in."),
    (re.compile(r"\.mlp\.lin2\."), ".mlp.proj_out."),
    (re.compile(r"(attn|image|token)\.out_proj\."), r"\1.o_proj."),
)
IN_HEAD = re.compile(
    r"(.*(?:iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+))"
    r"\.layers\.(\d+)\.(.*)"
)
HEAD_DEPTH = 3  # of all but the one that predicts IoU


@dataclass(frozen=True)
class Backbone:
    """``vision_config.backbone_config``; what a file leaves out is as in the library."""

    hidden_size: int = 96
    num_attention_heads: int = 1
    image_size: tuple[int, int] | int = (1024, 1024)
    patch_kernel_size: tuple[int, int] = (7, 7)
    patch_stride: tuple[int, int] = (4, 4)
    patch_padding: tuple[int, int] = (3, 3)
    query_stride: tuple[int, int] = (2, 2)
    window_positional_embedding_background_size: tuple[int, int] = (7, 7)
    num_query_pool_stages: int = 3
    blocks_per_stage: tuple[int, ...] = (1, 2, 7, 2)
    embed_dim_per_stage: tuple[int, ...] = (96, 192, 384, 768)
    num_attention_heads_per_stage: tuple[int, ...] = (1, 2, 4, 8)
    window_size_per_stage: tuple[int, ...] = (8, 4, 14, 7)
    global_attention_blocks: tuple[int, ...] = (5, 7, 9)
    mlp_ratio: float = 4.0
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6


@dataclass(frozen=True)
class Vision:
    """``vision_config``."""

    backbone_config: Backbone = field(default_factory=Backbone)
    backbone_channel_list: tuple[int, ...] = (768, 384, 192, 96)
    backbone_feature_sizes: tuple[tuple[int, int], ...] = ((256, 256), (128, 128), (64, 64))
    fpn_hidden_size: int = 256
    fpn_kernel_size: int = 1
    fpn_top_down_levels: tuple[int, ...] = (2, 3)
    num_feature_levels: int = 3


@dataclass(frozen=True)
class Decoder:
    """``mask_decoder_config``."""

    hidden_size: int = 256
    hidden_act: str = "gelu"
    mlp_dim: int = 2048
    num_hidden_layers: int = 2
    num_attention_heads: int = 8
    attention_downsample_rate: int = 2
    num_multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256


@dataclass(frozen=True)
class Config:
    """config.json."""

    vision_config: Vision = field(default_factory=Vision)
    prompt_encoder_config: Prompts = field(default_factory=Prompts)
    mask_decoder_config: Decoder = field(default_factory=Decoder)
    alps_defaults: dict[str, Any] | None = None


def _recognises(stored: Stored) -> bool:
    said = stored.config.get("model_type")
    return said in MODEL_TYPES or (said is None and KNOWN_BY in stored.tensors)


def _read(stored: Stored) -> Contents:
    if not stored.config:
        raise ModelError(
            f"{stored.path}: a SAM 2 of Hugging Face's without its dimensions; put the {CONFIG} "
            "that was saved with it into the same folder"
        )
    try:
        said = as_record(stored.config, Config)
    except BadRecordError as error:
        raise ModelError(f"{stored.path}: {CONFIG} is no SAM 2's ({error})") from error
    config = _dimensions(said)
    # Whatever else the file says must be what follows from these, or it would compute another way.
    if _said(config) != _plain(said):
        differing = _first_difference(_said(config), _plain(said))
        raise ModelError(
            f"{stored.path}: {CONFIG} has {differing}, which cannot be run; take another model"
        )
    check_dimensions(config, len(stored.tensors), stored.path)
    defaults = SAM2_DEFAULTS
    if said.alps_defaults is not None:
        defaults = as_defaults(said.alps_defaults, f"{DEFAULTS} of {CONFIG}", stored.path)
    return Contents(config, _tensors(stored, config), defaults)


def _tensors(stored: Stored, config: Sam2Config) -> dict[str, Tensor]:
    both = [stored.tensors[n] for n in (FREQUENCIES, SAME_FREQUENCIES) if n in stored.tensors]
    if len(both) > 1 and not torch.equal(*both):
        raise ModelError(
            f"{stored.path}: {FREQUENCIES} and {SAME_FREQUENCIES} differ, and SAM 2 has them once; "
            "take another checkpoint"
        )
    ours = {_theirs(name, config): name for name in empty_sam2(config).state_dict()}
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.tensors.items():
        if name == POINTS and tensor.dim() == 2:
            tensors |= {f"{OUR_POINTS}{i}.weight": row[None] for i, row in enumerate(tensor)}
        elif name != SAME_FREQUENCIES and not VIDEO.fullmatch(name):
            tensors[ours.get(name, name)] = tensor
    return tensors


def _dimensions(said: Config) -> Sam2Config:
    backbone, decoder = said.vision_config.backbone_config, said.mask_decoder_config
    return Sam2Config(
        image_size=said.prompt_encoder_config.image_size,
        patch_size=said.prompt_encoder_config.patch_size,
        encoder_width=backbone.hidden_size,
        encoder_heads=backbone.num_attention_heads,
        stage_blocks=backbone.blocks_per_stage,
        window_sizes=backbone.window_size_per_stage,
        global_blocks=backbone.global_attention_blocks,
        position_size=backbone.window_positional_embedding_background_size[0],
        embedding_channels=said.vision_config.fpn_hidden_size,
        decoder_depth=decoder.num_hidden_layers,
        decoder_heads=decoder.num_attention_heads,
        decoder_hidden=decoder.mlp_dim,
        iou_head_hidden=decoder.iou_head_hidden_dim,
        iou_head_depth=decoder.iou_head_depth,
        mask_input_channels=said.prompt_encoder_config.mask_input_channels,
        multimask_outputs=decoder.num_multimask_outputs,
    )


def _described(config: Sam2Config) -> Config:
    """What config.json says of a network of these dimensions."""
    side, channels, widths = config.embedding_size, config.embedding_channels, config.stage_widths
    stages = range(len(config.stage_blocks))
    return Config(
        Vision(
            Backbone(
                hidden_size=config.encoder_width,
                num_attention_heads=config.encoder_heads,
                image_size=(config.image_size, config.image_size),
                window_positional_embedding_background_size=(config.position_size,) * 2,
                blocks_per_stage=config.stage_blocks,
                embed_dim_per_stage=widths,
                num_attention_heads_per_stage=tuple(config.encoder_heads << n for n in stages),
                window_size_per_stage=config.window_sizes,
                global_attention_blocks=config.global_blocks,
            ),
            backbone_channel_list=widths[::-1],
            backbone_feature_sizes=tuple((side * times,) * 2 for times in (4, 2, 1)),
            fpn_hidden_size=channels,
        ),
        Prompts(
            hidden_size=channels,
            image_size=config.image_size,
            patch_size=config.patch_size,
            mask_input_channels=config.mask_input_channels,
        ),
        Decoder(
            hidden_size=channels,
            mlp_dim=config.decoder_hidden,
            num_hidden_layers=config.decoder_depth,
            num_attention_heads=config.decoder_heads,
            num_multimask_outputs=config.multimask_outputs,
            iou_head_depth=config.iou_head_depth,
            iou_head_hidden_dim=config.iou_head_hidden,
        ),
    )


def _said(config: Sam2Config) -> dict[str, Any]:
    return _plain(_described(config))


def _plain(said: Config) -> dict[str, Any]:
    values = asdict(said)
    del values["alps_defaults"]
    backbone = values["vision_config"]["backbone_config"]
    if isinstance(backbone["image_size"], int):
        backbone["image_size"] = (backbone["image_size"],) * 2
    return values


def _first_difference(needed: dict[str, Any], found: dict[str, Any], within: str = "") -> str:
    for name, value in needed.items():
        if found[name] != value:
            if isinstance(value, dict):
                return _first_difference(value, found[name], f"{within}{name}.")
            return f"{within}{name} {found[name]!r} where {value!r} belongs to the rest"
    raise AssertionError("the two are equal")


def _theirs(name: str, config: Sam2Config) -> str:
    """What a tensor of ours is called there; points' embeddings aside, which are one there."""
    for ours, theirs in BEGINNINGS:
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
            break
    if in_head := IN_HEAD.fullmatch(name):
        head, index, rest = in_head[1], int(in_head[2]), in_head[3]
        last = (config.iou_head_depth if "iou" in head else HEAD_DEPTH) - 1
        layer = {0: "proj_in", last: "proj_out"}.get(index, f"layers.{index - 1}")
        return f"{head}.{layer}.{rest}"
    for pattern, theirs in WITHIN:
        name = pattern.sub(theirs, name)
    return name


def _write(contents: Contents) -> Written:
    config = contents.config
    tensors, points = {}, []
    for name, tensor in contents.tensors.items():
        if name.startswith(OUR_POINTS):
            points.append(tensor)
        else:
            tensors[_theirs(name, config)] = tensor
    tensors[POINTS] = torch.cat(points)
    tensors[SAME_FREQUENCIES] = tensors[FREQUENCIES]
    values: dict[str, Any] = {"architectures": ["Sam2Model"], "dtype": "float32"}
    values |= {"model_type": MODEL_TYPES[0]} | _said(config)
    for part, kind in (
        ("vision_config", "sam2_vision_model"),
        ("prompt_encoder_config", "sam2_prompt_encoder"),
        ("mask_decoder_config", "sam2_mask_decoder"),
    ):
        values[part]["model_type"] = kind
    values["vision_config"]["backbone_config"]["model_type"] = "sam2_hiera_det_model"
    if contents.defaults != SAM2_DEFAULTS:
        values[DEFAULTS] = contents.defaults.given()
    return Written(
        tensors,
        metadata={"format": "pt"},  # transformers opens no file without it
        documents={CONFIG: values, PREPROCESSOR: _preprocessor(config)},
    )


def _preprocessor(config: Sam2Config) -> dict[str, Any]:
    """What ``Sam2Processor.from_pretrained`` asks for."""
    side, masks = config.image_size, config.low_resolution_size
    return {
        "image_processor_type": "Sam2ImageProcessorFast",
        "processor_class": "Sam2Processor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [value / 255 for value in PIXEL_MEAN],
        "image_std": [value / 255 for value in PIXEL_STD],
        "size": {"height": side, "width": side},
        "mask_size": {"height": masks, "width": masks},
        "resample": 2,
        "rescale_factor": 1 / 255,
    }


def _holds(config: Any) -> bool:
    return isinstance(config, Sam2Config) and config.iou_head_depth > 1


LAYOUT = Layout(
    "Hugging Face's SAM 2",
    Form.FOLDER,
    _recognises,
    _read,
    _holds,
    _write,
    model_types=MODEL_TYPES,
    network=empty_sam2,
)
