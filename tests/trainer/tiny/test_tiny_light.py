"""Training images under other light."""

import torch

from alps.trainer.tiny.light import vary_light


def _images(count: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, 3, 24, 24), generator=generator, dtype=torch.uint8)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_range_and_shape_are_kept():
    lit = vary_light(_images(), _generator())
    assert lit.shape == (8, 3, 24, 24)
    assert lit.dtype == torch.float32
    assert lit.min() >= 0
    assert lit.max() <= 255


def test_the_generator_alone_decides():
    images = _images()
    assert torch.equal(vary_light(images, _generator(3)), vary_light(images, _generator(3)))
    assert not torch.equal(vary_light(images, _generator(3)), vary_light(images, _generator(4)))


def test_images_of_a_batch_are_lit_differently():
    one = _images(1)
    lit = vary_light(one.expand(6, -1, -1, -1), _generator())
    means = lit.mean((1, 2, 3))
    assert means.unique().numel() == 6
    assert means.std() > 5


def test_nothing_moves():
    """A bright square stays where it is: light changes, geometry does not."""
    image = torch.full((16, 3, 20, 20), 40, dtype=torch.uint8)
    image[:, :, 4:9, 11:17] = 200
    lit = vary_light(image, _generator()).mean(1)
    middle = (lit.amax((1, 2)) + lit.amin((1, 2))) / 2
    found = lit > middle[:, None, None]
    assert torch.equal(found, (image[:, 0] > 100))
