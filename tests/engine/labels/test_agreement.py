"""Patches between which no border can be seen take one class."""

from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alps.engine.labels.agreement import FADES, Patches, agree, patches_of


def made(means, area, colours, borders, inner=None):
    """Patches of mean vectors (P, D), mean colours (P, 3) and borders {(a, b): (length, contrast
    a pixel)}; ``inner``: the same of borders within, (P, 2).
    """
    area = np.array(area, float)
    pairs = sorted(borders)
    outer = np.array([borders[pair] for pair in pairs], float).reshape(-1, 2)
    outer[:, 1] *= outer[:, 0]
    within = np.zeros((len(area), 2)) if inner is None else np.array(inner, float)
    within[:, 1] *= within[:, 0]
    return Patches(
        area,
        np.array(means, float) * area[:, None],
        np.array(colours, float) * area[:, None],
        within,
        np.array(pairs, np.int64).reshape(-1, 2),
        outer,
    )


def random_patches(seed, count):
    """A chain of patches with some more borders, and a class each, near which it lies."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(count, 3))
    ends = {(a, a + 1) for a in range(count - 1)}
    ends |= {tuple(sorted(map(int, rng.choice(count, 2, replace=False)))) for _ in range(count)}
    borders = {pair: (int(rng.integers(1, 9)), rng.random() * 4) for pair in ends}
    inner = np.stack([rng.integers(0, 3, count) * 5, rng.random(count) * 3], axis=1)
    patches = made(
        means,
        rng.integers(1, 400, count),
        rng.normal(size=(count, 3)),
        borders,
        inner,
    )
    centroids = (means + rng.normal(size=(count, 3)) * 0.7).astype(np.float32)
    return patches, centroids


def by_definition(patches, classes, centroids, tolerance):
    """Round by round in plain Python; all patches are of different classes, and stay so."""
    own = {
        p: {
            "members": [p],
            "class": int(classes[p]),
            "area": patches.area[p],
            "vector": patches.vectors[p],
            "colour": patches.colours[p],
            "inner": patches.inner[p],
        }
        for p in range(len(classes))
    }
    borders = {tuple(pair): along for pair, along in zip(patches.pairs, patches.outer, strict=True)}
    centroids = centroids.astype(np.float64)

    def distance(patch, label):
        return ((patch["vector"] / patch["area"] - centroids[label]) ** 2).sum()

    def loss(patch, other):
        return distance(patch, other["class"]) - distance(patch, patch["class"])

    def ratio(a, b, along):
        a, b = own[a], own[b]
        sums = [loss(a, b) * a["area"], loss(b, a) * b["area"]]
        mover = (a, b)[int(np.argmin(sums))]
        usual = max(p["inner"][1] / p["inner"][0] if p["inner"][0] else 0 for p in (a, b))
        step = max(along[1] / along[0] - usual, 0)
        apart = np.linalg.norm(a["colour"] / a["area"] - b["colour"] / b["area"])
        seen = np.exp(-(step + apart / 2) / FADES)
        return min(sums) / mover["area"] / (tolerance * seen), int(np.argmin(sums))

    while True:
        costs = {pair: ratio(*pair, along) for pair, along in borders.items()}
        best = {p: min((c[0] for pair, c in costs.items() if p in pair), default=9) for p in own}
        chosen = [
            (pair, moves)
            for pair, (cost, moves) in costs.items()
            if cost <= 1 and cost == best[pair[0]] == best[pair[1]]
        ]
        if not chosen:
            break
        for (a, b), moves in chosen:
            kept, gone = own[a], own.pop(b)
            kept["class"] = (gone if moves == 0 else kept)["class"]
            kept["inner"] = kept["inner"] + gone["inner"] + borders.pop((a, b))
            for name in ("members", "area", "vector", "colour"):
                kept[name] = kept[name] + gone[name]
            for pair in [pair for pair in borders if b in pair]:
                other = pair[0] if pair[1] == b else pair[1]
                key = min(a, other), max(a, other)
                borders[key] = borders.get(key, 0) + borders.pop(pair)
    found = np.empty(len(classes), int)
    for patch in own.values():
        found[patch["members"]] = patch["class"]
    return found


@given(st.integers(0, 2**32), st.integers(2, 12), st.sampled_from([0.3, 1.5, 6.0]))
def test_each_round_by_definition(seed, count, tolerance):
    patches, centroids = random_patches(seed, count)
    classes = np.arange(count)
    expected = by_definition(patches, classes, centroids, tolerance)
    with mock.patch("alps.engine.labels.agreement.AT_ONCE", 3):
        found = agree(patches, classes, centroids, tolerance)
    np.testing.assert_array_equal(found, expected)
    assert (classes == np.arange(count)).all()  # what was given stays


def test_more_tolerance_leaves_fewer_classes():
    counts = []
    for tolerance in (1e-6, 0.5, 2, 1e6):
        patches, centroids = random_patches(3, 40)
        counts.append(len(np.unique(agree(patches, np.arange(40), centroids, tolerance))))
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[2] > counts[3] == 1


CENTROIDS = np.array([[0.0], [1], [2], [9]], np.float32)
GREY = [50, 0, 0]


def two(contrast=0.0, colours=(GREY, GREY), area=(900, 300), inner=None):
    """Two neighbours of classes 0 and 1, whose vectors lie between: 0.4 and 0.6."""
    return made([[0.4], [0.6]], area, colours, {(0, 1): (10, contrast)}, inner)


def test_the_smaller_loss_decides_which_class_stays():
    assert agree(two(), np.array([0, 1]), CENTROIDS, 1).tolist() == [0, 0]
    assert agree(two(area=(300, 900)), np.array([0, 1]), CENTROIDS, 1).tolist() == [1, 1]
    # A pixel that moves from 1 to 0 at 0.6 loses 0.36 - 0.16.
    assert agree(two(), np.array([0, 1]), CENTROIDS, 0.21).tolist() == [0, 0]
    assert agree(two(), np.array([0, 1]), CENTROIDS, 0.19).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("patches", "same"),
    [
        (two(contrast=2.0), True),
        (two(contrast=2.8), False),  # exp(-2.8 / 1.5) < 0.2
        (two(colours=(GREY, [53, 0, 0])), True),
        (two(colours=(GREY, [50, 4, 4])), False),
        (two(contrast=9.0, inner=[[20, 9], [0, 0]]), True),  # as grainy within
        (two(contrast=9.0, inner=[[20, 3], [20, 5]]), False),
    ],
)
def test_a_border_that_can_be_seen_stays(patches, same):
    found = agree(patches, np.array([0, 1]), CENTROIDS, 1)
    assert (found[0] == found[1]) == same


def test_in_a_chain_of_equals_a_patch_takes_part_once():
    """Each of three patches lies halfway between two classes. The latter two agree on theirs, which
    is far from the first.
    """
    patches = made(
        [[0.25, 0.25], [0.5, 0.0], [0.75, 0.25]],
        [400] * 3,
        [GREY] * 3,
        {(0, 1): (5, 0), (1, 2): (5, 0)},
    )
    centroids = np.array([[0.0, 0], [0.5, 0.5], [1, 0]], np.float32)
    assert agree(patches, np.arange(3), centroids, 0.01).tolist() == [0, 2, 2]


def test_a_patch_that_touches_one_of_its_class_stays_as_it_is():
    means, colours = [[0.4], [0.6], [0.3]], [GREY] * 3
    apart = made(means, [900, 300, 900], colours, {(0, 1): (10, 0)})
    assert agree(apart, np.array([0, 1, 0]), CENTROIDS, 1).tolist() == [0, 0, 0]
    beside = made(means, [900, 300, 900], colours, {(0, 1): (10, 0), (0, 2): (10, 9)})
    assert agree(beside, np.array([0, 1, 0]), CENTROIDS, 1).tolist() == [0, 1, 0]


def test_patches_that_touch_nothing_keep_their_class():
    patches = made([[0.4], [0.6]], [500, 500], [GREY] * 2, {})
    assert agree(patches, np.array([0, 1]), CENTROIDS, 9).tolist() == [0, 1]
    nothing = made(np.zeros((0, 1)), [], np.zeros((0, 3)), {})
    assert agree(nothing, np.zeros(0, int), CENTROIDS, 9).tolist() == []


# --- patches out of tables


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 4))
def test_patches_are_the_sums_of_their_regions(seed, count, parts):
    rng = np.random.default_rng(seed)
    patch = rng.integers(-1, 5, count)
    _, patch[patch >= 0] = np.unique(patch[patch >= 0], return_inverse=True)
    area, features = rng.integers(1, 99, count), rng.normal(size=(count, 2)).astype(np.float32)
    colours = rng.normal(size=(count, 3)).astype(np.float16)
    ends = np.sort(rng.integers(0, count, (3 * count, 2)), axis=1)
    ends = np.unique(ends[ends[:, 0] < ends[:, 1]], axis=0)
    rng.shuffle(ends)
    length, contrast = rng.integers(1, 9, len(ends)), rng.random(len(ends)).astype(np.float16)
    at = np.sort(rng.integers(0, count + 1, parts - 1)).tolist()
    rows = [(features[a:b], colours[a:b], area[a:b]) for a, b in pairwise([0, *at, count])]
    borders = [
        (ends[n::parts, 0], ends[n::parts, 1], length[n::parts], contrast[n::parts])
        for n in range(parts)
    ]
    found = patches_of(patch, rows, borders)
    number = patch.max() + 1
    for p in range(number):
        mine = patch == p
        assert found.area[p] == area[mine].sum()
        for sums, values in ((found.vectors, features), (found.colours, colours)):
            expected = (values[mine].astype(float) * area[mine, None]).sum(0)
            np.testing.assert_allclose(sums[p], expected, atol=1e-4)
    inner, outer = np.zeros((number, 2)), {}
    for (a, b), pixels, step in zip(ends, length, contrast, strict=True):
        pair, along = tuple(sorted((patch[a], patch[b]))), np.array([pixels, pixels * float(step)])
        if pair[0] >= 0 and pair[0] == pair[1]:
            inner[pair[0]] += along
        elif pair[0] >= 0:
            outer[pair] = outer.get(pair, 0) + along
    np.testing.assert_allclose(found.inner, inner)
    assert [tuple(pair) for pair in found.pairs] == sorted(outer)
    expected = np.array([outer[pair] for pair in sorted(outer)]).reshape(-1, 2)
    np.testing.assert_allclose(found.outer, expected)
