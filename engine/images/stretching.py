"""What becomes black and white: limits out of samples, of one scene or of several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alps.engine.images.facts.validity import Fills, find_fills, is_value
from alps.kernels.stretch import stretch_limits

# What neighbours differ by, squared, in twice the variance: 1 of white noise, near 0 of surfaces.
NOISE = 0.5
NARROW_SHARE = 0.15  # of the greatest value: a range so narrow can be that of noise
NARROW_COUNTS = 64  # or so many steps of an integer type
NOISE_LEVELS = 4  # grey levels that the deviation of noise gets, at most
THIN_PATCH = 128  # pixels a side that a sample among many keeps of a patch
SATURATED = 0.2  # share of a band beyond its limits that is worth a word


@dataclass(frozen=True)
class Limits:
    """What becomes 0 and what becomes 255 in each band."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """low, high: (B,) float64."""
        return np.array(self.low, np.float64), np.array(self.high, np.float64)


@dataclass(frozen=True)
class Sample:
    """Pixels drawn over a scene.

    pixels: (B, ...) as stored. valid: as ``pixels``, bool: they count as data by what the file
    and the user say. patches: pixels (B, h, w) and where they are valid, of small windows that
    were read whole, to tell surfaces from noise.
    """

    pixels: np.ndarray
    valid: np.ndarray
    patches: list[tuple[np.ndarray, np.ndarray]]

    def thinned(self, most: int) -> "Sample":
        """Every so many pixels one, so that about ``most`` are left of a band."""
        bands = len(self.pixels)
        step = max(1, self.pixels[0].size // most)
        pixels, valid = (part.reshape(bands, -1)[:, ::step] for part in (self.pixels, self.valid))
        corner = np.s_[:, :THIN_PATCH, :THIN_PATCH]
        patches = [(one[corner].copy(), good[corner].copy()) for one, good in self.patches]
        return Sample(pixels.copy(), valid.copy(), patches)

    def fills(self) -> list[Fills]:
        """Fill values of each band that nobody declared."""
        return [
            find_fills(band[valid & np.isfinite(band)] if band.dtype.kind == "f" else band[valid])
            for band, valid in zip(self.pixels, self.valid, strict=True)
        ]


def fit_limits(samples: Sequence[Sample], fills: Sequence[Sequence[Fills]]) -> Limits:
    """Limits of samples taken together; those of one scene are a sequence of one.

    fills: of each sample, those of each band, which set no limit.
    """
    low, high = [], []
    for band in range(len(samples[0].pixels)):
        values = np.concatenate(
            [_of_band(one, band, own[band]) for one, own in zip(samples, fills, strict=True)]
        )
        black, white = (
            float(side[0]) for side in stretch_limits(values[None], np.ones(values.shape, bool))
        )
        if values.size and _is_narrow(values, black, white) and _is_noise(samples, fills, band):
            wanted = float(np.std(values.astype(np.float64))) * 255 / NOISE_LEVELS
            middle = (black + white) / 2
            half = max(wanted, white - black) / 2
            black, white = middle - half, middle + half
        low.append(black)
        high.append(white)
    return Limits(tuple(low), tuple(high))


def saturation(sample: Sample, fills: Sequence[Fills], limits: Limits) -> tuple[float, float]:
    """Largest shares of a band's valid pixels that become black, and white, beyond the limits."""
    black, white = 0.0, 0.0
    for band, (own, low, high) in enumerate(zip(fills, limits.low, limits.high, strict=True)):
        values = sample.pixels[band][sample.valid[band]]
        values = values[~is_value(values, own.nodata)]
        if values.size and high > low:
            black = max(black, float(np.mean(values <= low)))
            white = max(white, float(np.mean(values >= high)))
    return black, white


def _of_band(sample: Sample, band: int, fills: Fills) -> np.ndarray:
    values = sample.pixels[band][sample.valid[band]]
    return values[~is_value(values, fills.all)] if fills.all else values


def _is_narrow(values: np.ndarray, black: float, white: float) -> bool:
    """Whether a range can be that of noise."""
    narrow = white - black < NARROW_SHARE * max(abs(black), abs(white))
    if values.dtype.kind in "iu":
        narrow |= white - black < NARROW_COUNTS
    return bool(narrow and white > black)


def _is_noise(samples: Sequence[Sample], fills: Sequence[Sequence[Fills]], band: int) -> bool:
    """Whether there are no surfaces: in most samples, neighbours differ as strangers do.

    By von Neumann's ratio: the mean squared difference of neighbours in twice the variance.
    """
    ratios = []
    for sample, own in zip(samples, fills, strict=True):
        squares: list[np.ndarray] = []
        values: list[np.ndarray] = []
        for pixels, valid in sample.patches:
            numbers = pixels[band].astype(np.float64)
            good = valid[band] & np.isfinite(numbers) & ~is_value(pixels[band], own[band].all)
            numbers = np.where(good, numbers, 0)
            squares.append((np.diff(numbers, axis=1)[good[:, 1:] & good[:, :-1]]) ** 2)
            values.append(numbers[good])
        variance = float(np.concatenate(values).var()) if any(map(len, values)) else 0.0
        if variance > 0 and any(map(len, squares)):
            ratios.append(float(np.concatenate(squares).mean()) / (2 * variance))
    return bool(ratios) and float(np.median(ratios)) > NOISE
