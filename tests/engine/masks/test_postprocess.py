"""What follows the masks on a GPU, in Numba's simulator, against the CPU: to the bit."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from alps.engine.masks.generator import MaskGenerator
from alps.engine.masks.postprocess.choose import postprocessor_for
from alps.engine.masks.postprocess.device import DevicePostprocessor, can_follow
from alps.engine.masks.postprocess.host import HostPostprocessor
from alps.engine.masks.postprocess.protocol import ToSegment
from alps.engine.masks.postprocess.record import Record, Room
from alps.engine.runtimes.protocol import Capacity, DecodedMasks
from alps.engine.sam import SamConfig
from alps.engine.sam2 import Sam2Config

ROOM = Room(masks=7, kept=5, runs=400, code_bytes=600)
CELLS = 2  # a side, of what lies under no mask
SETTINGS = {
    "points_per_side": 2,
    "pred_iou_thresh": 0.1,
    "stability_score_thresh": 0.6,
    "stability_score_offset": 0.5,
}


class Drawn:
    """A ``Runtime`` of drawn masks: discs, one without a pixel, doubles, and of few logits."""

    on_callers_cores = False
    config = SamConfig(
        image_size=32, patch_size=8, encoder_width=8, encoder_depth=1, encoder_heads=1,
        embedding_channels=4,
    )  # fmt: skip
    capacity = Capacity(2, 3)

    def __init__(self, score=None):
        self.score = score

    def encode(self, pixels):
        rng = np.random.default_rng(int(pixels.abs().sum()) % 97)
        return torch.from_numpy(rng.normal(size=(len(pixels), 4, 4, 4)).astype(np.float32))

    def decode(self, embedding, points, pred_iou_thresh, points_per_batch):
        rng = np.random.default_rng(int(embedding.abs().sum() * 1000))
        y, x = np.mgrid[:16, :16] / 2
        for first in range(0, len(points), 3):
            count = min(3, len(points) - first)
            logits = np.empty((count, 16, 16), np.float32)
            for index in range(count):
                cy, cx, radius = rng.uniform(0, 8, 3)
                logits[index] = 2 * (1 + radius / 2 - np.hypot(y - cy, x - cx))
            if first == 0:
                logits[-1] = logits[0] if len(points) > 1 else -9
            iou = rng.choice([0.5, 0.7, 0.9], count).astype(np.float32)
            if self.score is not None:
                iou[0] = self.score
            index = torch.arange(first, first + count)
            yield DecodedMasks(torch.from_numpy(logits), torch.from_numpy(iou), index)


class DrawnTogether(Drawn):
    """The same, which decodes images of a batch at once, in as many places as ever."""

    def decode_batch(self, images, pred_iou_thresh, room):
        assert len(images) == 2 and room == 4
        found = []
        for image in images:
            parts = (
                [] if image.embedding is None else self.decode(image.embedding, image.points, 0, 9)
            )
            nothing = DecodedMasks(torch.zeros(0, 16, 16), torch.zeros(0), torch.zeros(0).long())
            parts = [nothing, *parts]
            columns = zip(*(vars(part).values() for part in parts), strict=True)
            found.append(DecodedMasks(*map(torch.cat, columns)))
        self.decoded = found
        return found


class DrawnOnSquares(Drawn):
    """The same of images that are stretched, with more in the embedding than the image's own."""

    config = Sam2Config(image_size=32, patch_size=8, embedding_channels=4)

    def encode(self, pixels):
        more = torch.full((len(pixels), 12, 4, 4), 9.0)
        return torch.cat([super().encode(pixels), more], dim=1)


def tile(generator, size, seed, nodata=0, max_area=0.9):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    valid = np.ones(size, bool)
    valid[:, :nodata] = False
    embeddings = generator.embed([image])[0]
    return ToSegment(image, generator.gate(image, valid, max_area, 3), embeddings)


def check(found, expected):
    assert len(found) == len(expected)
    for field in fields(expected):
        mine, theirs = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "embeddings":
            half = theirs.astype(np.float16).astype(np.float32)
            np.testing.assert_allclose(mine, half, rtol=2e-3, atol=1e-4)
        elif field.name == "seconds":
            assert mine.keys() == theirs.keys()
        elif isinstance(theirs, np.ndarray):
            assert mine.dtype == theirs.dtype, field.name
            np.testing.assert_array_equal(mine, theirs, field.name)
        else:
            assert mine == theirs, field.name


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [DrawnTogether(), DrawnOnSquares()], ids=["SAM", "SAM 2"])
def test_a_batch_is_that_of_the_cpu_to_the_bit(runtime):
    """Tiles of two sizes, one with nodata, in a batch with a place left over."""
    generator = MaskGenerator(runtime, **SETTINGS)
    tiles = [
        tile(generator, (20, 23), 1, nodata=4),
        tile(generator, (33, 32), 4),
        tile(generator, (1, 9), 2),
    ]
    expected = [one.segments() for one in HostPostprocessor(generator, CELLS).find(tiles)]
    assert max((one.mask >= 0).sum() for one in expected) > 1
    assert any((one.mask < 0).any() for one in expected)
    device = DevicePostprocessor(generator, CELLS, 2, ROOM)
    device.again = None  # there is room for all
    for found, one in zip(device.find(tiles), expected, strict=True):
        check(found.segments(), one)
    if isinstance(runtime, DrawnTogether):
        assert [len(masks.logits) for masks in runtime.decoded] == [4, 0]  # the last, none


@pytest.mark.slow
@pytest.mark.parametrize(
    "room",
    [{"masks": 2}, {"kept": 1}, {"runs": 20}, {"code_bytes": 20}],
    ids=lambda room: next(iter(room)),
)
def test_a_tile_without_room_is_computed_on_the_host(room):
    generator = MaskGenerator(Drawn(), **SETTINGS)
    tiles = [tile(generator, (20, 23), 1)]
    device = DevicePostprocessor(generator, CELLS, 1, replace(ROOM, **room))
    asked = []
    again = device.again
    device.again = lambda image: asked.append(image) or again(image)
    found = device.find(tiles)[0].segments()
    check(found, HostPostprocessor(generator, CELLS).find(tiles)[0].segments())
    assert asked == tiles


@pytest.mark.slow
def test_a_score_that_is_no_number_is_refused_as_on_the_host():
    generator = MaskGenerator(Drawn(score=np.nan), **SETTINGS)
    tiles = [tile(generator, (20, 23), 1)]
    with pytest.raises(ValueError, match="scores are NaN"):
        HostPostprocessor(generator, CELLS).find(tiles)
    (found,) = DevicePostprocessor(generator, CELLS, 1, ROOM).find(tiles)
    with pytest.raises(ValueError, match="scores are NaN"):
        found.segments()


def test_fields_of_a_record_are_apart():
    record = Record(ROOM, rest=4, channels=3)
    buffer = torch.zeros(2, record.bytes, dtype=torch.uint8)
    for number, view in enumerate(record.views(buffer).values(), start=1):
        view[1] = number
    for number, (name, array) in enumerate(record.arrays(buffer[1]).items(), start=1):
        assert (array == number).all(), name
    assert not buffer[0].any()


@pytest.mark.parametrize(
    ("change", "can"),
    [
        ({}, True),
        ({"crop_n_layers": 1}, False),
        ({"min_mask_region_area": 5}, False),
        ({"coarse_to_fine": True}, False),
    ],
)
def test_what_a_device_can_do(change, can):
    assert can_follow(MaskGenerator(Drawn(), **SETTINGS | change)) is can


def test_masks_of_the_cpu_stay_there():
    generator = MaskGenerator(Drawn(), **SETTINGS)
    tiles = [tile(generator, (20, 23), 1)]
    found = postprocessor_for(generator, CELLS).find(tiles)[0].segments()
    check(found, HostPostprocessor(generator, CELLS).find(tiles)[0].segments())
