"""Masks as words of bits: bit k of word w of a column is row 32 w + k."""

import numpy as np

WORD = 32  # rows of a column in a word


def words_of(height: int) -> int:
    """Words of a column."""
    return -(-height // WORD)


def packed(mask: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool -> (words, W) uint32, zeros below its last row."""
    height, width = mask.shape
    full = np.zeros((words_of(height) * WORD, width), bool)
    full[:height] = mask
    octets = np.packbits(full.reshape(-1, WORD, width), axis=1, bitorder="little")
    parts = octets.astype(np.uint32)  # (words, 4, W)
    return parts[:, 0] | parts[:, 1] << 8 | parts[:, 2] << 16 | parts[:, 3] << 24
