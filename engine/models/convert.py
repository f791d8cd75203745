"""A checkpoint in another layout: the same weights, read back and compared before they count."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from alps.engine.base.atomic import clear, publish, publish_folder
from alps.engine.base.errors import ModelError
from alps.engine.base.records import one_line
from alps.engine.models.checkpoints import check_tensors, in_float32, order_metadata
from alps.engine.models.files import PICKLED, read_stored
from alps.engine.models.folder import WEIGHTS
from alps.engine.models.layouts import LAYOUTS, Contents, Form, Written, layout_of
from alps.engine.models.registry import find_model

SAFETENSORS = ".safetensors"
# Dimensions that a layout may take for granted: they move logits by some 1e-6.
SMALL = ("decoder_epsilon",)


@dataclass(frozen=True)
class Converted:
    """What became of a checkpoint.

    path: the file or folder.
    layout: whose it is.
    lost: what this layout has no place for, in words.
    """

    path: Path
    layout: str
    lost: tuple[str, ...]


def convert_model(model: str | Path, out: Path) -> Converted:
    """Write a model as another program stores it; its weights stay what they are, in float32.

    Args:
        model: a name or a checkpoint in any layout.
        out: by its name ``.pth`` or ``.pt`` as the model's own authors store it, ``.safetensors``
            as ALPS does, or else a folder as Hugging Face's transformers does. It must not be
            there yet, and appears when all was read back and found equal.

    Raises:
        ModelError: the model cannot be used, that layout has no room for it, or OUT is there or
            cannot be written.
    """
    source = find_model(model)
    stored, _ = read_stored(source)
    layout = layout_of(stored)
    contents = layout.read(stored)
    check_tensors(
        contents.tensors, layout.network(contents.config).state_dict(), source, layout.name
    )
    contents = Contents(contents.config, in_float32(contents.tensors, source), contents.defaults)
    form = _form_of(out)
    target = next((one for one in LAYOUTS if one.form is form and one.holds(contents.config)), None)
    if target is None:
        raise ModelError(
            f"{out}: there is no layout of that kind for a network like that of {source}; name a "
            f"file that ends in {SAFETENSORS}"
        )
    if out.exists():
        raise ModelError(f"{out}: is there already; name another, or move it away")
    part = out.with_name(f".{out.name}.part{out.suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        clear(part)
        _put(target.write(contents), part, form)
        lost = _compared(contents, part, out)
        (publish_folder if form is Form.FOLDER else publish)(part, out)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"cannot write {out} ({one_line(error)}); check permissions and the space left"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        part.unlink(missing_ok=True)
    return Converted(out, target.name, lost)


def _form_of(out: Path) -> Form:
    if out.suffix == SAFETENSORS:
        return Form.SAFETENSORS
    return Form.PICKLED if out.suffix in PICKLED else Form.FOLDER


def _put(written: Written, part: Path, form: Form) -> None:
    # Copies, for tensors that are views or share memory.
    tensors = {name: tensor.clone() for name, tensor in written.tensors.items()}
    if form is Form.PICKLED:
        torch.save(tensors, part)
        return
    if form is Form.FOLDER:
        part.mkdir()
        for name, values in written.documents.items():
            text = json.dumps(values, indent=2, sort_keys=True)
            (part / name).write_text(text + "\n", encoding="utf-8")
        part = part / WEIGHTS[0]
    save_file(tensors, part, metadata=dict(written.metadata))
    order_metadata(part)


def _compared(contents: Contents, part: Path, out: Path) -> tuple[str, ...]:
    """Read back what was written; what is lost of it, where that changes no mask by much."""
    again, _ = read_stored(part)
    back = layout_of(again).read(again)
    same = back.tensors.keys() == contents.tensors.keys() and all(
        _same_bytes(tensor, back.tensors[name]) for name, tensor in contents.tensors.items()
    )
    if not same or replace(back.config, **_small(contents.config)) != contents.config:
        raise ModelError(
            f"{out}: reads back as another model, so it was not written; name a file that ends in "
            ".safetensors"
        )
    given, kept = contents.defaults.given(), back.defaults.given()
    lost = [f"{name} {value}" for name, value in given.items() if kept.get(name) != value]
    small, found = _small(contents.config), _small(back.config)
    lost += [f"{name} {small[name]:g}" for name in small if found[name] != small[name]]
    return tuple(lost)


def _small(config: Any) -> dict[str, float]:
    return {name: getattr(config, name) for name in SMALL if hasattr(config, name)}


def _same_bytes(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))
