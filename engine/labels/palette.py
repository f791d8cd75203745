"""Colours for classes."""

import colorsys

import numpy as np

# Successive multiples of the golden ratio, modulo 1, never crowd: any prefix is well spread.
GOLDEN = 0.6180339887498949
# Neighbouring class ids differ in lightness too, for those who do not see hue.
LEVELS = ((0.95, 0.70), (0.62, 0.90), (0.85, 0.38), (0.42, 0.75), (1.00, 1.00))


def palette(classes: int) -> np.ndarray:
    """Return (classes, 3) uint8 RGB, the same for the same number, none of them black.

    A class keeps its colour when more classes are added.
    """
    colours = np.zeros((classes, 3), np.uint8)
    for index in range(classes):
        value, saturation = LEVELS[index % len(LEVELS)]
        rgb = colorsys.hsv_to_rgb((0.08 + index * GOLDEN) % 1.0, saturation, value)
        colours[index] = [round(channel * 255) for channel in rgb]
    return colours
