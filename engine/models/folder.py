"""A model as Hugging Face's libraries write it: a folder of files with set names.

Imports no torch.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alps.engine.base.errors import ModelError
from alps.engine.base.records import BadRecordError, one_line, parse_record, read_small

# What weights are called, best first; those with .json list the files.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
SHARD = re.compile(r"(model|pytorch_model)-\d{5}-of-\d{5}\.(safetensors|bin)")
CONFIG = "config.json"
# How images are prepared: as the library wrote it until its version 5, and since.
PREPROCESSOR = "preprocessor_config.json"
PROCESSORS = (PREPROCESSOR, "processor_config.json")
DOCUMENTS = (CONFIG, *PROCESSORS)


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds weights."""
    return any((path / name).is_file() for name in WEIGHTS)


def of_a_folder(path: Path) -> Path | None:
    """The folder that a path stands for: the path itself, or that of a file with a set name."""
    if path.is_dir():
        return path
    return path.parent if path.name in WEIGHTS or SHARD.fullmatch(path.name) else None


def listed_in(index: Path) -> Sequence[str]:
    """The files that an index of shards names.

    Raises:
        ModelError: it cannot be read, or names something else.
    """
    listed = read_document(index).get("weight_map")
    names = sorted(set(map(str, listed.values()))) if isinstance(listed, Mapping) else []
    if not names or not all(SHARD.fullmatch(name) for name in names):
        raise ModelError(f"{index}: does not list a model's files; get the folder again")
    return names


def read_document(path: Path) -> Mapping[str, Any]:
    """A JSON object beside weights; ModelError where it is none."""
    try:
        return parse_record(read_small(path), dict[str, Any])
    except (OSError, BadRecordError) as error:
        raise ModelError(
            f"{path}: cannot be read as a JSON object ({one_line(error)}); get the folder again"
        ) from error
