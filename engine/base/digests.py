"""Short names of values and files."""

import hashlib
import json
from typing import Any


def fingerprint(*values: Any) -> str:
    """A short hash of JSON-able values, the same on every machine."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
