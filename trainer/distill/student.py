"""The student: its dimensions, the weights it starts with, and the whole network at the end."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from alps.engine.base.errors import ModelError, SettingsError
from alps.engine.models.checkpoints import load_sam
from alps.engine.models.registry import find_model
from alps.engine.sam import Sam, SamConfig
from alps.engine.sam.image_encoder import ImageEncoder
from alps.trainer.distill.recipe import PRESETS, StudentSettings

HEAD_WIDTH = 64
# Everything of the encoder that must be as the teacher has it, so that its decoder can be kept.
SHARED = ("image_size", "patch_size", "embedding_channels")
SHAPE = (
    "encoder_width", "encoder_depth", "encoder_heads", "window_size", "global_blocks",
    "relative_positions",
)  # fmt: skip


@dataclass
class Student:
    """An encoder that is about to learn."""

    encoder: ImageEncoder
    config: SamConfig  # the teacher's, with the student's encoder
    start: str  # where its weights come from, in words
    is_random: bool  # its layers have learnt nothing yet


def new_student(teacher: Sam, settings: StudentSettings, seed: int) -> Student:
    """The student that the settings ask for, on the CPU.

    Raises:
        SettingsError: its dimensions do not go together, or it is no smaller than the teacher.
        ModelError: ``--init`` names no checkpoint, or one that does not fit the teacher.
    """
    if settings.init is not None:
        encoder, config, start = _from_checkpoint(settings.init, teacher.config)
        is_random = False
    else:
        config = student_config(teacher.config, settings)
        encoder = ImageEncoder(config)
        initialise(encoder, seed)
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


def initialise(encoder: ImageEncoder, seed: int) -> None:
    """Random weights as ViTs start with: normal, 0.02 wide, biases 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(encoder.pos_embed, std=0.02, generator=generator)


def assemble(teacher: Sam, encoder: ImageEncoder, config: SamConfig) -> Sam:
    """The student's encoder before the teacher's prompt encoder and mask decoder."""
    with torch.device("meta"):
        model = Sam(config)
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


def _takes_layers(student: SamConfig, teacher: SamConfig) -> bool:
    """Whether the teacher's layers fit the student."""
    return (
        student.encoder_width == teacher.encoder_width
        and student.encoder_heads == teacher.encoder_heads
        and student.window_size == teacher.window_size
        and student.encoder_depth <= teacher.encoder_depth
    )


def _take_from_teacher(encoder: ImageEncoder, config: SamConfig, teacher: Sam) -> str:
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
    return f"the first {config.encoder_depth} layers of the teacher{rest}"


def _copy(encoder: ImageEncoder, state: Mapping[str, Tensor]) -> list[str]:
    """Copy tensors whose name and shape fit; returns the encoder's that got none."""
    own = encoder.state_dict()  # shares memory with the weights
    fitting = {n: t for n, t in state.items() if n in own and own[n].shape == t.shape}
    for name, tensor in fitting.items():
        own[name].copy_(tensor)
    return [name for name in own if name not in fitting]


def _from_checkpoint(name: str, teacher: SamConfig) -> tuple[ImageEncoder, SamConfig, str]:
    """The encoder of a checkpoint that fits the teacher's decoder, and which one it is."""
    model, info = load_sam(find_model(name))
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
    shape = {what: getattr(info.config, what) for what in SHAPE}
    start = f"the encoder of {info.name} ({info.sha256[:16]})"
    return model.image_encoder, replace(teacher, **shape), start
