"""Reads and writes SAM's weights: official .pth files, and safetensors that carry their dimensions.

No pickled code is ever run. Where a file does not say its dimensions they are read off the shapes
of its tensors (``layout.infer_config``).
"""

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alps.engine.base.atomic import whole
from alps.engine.base.digests import file_sha256
from alps.engine.base.errors import ModelError, SettingsError
from alps.engine.base.records import BadRecordError, as_record, one_line, parse_record
from alps.engine.base.zips import refuse_damaged_zip
from alps.engine.models.layout import infer_config
from alps.engine.sam import (
    OFFICIAL,
    ModelDefaults,
    ModelInfo,
    Sam,
    SamConfig,
)
from alps.engine.sam.empty import empty_sam
from alps.engine.sam.model import PIXEL_MEAN, PIXEL_STD
from alps.engine.settings import check_defaults

CONFIG_KEY = "alps.config"
DEFAULTS_KEY = "alps.defaults"
NAME_KEY = "alps.model"
PICKLED = (".pth", ".pt")
# Training programs often wrap the weights in a dict with other things.
WRAPPERS = ("model", "state_dict")
# Frequencies of the position encoding: in float16 every angle would be off a little.
KEPT_IN_FLOAT32 = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"


def load_sam(
    path: str | Path, name: str | None = None, device: str | torch.device = "cpu"
) -> tuple[Sam, ModelInfo]:
    """Load a checkpoint, in float32 whatever it is stored in.

    Args:
        path: ``.pth`` or ``.pt`` in the official layout, or ``.safetensors``.
        name: what to call the model; by default the name in the file, that of the official size
            it has, or the file's own.
        device: where the weights go. On the CPU float32 weights of a .pth stay mapped to the
            file, so that loading a ViT-H takes its 2.5 GB once.

    Raises:
        ModelError: the file is no checkpoint, is damaged, would run code, or its tensors are not
            those of a SAM. The text is one line and says what to do.
    """
    path = Path(path)
    _check_file(path)
    sha256 = _sha256(path)
    tensors, metadata = _read(path)
    config = _config_in(metadata, path) or infer_config(tensors, path)
    _check_config(config, len(tensors), path)
    defaults = _defaults_in(metadata, path)
    model = empty_sam(config)
    _check_tensors(tensors, model.state_dict(), path)
    model.load_state_dict(_float32(tensors, path), assign=True)
    # Not in the state dict, so still without values.
    model.pixel_mean = torch.tensor(PIXEL_MEAN).view(3, 1, 1)
    model.pixel_std = torch.tensor(PIXEL_STD).view(3, 1, 1)
    official = next((known for known, size in OFFICIAL.items() if size == config), None)
    info = ModelInfo(
        name=name or metadata.get(NAME_KEY) or official or path.stem,
        sha256=sha256,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        config=config,
        defaults=defaults,
    )
    return model.eval().to(device), info


def save_sam(
    model: Sam,
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
        _order_metadata(part)


def _order_metadata(path: Path) -> None:
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


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ModelError(f"{path}: a folder; name the checkpoint file in it")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); check the path, `alps models` lists the "
            "models that have names"
        ) from error
    if path.suffix.lower() not in (*PICKLED, ".safetensors"):
        raise ModelError(
            f"{path}: no checkpoint by its name; it must end in .pth, .pt or .safetensors"
        )
    if size == 0:
        raise ModelError(f"{path}: empty; get the file again")


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file as they are stored, and its metadata."""
    if path.suffix.lower() in PICKLED:
        return _tensors_only(_unpickle(path), path), {}
    try:
        with safe_open(path, framework="pt") as file:
            # safetensors keeps all tensors mapped until they are converted one by one.
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: not a safetensors file, or cut short ({one_line(error)}); get the file again"
        ) from error


def _unpickle(path: Path) -> object:
    """What a .pth file holds, provided that it is made of tensors and plain values."""
    try:
        # Only the zip layout of torch 1.6 and later can be mapped, and has checksums.
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            refuse_damaged_zip(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ModelError(
                f"{path}: refused, since reading it would run code ({refused[1]}) that the file "
                "names; save only the weights, torch.save(model.state_dict(), file), or convert "
                "it to safetensors where you trust it"
            ) from error
        raise _no_checkpoint(path) from error
    except Exception as error:
        # A damaged file makes torch raise almost anything: KeyError, EOFError, RuntimeError, …
        raise _no_checkpoint(path) from error


def _no_checkpoint(path: Path) -> ModelError:
    return ModelError(
        f"{path}: not a PyTorch checkpoint, or damaged (cut short?); get the file again, "
        "`alps models fetch` checks what it fetches"
    )


def _tensors_only(loaded: object, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping):
        weights: Mapping[str, Any] = loaded
        for wrapper in WRAPPERS:
            if isinstance(loaded.get(wrapper), Mapping):
                weights = loaded[wrapper]
                break
        others = [str(key) for key, value in weights.items() if not isinstance(value, Tensor)]
        if not others:
            return dict(weights)
        what = f"holds things that are no tensors ({_some(others)})"
    else:
        what = f"holds a {type(loaded).__name__}"
    raise ModelError(
        f"{path}: {what}, not a SAM's state dict; save the weights alone with "
        "torch.save(model.state_dict(), file)"
    )


def _config_in(metadata: Mapping[str, str], path: Path) -> SamConfig | None:
    """The dimensions that the metadata names, or None where it names none."""
    if CONFIG_KEY not in metadata:
        return None
    values = _json_object(metadata[CONFIG_KEY], CONFIG_KEY, path)
    try:
        return SamConfig.from_dict(values)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _check_config(config: SamConfig, tensors: int, path: Path) -> None:
    """Refuse numbers that no network can have before they fail somewhere deep in it.

    tensors: how many the file holds; a network of more layers would be built for nothing.
    """
    values = config.to_dict()
    blocks, _ = values.pop("global_blocks"), values.pop("relative_positions")
    window = values.pop("window_size")
    in_range = all(0 <= n < 1 << 20 for n in (*values.values(), *blocks, window))
    if (
        not in_range
        or max(config.encoder_depth, config.decoder_depth, config.iou_head_depth) > tensors
        or len(blocks) > config.encoder_depth
        or 0 in values.values()
        or config.image_size % config.patch_size
        or config.encoder_width % config.encoder_heads
        or config.embedding_channels % (2 * config.decoder_heads)
    ):
        raise ModelError(
            f"{path}: has dimensions that do not go together ({config}); the file is damaged or "
            "was not made by SAM's code, get it again"
        )


def _defaults_in(metadata: Mapping[str, str], path: Path) -> ModelDefaults:
    if DEFAULTS_KEY not in metadata:
        return ModelDefaults()
    values = _json_object(metadata[DEFAULTS_KEY], DEFAULTS_KEY, path)
    unknown = sorted(set(values) - {f.name for f in fields(ModelDefaults)})
    if unknown:
        raise ModelError(
            f"{path}: {DEFAULTS_KEY} names settings this version does not know: "
            f"{_some(unknown)}; upgrade alps-engine"
        )
    try:
        defaults = as_record(values, ModelDefaults)
        check_defaults(defaults)
    except (BadRecordError, SettingsError) as error:
        raise ModelError(
            f"{path}: {DEFAULTS_KEY} in the file's metadata cannot be used ({error}); the file is "
            "damaged, get it again"
        ) from error
    return defaults


def _json_object(text: str, key: str, path: Path) -> dict:
    try:
        return parse_record(text, dict[str, Any])
    except BadRecordError as error:
        raise ModelError(
            f"{path}: {key} in the file's metadata is not a JSON object ({error}); the file was "
            "not written by alps-engine or is damaged, get it again"
        ) from error


def _check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a file whose tensors are not those of the network."""
    missing = [key for key in expected if key not in found]
    extra = [key for key in found if key not in expected]
    wrong = [
        f"{key} is {tuple(found[key].shape)} and should be {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    parts = [
        f"{len(names)} {what}: {_some(names)}"
        for what, names in (
            ("tensors are missing", missing),
            ("tensors are not SAM's", extra),
            ("tensors have another shape", wrong),
        )
        if names
    ]
    if parts:
        raise ModelError(
            f"{path}: not a SAM in the official layout; {'; '.join(parts)}. Use an original "
            "Segment Anything checkpoint (SAM 2, MobileSAM and others differ)"
        )


def _float32(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors in float32; those that already are stay where they lie."""
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


def _some(names: list[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
