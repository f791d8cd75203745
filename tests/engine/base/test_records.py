"""Records in JSON: what is not as its schema says is one line, whatever it is."""

import json
import os
from dataclasses import dataclass
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from alps.engine.base.errors import RunFolderError
from alps.engine.base.records import BadRecordError, as_record, parse_record, read_record


@dataclass(frozen=True)
class Box:
    name: str
    side: Annotated[int, Meta(ge=1, le=9)]
    share: float = 0.5
    bands: tuple[int, ...] = ()


def read(path, **more):
    return read_record(path, Box, RunFolderError, "make it anew", **more)


def test_what_fits_is_read_and_other_keys_are_let_pass(tmp_path):
    path = tmp_path / "box.json"
    path.write_text('{"name": "a", "side": 3, "bands": [1, 2], "of": {"later": "versions"}}')
    assert read(path) == Box("a", 3, bands=(1, 2))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b'{"name": "a", "side": 3', "delimiter"),
        (b'{"name": "\xff", "side": 3}', "byte 10 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[]", "Expected object, got array"),
        (b"null", "Expected object, got null"),
        (b'{"side": 3}', "missing required field name"),
        (b'{"name": 3, "side": 3}', r"got int - at \$.name"),
        (b'{"name": "a", "side": 10}', r"<= 9 - at \$.side"),
        (b'{"name": "a", "side": true}', r"got bool - at \$.side"),
        (b'{"name": "a", "side": 1.5}', r"got float - at \$.side"),
        (b'{"name": "a", "side": 1' + b"0" * 5000 + b"}", "digits"),
        (b'{"name": "a", "side": 3, "share": NaN}', "NaN is no number"),
        (b'{"name": "a", "side": 3, "share": -Infinity}', "-Infinity is no number"),
        (b'{"name": "a", "side": 3, "share": 1e999}', "1e999 is no number"),
        (b'{"name": "a", "side": 3, "bands": [1, null]}', r"at \$.bands\[...\]|\$.bands\[1\]"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, content, why):
    path = tmp_path / "box.json"
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=f"cannot read .*box.json: .*{why}.*; make it anew$"):
        read(path)


def test_what_is_no_small_file_is_refused_unread(tmp_path):
    path = tmp_path / "box.json"
    with pytest.raises(FileNotFoundError):
        read(path)
    path.write_text(json.dumps({"name": "a" * 100, "side": 3}))
    with pytest.raises(RunFolderError, match="larger than 50 bytes"):
        read(path, most_bytes=50)
    with pytest.raises(RunFolderError, match=r"Is a directory|no file"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # nobody writes: to wait would be for ever
    with pytest.raises(RunFolderError, match="it is no file"):
        read(tmp_path / "pipe")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@pytest.mark.slow
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "side", "share", "bands"), anything))
)
def test_nothing_else_ever_comes_out(values):
    try:
        box = as_record(values, Box)
    except BadRecordError:
        return
    assert isinstance(box.name, str) and 1 <= box.side <= 9 and isinstance(box.share, float)


@given(st.binary())
def test_no_bytes_end_in_another_error(content):
    try:
        parse_record(content, Box)
    except BadRecordError as error:
        assert "\n" not in str(error)
