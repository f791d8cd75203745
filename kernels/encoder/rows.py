"""What a CPU does to an encoder's tokens between two products of matrices, in one pass each.

PyTorch's layer norm and GELU are the references. Bytes moved: each value read and written once.
"""

import numpy as np

from alps.kernels.base.compiled import njit
from alps.kernels.base.math import FAST, add_bias_and_gelu


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def add_and_norm(
    tokens: np.ndarray,
    bias: np.ndarray,
    weight: np.ndarray,
    shift: np.ndarray,
    epsilon: float,
    normed: np.ndarray,
) -> None:
    """tokens += bias, normed = layer norm of tokens over channels.

    Args:
        tokens: (P, C) float32, changed in place.
        bias: (C,) float32
        weight: (C,) float32 of the norm; ``shift`` likewise is its bias.
        epsilon: added to the variance.
        normed: (P, C) float32, filled.
    """
    for i in range(len(tokens)):
        _add_and_norm(tokens[i], bias, weight, shift, np.float32(epsilon), normed[i])


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
def _add_and_norm(
    token: np.ndarray,
    bias: np.ndarray,
    weight: np.ndarray,
    shift: np.ndarray,
    epsilon: np.float32,
    normed: np.ndarray,
) -> None:
    channels = len(token)
    mean = np.float32(0.0)
    for c in range(channels):
        value = token[c] + bias[c]
        token[c] = value
        mean += value
    mean /= np.float32(channels)
    variance = np.float32(0.0)
    for c in range(channels):
        difference = token[c] - mean
        variance += difference * difference
    scale = np.float32(1.0) / np.sqrt(variance / np.float32(channels) + epsilon)
    for c in range(channels):
        normed[c] = (token[c] - mean) * scale * weight[c] + shift[c]


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def add_and_gelu(values: np.ndarray, bias: np.ndarray) -> None:
    """GELU of values (P, C) float32 + bias (C,), in place."""
    for i in range(len(values)):
        add_bias_and_gelu(values[i], bias)
