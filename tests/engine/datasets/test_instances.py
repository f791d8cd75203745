"""Instances against SciPy's connected components, whatever the strips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco
from scipy import ndimage

from alps.engine.datasets import instances as module
from alps.engine.datasets.instances import Strip, find_instances

EMPTY = 255


def strips_of(labels, objects, rows):
    for y in range(0, len(labels), rows):
        part = slice(y, y + rows)
        yield Strip(y, labels[part], None if objects is None else objects[part])


def expected(labels, objects):
    """{packed mask: value}."""
    objects = np.full(labels.shape, -1) if objects is None else objects
    found = {}
    for value in set(np.unique(labels).tolist()) - {EMPTY}:
        own = labels == value
        masks = [own & (objects == number) for number in np.unique(objects[own]) if number >= 0]
        patches, count = ndimage.label(own & (objects < 0))
        masks += [patches == patch for patch in range(1, count + 1)]
        found |= {np.packbits(mask).tobytes(): value for mask in masks}
    return found


def check(labels, objects, rows):
    found = find_instances(strips_of(labels, objects, rows), labels.shape, EMPTY)
    seen = {}
    for i, code in enumerate(found.codes()):
        rle = {"size": list(labels.shape), "counts": code}
        mask = coco.decode(rle)
        assert coco.encode(np.asfortranarray(mask))["counts"] == code
        assert found.areas[i] == mask.sum() == coco.area(rle)
        assert found.boxes[i].tolist() == coco.toBbox(rle).tolist()
        x, y, width, height = found.boxes[i]
        assert (found.mask(i) == mask[y : y + height, x : x + width]).all()
        seen[np.packbits(mask).tobytes()] = found.values[i]
    assert seen == expected(labels, objects) and len(seen) == len(found)
    return found


@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**31),
    st.sampled_from([None, 1, 3]), st.sampled_from([(0,), (0, EMPTY), (0, 1, 2, EMPTY)]),
)  # fmt: skip
def test_instances_are_those_of_scipy(height, width, rows, seed, objects, values):
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array(values, np.uint8), (height, width))
    if objects is not None:
        objects = rng.integers(-1, objects, (height, width)).astype(np.int32)
    check(labels, objects, rows)


def test_blocks_and_parts_of_pairs_change_nothing(monkeypatch):
    rng = np.random.default_rng(5)
    labels = np.kron(rng.integers(0, 3, (9, 7)), np.ones((5, 6))).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.2] = EMPTY
    whole = check(labels, None, 64)
    monkeypatch.setattr(module, "BLOCK", 5)
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 7)
    parts = check(labels, None, 4)
    assert (whole.first == parts.first).all() and (whole.starts == parts.starts).all()


def test_numbers_of_objects_and_classes_may_be_as_high_as_they_get():
    labels = np.array([[0, 65534], [65534, 65535]], np.uint16)
    objects = np.full((2, 2), 2**31 - 2, np.int32)
    found = find_instances([Strip(0, labels, objects)], (2, 2), 65535)
    assert found.values.tolist() == [0, 65534] and found.areas.tolist() == [1, 2]


@pytest.mark.parametrize("value", [EMPTY, 0])
def test_an_image_of_one_value(value):
    labels = np.full((3, 4), value, np.uint8)
    found = check(labels, None, 2)
    assert len(found) == (value != EMPTY)
    assert found.boxes.shape == (len(found), 4) and found.areas.shape == (len(found),)
