"""config.json of a checkpoint, before transformers reads it and makes room for what it says.

It keeps numbers of any size: a billion labels are a table of a billion names, a million layers are
built one by one.
"""

from pathlib import Path
from typing import Any

from alps.engine.base.errors import ModelError
from alps.engine.base.records import read_record

MOST_CLASSES = 65_535
MOST_LAYERS = 512  # of anything that is counted
MOST_NUMBER = 1 << 20  # widths, sizes
MOST_BYTES = 16 << 20
MOST_DEPTH = 20
COUNTED = ("depth", "layer", "block", "num_", "_convs")
LABELS = ("num_labels", "_num_labels")


def refuse_huge(path: Path) -> None:
    """Raise ModelError where a file is no config, or of a network that nobody has.

    Without a file there is nothing to refuse: a name on the hub has none.
    """
    mend = "get the checkpoint again"
    try:
        values = read_record(path, dict[str, Any], ModelError, mend, MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, number in _numbers(values, ""):
        most = MOST_CLASSES if name in LABELS else MOST_NUMBER
        if name not in LABELS and any(word in name for word in COUNTED):
            most = MOST_LAYERS
        if abs(number) > most:
            raise ModelError(f"cannot read {path}: {name} is {number}, at most {most}; {mend}")
    labels = values.get("id2label")
    if labels is not None and not (isinstance(labels, dict) and len(labels) <= MOST_CLASSES):
        raise ModelError(f"cannot read {path}: id2label names no classes; {mend}")


def _numbers(value: Any, name: str, depth: int = 0) -> list[tuple[str, int]]:
    """All whole numbers, each with the key that it stands under."""
    if isinstance(value, int):
        return [(name, value)]
    if depth >= MOST_DEPTH:
        return []
    if isinstance(value, dict):
        items = [] if name in ("id2label", "label2id") else list(value.items())
        return [found for key, inner in items for found in _numbers(inner, key, depth + 1)]
    if isinstance(value, list):
        return [found for inner in value for found in _numbers(inner, name, depth + 1)]
    return []
