"""Segmentation models of ``transformers``: built by name, opened, given a new head, saved.

What is saved here opens anywhere with ``AutoModelForSemanticSegmentation.from_pretrained``, and
gives the same logits; the names of the classes travel in its config.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import AlpsError, ModelError, SettingsError
from alps.trainer.segmentation.card import CARD, ModelCard
from alps.trainer.segmentation.config_file import refuse_huge
from alps.trainer.segmentation.folder import refuse_changed_model

# Statistics of ImageNet, which every encoder of these families was trained with.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT = "segformer_b0"

# SegFormer (arXiv 2105.15203, table 6): widths, layers, width of the decoder. `mini` is ours: for
# machines without a GPU.
SEGFORMER = {
    "mini": ((16, 32, 64, 128), (2, 2, 2, 2), 64),
    "b0": ((32, 64, 160, 256), (2, 2, 2, 2), 256),
    "b1": ((64, 128, 320, 512), (2, 2, 2, 2), 256),
    "b2": ((64, 128, 320, 512), (3, 4, 6, 3), 768),
    "b3": ((64, 128, 320, 512), (3, 4, 18, 3), 768),
    "b4": ((64, 128, 320, 512), (3, 8, 27, 3), 768),
    "b5": ((64, 128, 320, 512), (3, 6, 40, 3), 768),
}
HEADS = (1, 2, 5, 8)  # of SegFormer's stages
MOST_PARAMETERS = 1 << 32
SEGMENTS = "ForSemanticSegmentation"  # what names of such architectures end with
STAGES = ("stage1", "stage2", "stage3", "stage4")
# Backbones below UPerNet (arXiv 1807.10221): layers and what else tells the sizes apart.
RESNET = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
CONVNEXT = {
    "convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnext_small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnext_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
}
SWIN = {
    "swin_tiny": ((2, 2, 6, 2), (3, 6, 12, 24), 96),
    "swin_small": ((2, 2, 18, 2), (3, 6, 12, 24), 96),
    "swin_base": ((2, 2, 18, 2), (4, 8, 16, 32), 128),
}
NAMES = (
    *(f"segformer_{size}" for size in SEGFORMER),
    *(f"upernet_{size}" for size in (*RESNET, *CONVNEXT, *SWIN)),
)


def build_config(name: str) -> Any:
    """The config of a model by its name. Raises SettingsError for a name that is none."""
    if name not in NAMES:
        raise SettingsError(f"--model {name}: give one of {', '.join(NAMES)}")
    family, size = name.split("_", 1)
    return _segformer(size) if family == "segformer" else _upernet(_backbone(size))


def build_model(name: str, classes: tuple[str, ...], seed: int) -> nn.Module:
    """A model with random weights. Raises SettingsError for a name that is none."""
    config = build_config(name)
    _name_classes(config, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _awake(_transformers().AutoModelForSemanticSegmentation.from_config(config))


def open_model(where: str | Path) -> nn.Module:
    """A segmentation model that was saved. Raises ModelError."""
    kind = _transformers().AutoModelForSemanticSegmentation
    _checked_config(where)
    with _errors_of(where):
        return _awake(kind.from_pretrained(located(where)))


def start_from(
    init: str, name: str | None, classes: tuple[str, ...], seed: int, *, keep: str
) -> nn.Module:
    """A model for ``classes`` that starts with the weights of a checkpoint.

    init: of a segmentation model, of which ``keep`` stays, encoder, decoder or all; or of an
    encoder, which is put into the model called ``name``.
    Raises ModelError where the checkpoint cannot be used, or not with ``name``.
    """
    config = _checked_config(init)
    if not _architecture(config).endswith(SEGMENTS):
        return _with_encoder(init, name, classes, seed)
    if name is not None:
        _refuse_other_shape(init, config, name)
    model = open_model(init)
    if keep == "encoder":
        renew_decoder(model, seed)
    if keep == "all":
        if config.num_labels != len(classes):
            raise ModelError(
                f"{init} has {config.num_labels} classes and the data {len(classes)}: its head "
                "cannot be kept; leave out --keep all"
            )
    else:
        renew_head(model, len(classes), seed)
    _name_classes(model.config, classes)
    return model


def renew_decoder(model: Any, seed: int) -> None:
    """Replace all that is not the encoder by random weights; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = _transformers().AutoModelForSemanticSegmentation.from_config(model.config)
    model.decode_head = new.decode_head


def renew_head(model: Any, classes: int, seed: int) -> None:
    """Replace the last layer by a random one of so many classes; the same for the same seed."""
    head = model.decode_head
    old = head.classifier
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = nn.Conv2d(old.in_channels, classes, old.kernel_size, device=old.weight.device)
        nn.init.normal_(new.weight, std=getattr(model.config, "initializer_range", 0.02))
        assert new.bias is not None
        nn.init.zeros_(new.bias)
    head.classifier = new


def widen_head(model: Any, more: int, seed: int) -> None:
    """Give the last layer so many random channels more, after those that it has."""
    if not more:
        return
    old = model.decode_head.classifier
    renew_head(model, old.out_channels + more, seed)
    _take_channels(model.decode_head.classifier, old, old.out_channels)


def narrowed(model: Any, channels: int) -> Any:
    """A copy of a model without what ``widen_head`` gave it; the model itself where it has none."""
    if model.decode_head.classifier.out_channels == channels:
        return model
    copied = copy.deepcopy(model)
    wide = copied.decode_head.classifier
    renew_head(copied, channels, 0)
    _take_channels(copied.decode_head.classifier, wide, channels)
    return copied


def _take_channels(new: nn.Conv2d, old: nn.Conv2d, count: int) -> None:
    assert new.bias is not None and old.bias is not None
    with torch.no_grad():
        new.weight[:count] = old.weight[:count]
        new.bias[:count] = old.bias[:count]


def save_model(model: Any, folder: Path, card: ModelCard | None = None) -> None:
    """Write config, weights and what images must be like, as transformers wants them.

    ``folder`` is new: the caller gives it its final name when all is written. ``card`` becomes a
    key of config.json, which transformers keeps as it is.
    """
    setattr(model.config, CARD, None if card is None else card.to_dict())
    model.save_pretrained(folder)
    # Written by hand: the classes for it import torchvision, where it is there.
    about = {
        "image_processor_type": "SegformerImageProcessor",
        "do_resize": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": DEVIATION,
    }
    write_text(folder / "preprocessor_config.json", json.dumps(about, indent=2) + "\n")


def class_names(model: Any) -> tuple[str, ...]:
    """Names of the classes, in order."""
    names = model.config.id2label
    return tuple(names[index] for index in range(len(names)))


def logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Logits (B, C, H, W) at the size of ``pixels`` (B, 3, H, W) uint8."""
    return at_size(coarse_logits(model, pixels), pixels.shape)


def coarse_logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Logits (B, C, h, w) of ``pixels`` (B, 3, H, W) uint8, on the grid that the network has."""
    mean = torch.tensor(MEAN, device=pixels.device).view(3, 1, 1) * 255
    deviation = torch.tensor(DEVIATION, device=pixels.device).view(3, 1, 1) * 255
    return model(pixel_values=(pixels - mean) / deviation).logits


def at_size(found: Tensor, shape: Sequence[int]) -> Tensor:
    """Logits (B, C, h, w), as high and wide as the last two numbers of ``shape``."""
    height, width = shape[-2:]
    if found.shape[-2:] == (height, width):
        return found
    return F.interpolate(found, size=(height, width), mode="bilinear", align_corners=False)


def encoder_of(model: Any) -> nn.Module:
    """The part that is not made for one task."""
    return model.base_model if hasattr(model, "segformer") else model.backbone


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 of a model's weights, whatever files they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def located(where: str | Path) -> str:
    """The folder of a checkpoint: ``where`` itself, or the model inside an OUT of ours."""
    path = Path(where)
    return str(path / "model") if (path / "model" / "config.json").exists() else str(where)


def _checked_config(where: str | Path) -> Any:
    """The config of a checkpoint, of a network that a machine can hold. Raises ModelError."""
    transformers, folder = _transformers(), located(where)
    refuse_changed_model(Path(where))
    refuse_huge(Path(folder) / "config.json")
    with _errors_of(where):
        config = transformers.AutoConfig.from_pretrained(folder)
        kind: Any = transformers.AutoModel
        if _architecture(config).endswith(SEGMENTS):
            kind = transformers.AutoModelForSemanticSegmentation
        with torch.device("meta"):
            network = kind.from_config(config)
    count = sum(parameter.numel() for parameter in network.parameters())
    if count > MOST_PARAMETERS:
        raise ModelError(
            f"cannot use the checkpoint {where}: its config.json is of a network of {count} "
            "parameters; get the file again"
        )
    return config


def _architecture(config: Any) -> str:
    return str((getattr(config, "architectures", None) or [""])[0])


def _segformer(size: str) -> Any:
    widths, layers, decoder = SEGFORMER[size]
    heads = HEADS if widths[2] % 5 == 0 else (1, 2, 4, 8)
    return _transformers().SegformerConfig(
        hidden_sizes=list(widths),
        depths=list(layers),
        num_attention_heads=list(heads),
        decoder_hidden_size=decoder,
    )


def _upernet(backbone: Any) -> Any:
    # Its second, auxiliary head never reaches the logits that are learnt here.
    return _transformers().UperNetConfig(backbone_config=backbone, use_auxiliary_head=False)


def _backbone(size: str) -> Any:
    transformers = _transformers()
    if size in RESNET:
        return transformers.ResNetConfig(depths=list(RESNET[size]), out_features=list(STAGES))
    if size in CONVNEXT:
        layers, widths = CONVNEXT[size]
        return transformers.ConvNextConfig(
            depths=list(layers), hidden_sizes=list(widths), out_features=list(STAGES)
        )
    layers, heads, width = SWIN[size]
    return transformers.SwinConfig(
        depths=list(layers), num_heads=list(heads), embed_dim=width, out_features=list(STAGES)
    )


def _with_encoder(init: str, name: str | None, classes: tuple[str, ...], seed: int) -> nn.Module:
    """A new model around a checkpoint's encoder."""
    if name is None:
        raise ModelError(f"{init} holds an encoder alone; say with --model what to build around it")
    model = build_model(name, classes, seed)
    encoder = encoder_of(model)
    with _errors_of(init):
        kind: Any = type(encoder)  # SegformerModel, ResNetBackbone, …
        stages = {} if name.startswith("segformer") else {"out_features": list(STAGES)}
        taught = kind.from_pretrained(located(init), **stages)
        wrong = encoder.load_state_dict(taught.state_dict(), strict=False)
    # The norms after each stage belong to the backbone and are not in a classifier's checkpoint.
    missing = [key for key in wrong.missing_keys if "norm" not in key]
    if missing:
        raise ModelError(f"{init} does not fit {name}: it lacks {missing[0]}; give another --model")
    return model


def _refuse_other_shape(init: str, config: Any, name: str) -> None:
    wanted = build_config(name)
    keys = ("model_type", "hidden_sizes", "depths", "embed_dim")
    there, here = (getattr(c, "backbone_config", None) or c for c in (config, wanted))
    for key in keys:
        if getattr(there, key, None) != getattr(here, key, None):
            raise ModelError(
                f"{init} is no {name}: its {key} is {getattr(there, key, None)}, not "
                f"{getattr(here, key, None)}; leave out --model, the checkpoint says what it is"
            )


def _awake(model: nn.Module) -> nn.Module:
    """Freeze what no logit depends on: processes would wait for its gradients for ever."""
    idle = getattr(getattr(getattr(model, "backbone", None), "swin", None), "layernorm", None)
    if idle is not None:  # of a classifier; a backbone has a norm for each stage
        idle.requires_grad_(False)
    return model


def _name_classes(config: Any, classes: tuple[str, ...]) -> None:
    config.num_labels = len(classes)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: index for index, name in config.id2label.items()}
    config.semantic_loss_ignore_index = 255


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise SettingsError(
            "segmentation models need transformers, which is not installed: "
            "pip install 'alps-engine[train]'"
        ) from error
    transformers.utils.logging.disable_progress_bar()
    return transformers


@contextmanager
def _errors_of(where: str | Path) -> Iterator[None]:
    """Turn what a checkpoint's reader raises into a ModelError."""
    try:
        yield
    except AlpsError:
        raise
    except Exception as error:  # transformers raises almost anything for a file that does not fit
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot use the checkpoint {where}: {reason}") from error
