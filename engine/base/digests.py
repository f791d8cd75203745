"""Short names of values and files."""

import hashlib
import json
from pathlib import Path
from typing import Any


def fingerprint(*values: Any) -> str:
    """A short hash of JSON-able values, the same on every machine."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
