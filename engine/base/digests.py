"""Short names of values and files."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from alps.engine.base.records import Count, Sha256


def fingerprint(*values: Any) -> str:
    """A short hash of JSON-able values, the same on every machine."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class FileDigest:
    """What a file was when it was written."""

    bytes: Count
    sha256: Sha256

    @classmethod
    def of(cls, path: Path) -> Self:
        """As it is now. Raises OSError."""
        return cls(path.stat().st_size, file_sha256(path))

    def is_of(self, path: Path) -> bool:
        """Whether a file is still that; one of another size is not read. Raises OSError."""
        return path.stat().st_size == self.bytes and file_sha256(path) == self.sha256
