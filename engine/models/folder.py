"""A model as Hugging Face's libraries write it: a folder of files with set names.

Imports no torch.
"""

import re
from pathlib import Path

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
