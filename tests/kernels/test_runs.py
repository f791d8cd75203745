"""Masks as run lengths, taken and joined."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alps.kernels.base.threads import set_threads
from alps.kernels.masks.algebra import runs_of_labels
from alps.kernels.masks.pixels import runs_of
from alps.kernels.masks.runs import Runs, checked_size

SIZE = (4, 6)

lengths_of_a_mask = st.lists(st.integers(0, 6), min_size=1, max_size=8).map(
    lambda lengths: np.array([*lengths, max(0, 24 - sum(lengths))], np.int32)
)
some_masks = st.lists(lengths_of_a_mask, max_size=6)


def lists_of(runs):
    assert runs.lengths.dtype == np.int32
    assert runs.starts.dtype == np.int64
    assert runs.starts[0] == 0
    assert runs.starts[-1] == len(runs.lengths)
    return [runs.of(index).tolist() for index in range(len(runs))]


@given(some_masks)
def test_from_lengths(masks):
    runs = Runs.from_lengths(masks, SIZE)
    assert len(runs) == len(masks)
    assert runs.size == SIZE
    assert lists_of(runs) == [mask.tolist() for mask in masks]


@given(some_masks, st.data())
def test_take(masks, data):
    runs = Runs.from_lengths(masks, SIZE)
    which = np.array(data.draw(st.lists(st.booleans(), min_size=len(masks), max_size=len(masks))))
    which = which.astype(bool)
    taken = lists_of(runs.take(which))
    assert taken == [mask.tolist() for mask, wanted in zip(masks, which, strict=True) if wanted]
    assert lists_of(runs.take(np.flatnonzero(which))) == taken
    if masks:
        order = np.array(data.draw(st.lists(st.integers(0, len(masks) - 1), max_size=9)), np.int64)
        assert lists_of(runs.take(order)) == [masks[index].tolist() for index in order]


@given(st.lists(some_masks, max_size=4))
def test_join(parts):
    joined = Runs.join([Runs.from_lengths(masks, SIZE) for masks in parts], SIZE)
    assert joined.size == SIZE
    assert lists_of(joined) == [mask.tolist() for masks in parts for mask in masks]


def test_join_of_other_sizes():
    parts = [Runs.from_lengths([np.array([24])], size) for size in (SIZE, (6, 4))]
    with pytest.raises(ValueError, match=r"\(6, 4\) cannot join masks of \(4, 6\)"):
        Runs.join(parts, SIZE)


@pytest.mark.parametrize("count", [0, 1, 5, 12])
@pytest.mark.parametrize("grain", [1, 4, 100])
def test_in_pieces(count, grain):
    """Masks come in their order, whichever thread made them; some have no run at all."""

    def make(first, last):
        masks = [np.full(index % 3, index, np.int32) for index in range(first, last)]
        counts = np.array([len(mask) for mask in masks])
        return np.concatenate([np.zeros(0, np.int32), *masks]), counts

    runs = Runs.in_pieces(make, count, SIZE, grain)
    assert runs.size == SIZE
    assert lists_of(runs) == [[index] * (index % 3) for index in range(count)]


def test_checked_size():
    assert checked_size((np.int64(3), 0)) == (3, 0)
    assert checked_size((46340, 46340)) == (46340, 46340)
    with pytest.raises(ValueError, match="tiles"):
        checked_size((2**31, 1))
    with pytest.raises(ValueError, match="cannot have"):
        checked_size((-1, 1))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 33), (0, 3)])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_a_label_map_is_a_mask_a_label(size, count):
    labels = np.random.default_rng(0).integers(-1, count, size).astype(np.int32)
    runs = runs_of_labels(labels, count)
    expected = runs_of(np.stack([labels == index for index in range(count)]))
    np.testing.assert_array_equal(runs.lengths, expected.lengths)
    np.testing.assert_array_equal(runs.starts, expected.starts)


def test_in_pieces_waits_for_the_slowest():
    """The first masks are done last, and come first all the same."""
    later = threading.Event()

    def make(first, last):
        if first == 0:
            later.wait(30)
        else:
            later.set()
        return np.full(last - first, first, np.int32), np.ones(last - first, np.int64)

    set_threads(2)
    try:
        runs = Runs.in_pieces(make, 6, SIZE, 2)
    finally:
        set_threads(None)
    assert lists_of(runs) == [[0], [0], [2], [2], [4], [4]]
