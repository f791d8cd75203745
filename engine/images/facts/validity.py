"""Which pixels hold data: what is called alpha, fill values nobody declared, frayed edges."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from rasterio.io import DatasetReader

# A mask has a value for "no" and one or few for "yes"; a feathered edge of a mosaic adds some.
MASK_VALUES = 16
FEATHERED = 0.5  # share of the pixels above 0 that the commonest value of a mask has, at least
# GDAL's nearblack counts as nodata what is at most so far from it, after lossy compression.
NEAR = 15
REACH = 16  # pixels: a block of JPEG whose colours are halved, beyond which nothing frays
# Fill values that formats and tools write by convention, whole numbers and those of floats.
FILLS = frozenset(
    [1.0 - 10.0**digits for digits in range(3, 9)]
    + [-(2.0**15), 1 - 2.0**15, -(2.0**31), 1 - 2.0**31]
)
HUGE = 1e30  # so far from zero nothing is measured
LONE_SHARE = 0.001  # of a sample: fewer pixels of a value that is no convention are no fill
# How far from all others, in spreads of these, conventions lie, and what is alone below zero.
CONVENTION_APART, NEGATIVE_APART = 0.25, 0.05
MANY = 8  # different values make an image; fewer may be a mask, whose ends are data


@dataclass(frozen=True)
class Fills:
    """Values of one band that stand alone, far from all others.

    nodata: no data, though no header says so. stray: extremes that only the stretch leaves out.
    """

    nodata: tuple[float, ...] = ()
    stray: tuple[float, ...] = ()

    @property
    def all(self) -> tuple[float, ...]:
        """Both."""
        return self.nodata + self.stray


def looks_like_a_mask(alpha: np.ndarray) -> bool:
    """Whether values of a band called alpha are those of a mask, and not of an image.

    alpha: any shape, any integer or float dtype.
    """
    values, counts = np.unique(alpha, return_counts=True)
    above = values > 0
    if not above.any() or above.sum() <= MASK_VALUES:
        return True
    return bool(counts[above].max() >= FEATHERED * counts[above].sum())


def find_fills(values: np.ndarray) -> Fills:
    """Look for fill values among a sample of one band, (n,) finite values that count as data.

    The least and the greatest value may be one, where they stand apart from all others. Below zero
    it is nodata: a convention, or exact in many pixels and alone below zero. The ends of an
    integer type, a saturated 65535 say, stay data.
    """
    ends = _ends_of(values.dtype)
    found, counts = np.unique(values, return_counts=True)
    found = found.astype(np.float64)
    nodata: list[float] = []
    stray: list[float] = []
    while len(found):
        for at in (0, -1):
            kind = _fill_at(at, found, counts, ends)
            if kind:
                (nodata if kind == "nodata" else stray).append(float(found[at]))
                found, counts = (part[1:] if at == 0 else part[:-1] for part in (found, counts))
                break
        else:
            break
    return Fills(tuple(nodata), tuple(stray))


def _fill_at(at: int, values: np.ndarray, counts: np.ndarray, ends: tuple[float, ...]) -> str:
    """What the first (0) or last (-1) of sorted values is: ``nodata``, ``stray`` or nothing."""
    value, share = float(values[at]), counts[at] / counts.sum()
    if len(values) == 1:
        return "nodata" if _is_convention(value) else ""
    rest, weights = (part[1:] if at == 0 else part[:-1] for part in (values, counts))
    gap, spread = abs(value - float(rest[at])), _spread(rest, weights)
    if _is_convention(value) and gap > spread * CONVENTION_APART:
        return "nodata"
    alone = at == 0 and value < 0 <= rest[0] and share >= LONE_SHARE
    if alone and gap > spread * NEGATIVE_APART:
        return "nodata"
    if value in ends and len(rest) >= MANY and share >= LONE_SHARE and gap > spread:
        return "stray"
    return ""


def is_value(pixels: np.ndarray, values: Iterable[float]) -> np.ndarray:
    """Where pixels are one of ``values``, as near as their type holds them: bool."""
    found = np.zeros(pixels.shape, bool)
    for value in values:
        if pixels.dtype.kind == "f":
            # Headers and people round -3.4028235e38 in many ways.
            near = abs(value) * (0.01 if abs(value) >= HUGE else 1e-6)
            with np.errstate(over="ignore", invalid="ignore"):
                found |= np.abs(pixels.astype(np.float64) - value) <= near
        elif value == int(value) and _fits(int(value), pixels.dtype):
            found |= pixels == int(value)
    return found


def is_lossy(dataset: DatasetReader) -> bool:
    """Whether a file's compression changes values."""
    about = dataset.tags(ns="IMAGE_STRUCTURE")
    if "LOSSY" in about.get("COMPRESSION_REVERSIBILITY", ""):
        return True
    return dataset.driver == "JPEG" or "JPEG" in about.get("COMPRESSION", "")


def frayed(pixels: np.ndarray, empty: np.ndarray, nodata: float) -> np.ndarray:
    """Pixels that lossy compression moved away from nodata: near it, and joined to it.

    Args:
        pixels: (B, H, W) uint8.
        empty: (H, W) bool, exactly nodata in all bands.
        nodata: the value.

    Returns (H, W) bool, without ``empty``. A pixel depends on no other farther away than REACH.
    """
    import cv2  # not before: `alps --help` would wait for it

    near = (np.abs(pixels.astype(np.int16) - int(nodata)) <= NEAR).all(axis=0)
    reached = empty.astype(np.uint8)
    allowed = (near | empty).astype(np.uint8)
    around = np.ones((3, 3), np.uint8)
    for _ in range(REACH):
        wider = np.asarray(cv2.dilate(reached, around), np.uint8) & allowed
        if (wider == reached).all():
            break
        reached = wider
    return (reached > 0) & ~empty


def _ends_of(dtype: np.dtype) -> tuple[float, ...]:
    if dtype.kind not in "iu":
        return (0.0,)
    return (0.0, float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))


def _spread(values: np.ndarray, counts: np.ndarray) -> float:
    """From the 2nd to the 98th percentile."""
    shares = np.cumsum(counts) / counts.sum()
    low, high = values[np.searchsorted(shares, [0.02, 0.98]).clip(max=len(values) - 1)]
    return float(high - low)


def _is_convention(value: float) -> bool:
    return value in FILLS or abs(value) >= HUGE


def _fits(value: int, dtype: np.dtype) -> bool:
    if dtype.kind == "b":
        return value in (0, 1)
    limits = np.iinfo(dtype)
    return limits.min <= value <= limits.max


def number(value: float) -> str:
    """A value as a person writes it: -9999, 0.25, -3.40282e+38."""
    if math.isfinite(value) and value == int(value) and abs(value) < HUGE:
        return str(int(value))
    return f"{value:g}"
