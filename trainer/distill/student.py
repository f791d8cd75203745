"""The student: its dimensions, the weights it starts with, and the whole network at the end."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alps.engine.base.errors import ModelError, SettingsError
from alps.engine.models.checkpoints import load_network
from alps.engine.models.registry import find_model
from alps.engine.sam.config import MobileSamConfig, ModelInfo, NetworkConfig, SamConfig
from alps.engine.sam.empty import empty_sam
from alps.engine.sam.image_encoder import ImageEncoder
from alps.engine.sam.model import Encoder, SamLike
from alps.engine.sam.tiny_vit import TinyViT
from alps.trainer.distill.recipe import MOBILE, PRESETS, StudentSettings

HEAD_WIDTH = 64
MOBILE_SHAPE = MobileSamConfig()
# Everything of the encoder that must be as the teacher has it, so that its decoder can be kept.
SHARED = ("image_size", "patch_size", "embedding_channels")


@dataclass
class Student:
    """An encoder that is about to learn."""

    encoder: Encoder
    config: NetworkConfig  # the teacher's, with the student's encoder
    start: str  # where its weights come from, in words
    is_random: bool  # its layers have learnt nothing yet


def new_student(teacher: SamLike, settings: StudentSettings, seed: int) -> Student:
    """The student that the settings ask for, on the CPU.

    Raises:
        SettingsError: its dimensions do not go together, or it is no smaller than the teacher.
        ModelError: ``--init`` names no checkpoint, or one that does not fit the teacher.
    """
    if settings.init is not None:
        encoder, config, start = _from_checkpoint(settings.init, teacher.config)
        is_random = False
    else:
        encoder, config = _random(teacher.config, settings, seed)
        start = _take_from_teacher(encoder, config, teacher)
        is_random = not _takes_layers(config, teacher.config)
    own, other = parameters(encoder), parameters(teacher.image_encoder)
    if own >= other:
        raise SettingsError(
            f"the student's encoder would have {own / 1e6:.2f} million parameters, the teacher's "
            f"has {other / 1e6:.2f}: there is nothing to gain; choose a smaller --student, "
            "--width or --depth"
        )
    return Student(encoder, config, start, is_random)


def encoder_shape(config: NetworkConfig) -> dict[str, Any]:
    """What of a network's dimensions is its image encoder's alone."""
    shared = {item.name for item in fields(NetworkConfig)}
    return {name: value for name, value in config.to_dict().items() if name not in shared}


def behind(teacher: NetworkConfig, encoder: NetworkConfig) -> Any:
    """The dimensions of the teacher's decoder behind another encoder."""
    given = {item.name: getattr(teacher, item.name) for item in fields(NetworkConfig)}
    return replace(encoder, **given)


def _random(
    teacher: NetworkConfig, settings: StudentSettings, seed: int
) -> tuple[Encoder, NetworkConfig]:
    encoder: Encoder
    if settings.student == MOBILE:
        config = behind(teacher, MOBILE_SHAPE)
        if teacher.patch_size != MOBILE_SHAPE.patch_size:
            raise SettingsError(
                f"--student {MOBILE}: its patches have {MOBILE_SHAPE.patch_size} pixels a side, "
                f"the teacher's have {teacher.patch_size}; choose another --student"
            )
        encoder = TinyViT(config)
    else:
        vit = teacher
        if not isinstance(vit, SamConfig):
            if PRESETS[settings.student] is None:
                raise SettingsError(
                    f"--student {settings.student}: the teacher is no ViT, of which there would be "
                    f"a half; choose another --student, {MOBILE} say"
                )
            window = min(SamConfig.window_size, teacher.embedding_size)
            vit = behind(teacher, SamConfig(window_size=window))
        config = student_config(vit, settings)
        encoder = ImageEncoder(config)
    initialise(encoder, seed)
    return encoder, config


def student_config(teacher: SamConfig, settings: StudentSettings) -> SamConfig:
    """The teacher's dimensions with the student's encoder.

    Raises:
        SettingsError: the numbers do not go together; the text names the option.
    """
    preset = PRESETS[settings.student]
    width, depth = preset or (teacher.encoder_width, max(1, teacher.encoder_depth // 2))
    width, depth = settings.width or width, settings.depth or depth
    heads = settings.heads
    if heads is None:
        same = width == teacher.encoder_width
        heads = teacher.encoder_heads if same else max(1, width // HEAD_WIDTH)
    window = teacher.window_size if settings.window is None else settings.window
    _check_shape(settings, width, depth, heads, window, teacher)
    config = replace(
        teacher,
        encoder_width=width,
        encoder_depth=depth,
        encoder_heads=heads,
        window_size=window,
        global_blocks=(),
    )
    return replace(config, global_blocks=_global_blocks(config, teacher, settings.global_blocks))


def initialise(encoder: Encoder, seed: int) -> None:
    """Random weights as ViTs start with: normal, 0.02 wide, biases 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if isinstance(encoder, ImageEncoder):
            nn.init.trunc_normal_(encoder.pos_embed, std=0.02, generator=generator)


def assemble(teacher: SamLike, encoder: Encoder, config: NetworkConfig) -> SamLike:
    """The student's encoder before the teacher's prompt encoder and mask decoder."""
    model = empty_sam(config)
    state = {
        name: tensor
        for name, tensor in teacher.state_dict().items()
        if not name.startswith("image_encoder.")
    }
    state |= {f"image_encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    model.load_state_dict(state, assign=True)
    model.pixel_mean, model.pixel_std = teacher.pixel_mean, teacher.pixel_std
    return model.eval()


def parameters(module: nn.Module) -> int:
    """How many numbers a module has learnt."""
    return sum(parameter.numel() for parameter in module.parameters())


def _check_shape(
    settings: StudentSettings, width: int, depth: int, heads: int, window: int, teacher: SamConfig
) -> None:
    def refuse(option: str, value: int, why: str) -> None:
        raise SettingsError(f"--{option} {value}: {why}")

    for name in ("width", "depth", "heads"):
        value = getattr(settings, name)
        if value is not None and not 1 <= value <= 1 << 16:
            refuse(name, value, "must be between 1 and 65536")
    if width % heads:
        refuse("heads", heads, f"must divide --width {width}; give both")
    if not 0 <= window <= teacher.embedding_size:
        refuse("window", window, f"must be between 0 and the grid's side, {teacher.embedding_size}")
    count = settings.global_blocks
    if count is not None and not 0 <= count <= depth:
        refuse("global-blocks", count, f"must be between 0 and --depth {depth}")


def _global_blocks(student: SamConfig, teacher: SamConfig, count: int | None) -> tuple[int, ...]:
    """Which layers of the student attend globally; all do where there are no windows."""
    depth = student.encoder_depth
    if student.window_size == 0:
        return ()
    if count is None and _takes_layers(student, teacher):
        # Without one, nothing would ever look beyond its window.
        return tuple(i for i in teacher.global_blocks if i < depth) or (depth - 1,)
    if count is None:
        count = min(len(teacher.global_blocks) or 4, depth)
    # As in SAM: the last layer of each of so many groups.
    return tuple(depth * (group + 1) // count - 1 for group in range(count))


def _takes_layers(student: NetworkConfig, teacher: NetworkConfig) -> bool:
    """Whether the teacher's layers fit the student."""
    return (
        isinstance(student, SamConfig)
        and isinstance(teacher, SamConfig)
        and student.encoder_width == teacher.encoder_width
        and student.encoder_heads == teacher.encoder_heads
        and student.window_size == teacher.window_size
        and student.encoder_depth <= teacher.encoder_depth
    )


def _take_from_teacher(encoder: Encoder, config: NetworkConfig, teacher: SamLike) -> str:
    """Copy what fits into a student with random weights, and say what that was.

    Its first layers, not evenly spread ones: what they hand to each other stays as it was, and the
    neck can be fitted to what the last of them writes (start.py). Measured on `tiny`, 3 of 6
    layers, neck fitted, nothing learnt: cosine of the embeddings, channels standardised, 0.86 with
    layers 0, 1, 2; 0.83 with 0, 3, 5; 0.82 with 1, 3, 5.
    """
    source = teacher.image_encoder
    if not _takes_layers(config, teacher.config):
        # The neck's second half has the teacher's shape whatever the width.
        _copy(encoder, {f"neck.{n}": t for n, t in source.neck.state_dict().items()})
        return "random weights, the teacher's neck where it fits"
    left = _copy(encoder, source.state_dict())
    rest = f", random {', '.join(left)}" if left else ""
    assert isinstance(encoder, ImageEncoder)
    return f"the first {len(encoder.blocks)} layers of the teacher{rest}"


def _copy(encoder: Encoder, state: Mapping[str, Tensor]) -> list[str]:
    """Copy tensors whose name and shape fit; returns the encoder's that got none."""
    own = encoder.state_dict()  # shares memory with the weights
    fitting = {n: t for n, t in state.items() if n in own and own[n].shape == t.shape}
    for name, tensor in fitting.items():
        own[name].copy_(tensor)
    return [name for name in own if name not in fitting]


def load_teacher(
    path: Path, name: str | None, device: str | torch.device
) -> tuple[SamLike, ModelInfo]:
    """A network whose decoder a student can do without learning it.

    Raises:
        ModelError: the file is no checkpoint, or of a network of another kind.
    """
    network, info = load_network(path, name=name, device=device)
    if not isinstance(network, SamLike):
        raise ModelError(
            f"{path}: a {type(network).__name__}, and students are of SAM or MobileSAM; name one "
            "of those"
        )
    return network, info


def _from_checkpoint(name: str, teacher: NetworkConfig) -> tuple[Encoder, NetworkConfig, str]:
    """The encoder of a checkpoint that fits the teacher's decoder, and which one it is."""
    model, info = load_teacher(find_model(name), None, "cpu")
    differing = [
        f"{what} {getattr(info.config, what)}, the teacher's is {getattr(teacher, what)}"
        for what in SHARED
        if getattr(info.config, what) != getattr(teacher, what)
    ]
    if differing:
        raise ModelError(
            f"--init {name}: its encoder does not fit before the teacher's decoder "
            f"({'; '.join(differing)}); take a student of the same teacher, or leave out --init"
        )
    start = f"the encoder of {info.name} ({info.sha256[:16]})"
    return model.image_encoder, behind(teacher, info.config), start
