"""Checkpoints as they lie on the disk: one file, or a folder as Hugging Face's libraries write it.

No pickled code is ever run.
"""

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alps.engine.base.digests import file_sha256
from alps.engine.base.errors import ModelError
from alps.engine.base.records import one_line
from alps.engine.base.zips import refuse_damaged_zip
from alps.engine.models.folder import DOCUMENTS, WEIGHTS, listed_in, of_a_folder, read_document
from alps.engine.models.layouts import Stored
from alps.engine.models.layouts.text import some

PICKLED = (".pth", ".pt", ".bin")
# Training programs often wrap the weights in a dict with other things.
WRAPPERS = ("model", "state_dict")


def read_stored(path: Path) -> tuple[Stored, str]:
    """Read a checkpoint, and the SHA-256 that names it.

    Args:
        path: a file, or a folder with weights under one of the names of ``WEIGHTS``. The digest
            is the file's own; that of several files is of lines ``digest  name``, by name.

    Raises:
        ModelError: there is none, it is damaged, or reading it would run code.
    """
    folder = of_a_folder(path)
    documents = {} if folder is None else _documents_in(folder)
    if folder is None or (path.name in WEIGHTS and path.suffix != ".json"):
        files: Sequence[Path] = [path]
    else:
        files = _weights_in(folder)
    digests: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        _check_file(file)
        digests[file.name] = _sha256(file)
        some_tensors, metadata = _read(file)
        tensors |= some_tensors
    return Stored(path, tensors, metadata, documents), _digest_of(digests)


def _weights_in(folder: Path) -> Sequence[Path]:
    for name in WEIGHTS:
        if not (folder / name).is_file():
            continue
        if not name.endswith(".json"):
            return [folder / name]
        return [folder / listed for listed in listed_in(folder / name)]
    raise ModelError(f"{folder}: a folder; name the checkpoint file in it")


def _documents_in(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    return {name: read_document(folder / name) for name in DOCUMENTS if (folder / name).is_file()}


def _digest_of(digests: Mapping[str, str]) -> str:
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _check_file(path: Path) -> None:
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
        what = f"holds things that are no tensors ({some(others)})"
    else:
        what = f"holds a {type(loaded).__name__}"
    raise ModelError(
        f"{path}: {what}, not a SAM's state dict; save the weights alone with "
        "torch.save(model.state_dict(), file)"
    )
