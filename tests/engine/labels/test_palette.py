"""Colours of classes: apart from each other, and from what reads as no data."""

import numpy as np
import pytest
from skimage.color import deltaE_cie76, rgb2lab

from alps.engine.labels.palette import palette


def differences(colours):
    """ΔE76 of each pair of colours (K, 3) uint8, the diagonal left out: infinite."""
    lab = rgb2lab(colours[None] / 255)[0]
    found = deltaE_cie76(lab[:, None], lab[None])
    np.fill_diagonal(found, np.inf)
    return found


@pytest.mark.parametrize(("classes", "least"), [(8, 50), (16, 35), (46, 20), (100, 15), (255, 10)])
def test_no_two_classes_look_alike(classes, least):
    assert differences(palette(classes)).min() > least


def test_nothing_reads_as_no_data():
    lab = rgb2lab(palette(255)[None] / 255)[0]
    assert lab[:, 0].min() > 29.5 and lab[:, 0].max() < 90.5
    white, black = rgb2lab(np.array([[[255, 255, 255], [0, 0, 0]]]) / 255)[0]
    assert min(deltaE_cie76(lab, white).min(), deltaE_cie76(lab, black).min()) > 10


def test_each_colour_is_the_farthest_from_those_before():
    """So no colour is farther from all before it than the one that was taken before was."""
    colours = np.concatenate([[[0, 0, 0], [255, 255, 255]], palette(255)])
    lab = rgb2lab(colours[None] / 255)[0] * np.array([1, 0.8, 0.8])
    apart = np.sqrt(((lab[:, None] - lab[None]) ** 2).sum(-1))
    nearest = [apart[index, :index].min() for index in range(2, len(lab))]
    assert np.diff(nearest).max() < 0.5  # rounding, and another white point


def test_a_class_keeps_its_colour():
    many = palette(3000)
    assert many.dtype == np.uint8 and many.shape == (3000, 3)
    for classes in (1, 2, 46, 255, 256, 257, 1000):
        assert (palette(classes) == many[:classes]).all()
    assert len(np.unique(many, axis=0)) == 2729
    assert palette(0).shape == (0, 3)


def test_colours_of_the_first_classes():
    """Label maps of one version look like those of the next."""
    expected = "ee0044 6666ee 009900 ffbb00 008888 775511 00ffcc ff88cc"
    assert " ".join(bytes(colour).hex() for colour in palette(8).tolist()) == expected


def test_what_is_returned_may_be_changed():
    palette(4)[:] = 0
    assert palette(4).any(axis=1).all()
