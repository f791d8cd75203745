"""Any JSON in parts is what it is as a whole, however it is cut while it is read."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alps.engine.base.errors import SourceError
from alps.engine.stac import split

TEXT = st.text(alphabet='abc"\\{}[]:, \u00e9\U0001f600\n', max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=4)


def parts(text, chunk=split.CHUNK):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "CHUNK", chunk)
        return list(split.parts_of(io.BytesIO(text), "x.json"))


@given(OBJECTS, st.lists(OBJECTS, max_size=4), OBJECTS, st.booleans(), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_features_and_what_is_around_them(before, features, after, is_spaced, chunk):
    before, after = ({k: v for k, v in one.items() if k != "features"} for one in (before, after))
    whole = {**before, "features": features, **after}
    text = json.dumps(whole, indent=1 if is_spaced else None, ensure_ascii=is_spaced).encode()
    *found, frame = parts(text, chunk)
    assert all(part.is_feature for part in found) and not frame.is_feature
    assert [json.loads(part.text) for part in found] == features
    assert json.loads(frame.text) == whole | {"features": []}


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_objects_one_a_line(chunk):
    found = parts(b'{"a": 1}\n{"b": {"features": [{}]}}\n', chunk)
    assert [part.text for part in found] == [b'{"a": 1}', b'{"b": {"features": [{}]}}']


@pytest.mark.parametrize(
    "text", [b'{"a": 1', b'{"a": "b', b"[1]", b"}", b'{"features": [{"a": 1}', b"\x89PNG", b"hello"]
)
def test_what_is_no_json_object(text):
    with pytest.raises(SourceError, match=r"Cannot read x.json"):
        parts(text)


def test_one_item_that_is_deep_leaves_the_others_alone():
    deep = b"[" * 300_000 + b"]" * 300_000
    found = parts(b'{"features": [{"a": ' + deep + b'}, {"b": 1}]}')
    assert found[1].text == b'{"b": 1}'


def test_what_is_too_large_is_refused_before_it_is_in_memory(monkeypatch):
    monkeypatch.setattr(split, "MOST_OF_ITEM", 1000)
    monkeypatch.setattr(split, "MOST_OF_FRAME", 1000)
    long = b'"' + b"x" * 5000 + b'"'
    with pytest.raises(SourceError, match="an item has more than 1000 bytes"):
        parts(b'{"features": [{"a": ' + long + b"}]}", 500)
    with pytest.raises(SourceError, match="beside its features has more than 1000"):
        parts(b'{"a": ' + long + b"}", 500)
    many = b'{"features": [' + b",".join([b'{"a": 1}'] * 2000) + b"]}"
    assert len(parts(many, 500)) == 2001
