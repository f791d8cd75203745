"""Masks as words of bits: bit k of word w of a column is row 32 w + k."""

import numpy as np

WORD = 32  # rows of a column in a word


def words_of(height: int) -> int:
    """Words of a column."""
    return -(-height // WORD)


def packed(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool -> (words, W) uint32, zeros below its last row."""
    height, width = mask.shape
    full = np.zeros((words_of(height), 4, 8, width), bool)
    full.reshape(-1, width)[:height] = mask
    rows = full.view(np.uint8)
    octets = np.zeros((len(full), 4, width), np.uint8)
    for bit in range(8):
        octets |= rows[:, :, bit] << bit
    little = np.ascontiguousarray(octets.transpose(0, 2, 1)).view("<u4")[..., 0]
    return little.astype(np.uint32, copy=False)
