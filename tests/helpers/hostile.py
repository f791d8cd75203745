"""Contents that no file of ours has: each must end in one line that names the file."""

import json

from alps.engine.base.errors import AlpsError

JUNK = {
    "empty": b"",
    "cut": b'{"a": 1',
    "binary": b"\xff\xfe\x00\x01",
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "list": b"[1, 2]",
    "null": b"null",
    "huge number": b'{"a": 1' + b"0" * 5000 + b"}",
    "nan": b'{"a": NaN}',
}
OTHERS = (None, -1, 10**12, "x", [], [None], {"a": [1]}, True, 0.5)


def without_keys(content):
    """JSON objects, each with one key less."""
    for key in content:
        yield key, json.dumps({k: v for k, v in content.items() if k != key}).encode()


def with_others(content):
    """JSON objects, each with another value under one key."""
    for key in content:
        for other in OTHERS:
            yield key, json.dumps(content | {key: other}).encode()


def survives(act, path):
    """Do something with a file that lies; whether it went well. Any error must be ours, a line."""
    try:
        act()
    except AlpsError as error:
        text = str(error)
        assert "\n" not in text and path.name in text, text
        return False
    return True
