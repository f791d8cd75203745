"""Brings 16-bit and float bands to 8 bits: one linear stretch a band, fixed for a whole scene.

Bytes moved: B x H x W x (itemsize in + 1 out).
"""

import numpy as np

# Tails that are cut where the percentiles asked for coincide: a stray pixel sets no limit as long
# as there are others.
NARROWER = (0.1, 0.01, 0.001, 0.0)


def stretch_limits(
    sample: np.ndarray,
    valid: np.ndarray,
    lower_percentile: float = 2.0,
    upper_percentile: float = 98.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of each band that become black and white.

    sample: (B, ...) any integer or float dtype; valid: the shape of sample, or of sample without
    its first axis, bool. Pixels that are not finite never count.
    Returns low, high: (B,) float64. Where the percentiles coincide (a few bright things on a flat
    ground) smaller tails are cut, at last none; a band that is constant, or has no valid pixel,
    has low == high.
    """
    bands = sample.shape[0]
    valid = np.broadcast_to(valid, sample.shape)
    low, high = np.zeros(bands), np.zeros(bands)
    for band in range(bands):
        values = sample[band][valid[band]]
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        if values.size == 0:
            continue
        # float64 holds every int32, uint32 and float32 exactly.
        values = values.astype(np.float64)
        low[band], high[band] = np.percentile(values, [lower_percentile, upper_percentile])
        for tail in NARROWER:
            if low[band] < high[band]:
                break
            low[band], high[band] = np.percentile(values, [tail, 100 - tail])
    return low, high


def stretch_to_uint8(pixels: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Map low to 0 and high to 255 linearly, round to the nearest, clip outside; NaN becomes 0.

    pixels: (B, H, W) any integer or float dtype; low, high: (B,).
    Returns (B, H, W) uint8. A band with low == high comes out 0 everywhere.
    Each pixel depends on its own value alone, so windows of one scene agree where they overlap.
    """
    stretched = np.zeros(pixels.shape, np.uint8)
    for band, (black, white) in enumerate(zip(low, high, strict=True)):
        if not white > black:
            continue
        # A 16-bit value fits float32 exactly; wider types need float64 before the subtraction.
        working = np.float32 if pixels.dtype.itemsize <= 2 else np.float64
        values = pixels[band].astype(working)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            values -= working(black)
            values *= working(255.0 / (white - black))
            values += working(0.5)
        np.nan_to_num(values, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
        np.clip(values, 0, 255, out=values)
        stretched[band] = values.astype(np.uint8)
    return stretched
