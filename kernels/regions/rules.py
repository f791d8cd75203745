"""What the region kernels give, on every device."""

from dataclasses import dataclass

import numpy as np

NOWHERE = -1  # the number of pixels in no region
CONTRAST_UNITS = 16  # parts of an L*a*b* unit that contrasts are added up in
LAB_UNITS = 128  # of an L*a*b* unit that pixels come in


@dataclass(frozen=True)
class Borders:
    """Pairs of regions that touch, E of them, ascending; 4-neighbours only."""

    pairs: np.ndarray  # (E, 2) int64, the lower number first
    length: np.ndarray  # (E,) int64 pairs of pixels
    contrast: np.ndarray  # (E,) int64 sums of the pixels' distance in L*a*b*, in CONTRAST_UNITS


@dataclass(frozen=True)
class Moments:
    """Sums over the pixels of N regions."""

    area: np.ndarray  # (N,) int64 pixels
    sums: np.ndarray  # (N, 3) int64 of L*, a*, b* in 128ths
    squares: np.ndarray  # (N, 3) int64

    def colour(self) -> np.ndarray:
        """Mean, then standard deviation, of L*, a* and b*: (N, 6) float64 in L*a*b* units."""
        area = np.maximum(self.area, 1)[:, None]
        mean = self.sums / area
        deviation = np.sqrt(np.maximum(self.squares / area - mean**2, 0))
        return np.concatenate([mean, deviation], axis=1) / LAB_UNITS
