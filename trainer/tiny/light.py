"""Other light, air and sensors over the same ground, drawn anew for each step of training."""

import torch
from torch import Tensor

_GAMMA = 0.3  # natural logarithm, either way
_GAIN = 0.2  # of all channels together
_CAST = 0.08  # of each channel by itself
_SATURATION = (0.5, 1.3)
_HAZE = 0.35  # at most; most images have little
_HAZE_COLOUR = (165.0, 175.0, 190.0)
_NOISE = 4.0  # grey levels, at most
_GREY = (0.30, 0.59, 0.11)


def vary_light(images: Tensor, generator: torch.Generator) -> Tensor:
    """Photograph images again under other conditions; no pixel moves.

    Args:
        images: (B, 3, H, W) RGB, 0 to 255, any dtype.
        generator: decides the conditions, one set an image; of the images' device.

    Returns:
        (B, 3, H, W) float32 within 0 and 255.
    """
    count, device = len(images), images.device

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        drawn = torch.rand(count, channels, 1, 1, generator=generator, device=device)
        return low + (high - low) * drawn

    def colour(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, device=device)[:, None, None]

    bright = (images.float() / 255) ** uniform(-_GAMMA, _GAMMA).exp() * 255
    bright = bright * (1 + uniform(-_GAIN, _GAIN)) * (1 + uniform(-_CAST, _CAST, 3))
    grey = (bright * colour(_GREY)).sum(1, keepdim=True)
    coloured = grey + uniform(*_SATURATION) * (bright - grey)
    haze = _HAZE * uniform(0, 1) ** 3
    hazy = (1 - haze) * coloured + haze * colour(_HAZE_COLOUR)
    noise = torch.randn(hazy.shape, generator=generator, device=device) * uniform(0, _NOISE)
    return (hazy + noise).clamp(0, 255)
