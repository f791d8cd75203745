"""Loads a SAM's weights from a checkpoint of any layout, and writes safetensors of our own."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from alps.engine.base.atomic import whole
from alps.engine.base.errors import ModelError
from alps.engine.base.records import one_line
from alps.engine.models.files import read_stored
from alps.engine.models.folder import of_a_folder
from alps.engine.models.layouts import layout_of
from alps.engine.models.layouts.own import CONFIG_KEY, DEFAULTS_KEY, NAME_KEY
from alps.engine.models.layouts.text import some
from alps.engine.sam import OFFICIAL, ModelDefaults, ModelInfo, Sam
from alps.engine.sam.config import VIT_T, NetworkConfig
from alps.engine.sam.model import Network

# Frequencies of the position encoding: in float16 every angle would be off a little.
KEPT_IN_FLOAT32 = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"


def load_sam(
    path: str | Path, name: str | None = None, device: str | torch.device = "cpu"
) -> tuple[Sam, ModelInfo]:
    """Load a SAM with a ViT, and refuse other networks; otherwise as ``load_network``."""
    network, info = load_network(path, name, device)
    if not isinstance(network, Sam):
        raise ModelError(
            f"{path}: a {type(network).__name__}; here a SAM with a ViT is needed, `alps models` "
            "lists some"
        )
    return network, info


def load_network(
    path: str | Path, name: str | None = None, device: str | torch.device = "cpu"
) -> tuple[Network, ModelInfo]:
    """Load a checkpoint of any network, in float32 whatever it is stored in.

    Args:
        path: ``.pth``, ``.pt`` or ``.safetensors`` in one of the layouts of
            ``alps.engine.models.layouts``, or a folder as Hugging Face's libraries write it.
        name: what to call the model; by default the name in the file, that of the official size
            it has, or the file's own.
        device: where the weights go. On the CPU float32 weights of a .pth stay mapped to the
            file, so that loading a ViT-H takes its 2.5 GB once.

    Raises:
        ModelError: the file is no checkpoint, is damaged, would run code, or its tensors are not
            those of a SAM. The text is one line and says what to do.
    """
    path = Path(path)
    stored, sha256 = read_stored(path)
    layout = layout_of(stored)
    contents = layout.read(stored)
    config = contents.config
    model = layout.network(config)
    check_tensors(contents.tensors, model.state_dict(), path, layout.name)
    model.load_state_dict(in_float32(contents.tensors, path), assign=True)
    model.set_pixel_statistics()  # not in the state dict, so still without values
    sizes: dict[str, NetworkConfig] = {**OFFICIAL, "vit_t": VIT_T}
    official = next((known for known, size in sizes.items() if size == config), None)
    info = ModelInfo(
        name=(name or stored.metadata.get(NAME_KEY) or contents.name or official or own_name(path)),
        sha256=sha256,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        config=config,
        defaults=contents.defaults,
    )
    return model.eval().to(device), info


def save_sam(
    model: Network,
    path: Path,
    defaults: ModelDefaults,
    *,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a model as safetensors, with its dimensions and the thresholds that suit it.

    Args:
        model: the network.
        path: the file; replaced as a whole or not at all.
        defaults: what everything mode should take for this model.
        dtype: of the weights in the file.
        metadata: more text to keep; ``alps.model`` is the model's name, by default the file's.

    Raises:
        ModelError: a weight is not finite in this dtype, the metadata claims a key of ours, or
            the file cannot be written.
    """
    path = Path(path)
    notes = {NAME_KEY: path.stem} | dict(metadata or {})
    taken = sorted({CONFIG_KEY, DEFAULTS_KEY} & set(notes))
    if taken:
        raise ModelError(f"metadata must not set {', '.join(taken)}; save_sam writes them itself")
    notes[CONFIG_KEY] = json.dumps(model.config.to_dict())
    notes[DEFAULTS_KEY] = json.dumps(asdict(defaults))
    tensors = {}
    for key, tensor in model.state_dict().items():
        kept = torch.float32 if key == KEPT_IN_FLOAT32 else dtype
        # The copy makes tensors that share memory, or are views, stand on their own.
        tensors[key] = tensor.detach().to("cpu", kept, copy=True).contiguous()
        if not tensors[key].isfinite().all():
            raise ModelError(f"{key} holds values that are not finite as {kept}; not written")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        try:
            save_file(tensors, part, metadata=notes)
        except SafetensorError as error:
            raise ModelError(
                f"cannot write {path} ({one_line(error)}); check permissions and the space left"
            ) from error
        order_metadata(part)


def order_metadata(path: Path) -> None:
    """Sort a safetensors file's metadata, which its writer leaves in an order of chance.

    The same weights then give the same bytes, and one SHA-256 names them.
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        # Only the order changes, so the text has the length it had, less the blanks at its end.
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(length))


def own_name(path: Path) -> str:
    """What a checkpoint without a name is called: every folder of Hugging Face's has one file."""
    folder = of_a_folder(path)
    return path.stem if folder is None else folder.absolute().name


def check_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, layout: str
) -> None:
    """Refuse a file whose tensors are not those of the network: ModelError."""
    missing = [key for key in expected if key not in found]
    extra = [key for key in found if key not in expected]
    wrong = [
        f"{key} is {tuple(found[key].shape)} and should be {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    parts = [
        f"{len(names)} {what}: {some(names)}"
        for what, names in (
            ("tensors are missing", missing),
            ("tensors are not SAM's", extra),
            ("tensors have another shape", wrong),
        )
        if names
    ]
    if parts:
        raise ModelError(
            f"{path}: not a SAM in the layout of {layout}; {'; '.join(parts)}. Use a checkpoint of "
            "Segment Anything, `alps models` says of which kinds"
        )


def in_float32(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors in float32; those that already are stay where they lie.

    Raises:
        ModelError: one holds no weights, or some that are not finite.
    """
    converted = {}
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ModelError(
                f"{path}: {key} is stored as {tensor.dtype}, which is no weight; quantised "
                "checkpoints cannot be used, take the float one"
            )
        converted[key] = tensor.float()
        if not converted[key].isfinite().all():
            raise ModelError(
                f"{path}: {key} holds NaN or infinite weights; training went wrong or the file is "
                "damaged, take another checkpoint"
            )
    return converted
