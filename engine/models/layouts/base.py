"""What a layout is: how a checkpoint of some program is told from others, and read."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from alps.engine.models.folder import CONFIG
from alps.engine.sam.config import ModelDefaults
from alps.engine.sam.empty import empty_sam


@dataclass(frozen=True)
class Stored:
    """A checkpoint as it lies on the disk.

    path: the file or folder, named in errors.
    tensors: by the names that they have there, in the types they are stored in.
    metadata: text of a safetensors file.
    documents: JSON objects beside the weights, by the names of their files.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def config(self) -> Mapping[str, Any]:
        """config.json; empty where there is none."""
        return self.documents.get(CONFIG, {})


@dataclass(frozen=True)
class Contents:
    """What a checkpoint says, in this package's terms.

    config: the network's dimensions.
    tensors: its state dict, by this package's names, in the types they are stored in.
    defaults: thresholds that suit it.
    name: of the official model that this is, where the layout tells.
    """

    config: Any
    tensors: Mapping[str, Tensor]
    defaults: ModelDefaults
    name: str | None = None


@dataclass(frozen=True)
class Written:
    """What a layout makes of a model.

    tensors: by that layout's names.
    metadata: text for a safetensors file.
    documents: JSON objects beside the weights, by the names of their files.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Form(enum.Enum):
    """What a checkpoint is on the disk."""

    FOLDER = enum.auto()
    PICKLED = enum.auto()  # .pth, .pt
    SAFETENSORS = enum.auto()


@dataclass(frozen=True)
class Layout:
    """One program's way to store a model.

    name: what errors call it.
    form: what it is written as.
    recognises: whether a checkpoint is laid out so; looks at names only, and raises nothing.
    read: the contents. Raises ModelError where something is missing.
    holds: whether models of these dimensions can be written.
    write: what to write of a model that it holds.
    model_types: what ``config.json`` calls models of this layout, where there is one.
    network: an empty network (meta device) of the dimensions in ``Contents.config``.
    """

    name: str
    form: Form
    recognises: Callable[[Stored], bool]
    read: Callable[[Stored], Contents]
    holds: Callable[[Any], bool]
    write: Callable[[Contents], Written]
    model_types: tuple[str, ...] = ()
    network: Callable[[Any], Any] = empty_sam
