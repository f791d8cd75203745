"""What several compiled kernels compute alike, written so that loops over it vectorise.

``exp`` and ``gelu`` are nothing but arithmetic: LLVM has no vector forms of the C library's.
"""

import numpy as np

from alps.kernels.base.compiled import njit

# Reassociated sums let loops over channels fill vector registers; they round differently, no worse.
FAST = {"reassoc", "contract", "nsz"}

_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)  # so short that n x it is exact
_LN2_LOW = np.float32(-2.12194440e-4)


@njit(inline="always", error_model="numpy")
def exp(x: np.float32) -> np.float32:
    """e^x for x <= 0 to 2 ulp, of nothing but arithmetic, so that loops over it vectorise.

    What is less than e^-75 is given as that: what it is then multiplied by may be small as well,
    and Intel's processors take a hundred times as long over a number below 1.2e-38.
    """
    x = max(x, np.float32(-75.0))
    n = np.floor(x * _LOG2_E + np.float32(0.5))
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    # e^r over |r| <= ln 2 / 2: Taylor's polynomial of degree 7 errs by less than 1e-8.
    p = np.float32(1 / 5040)
    p = p * r + np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1.0)
    p = p * r + np.float32(1.0)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23))
    return p * power.view(np.float32)


@njit(inline="always", error_model="numpy")
def gelu(x: np.float32) -> np.float32:
    """x Φ(x) to 3e-7: of |x| what is right of it under the bell, 1 / (2 q(|x|)^8), goes off.

    The form of Abramowitz and Stegun 7.1.28, with a polynomial q of degree 8 in place of their 6,
    which takes neither an exponential nor, for the eighth power, more than three products. Its
    coefficients minimise the greatest error of x Φ(x) over 0 to 6.5, by linear programming. Beyond
    12 that error is less than float32 tells, and the power would leave it.
    """
    z = min(abs(x), np.float32(12.0))
    q = np.float32(2.9321463e-06)
    q = q * z + np.float32(-1.6743264e-05)
    q = q * z + np.float32(9.7564203e-05)
    q = q * z + np.float32(1.1139289e-04)
    q = q * z + np.float32(9.8060851e-04)
    q = q * z + np.float32(8.5916687e-03)
    q = q * z + np.float32(4.4788789e-02)
    q = q * z + np.float32(9.9732496e-02)
    q = q * z + np.float32(1.0)
    q *= q
    q *= q
    q *= q
    return max(x, np.float32(0.0)) - abs(x) * (np.float32(0.5) / q)


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
def add_bias_and_gelu(values: np.ndarray, bias: np.ndarray) -> None:
    """In place on a vector: add the bias, GELU."""
    for c in range(len(values)):
        values[c] = gelu(values[c] + bias[c])


@njit(nogil=True, forceinline=True, fastmath=FAST, error_model="numpy")
def online_softmax(
    logits: np.ndarray, top: np.ndarray, total: np.ndarray, looked: np.ndarray
) -> None:
    """One block of softmaxes, one a column, over rows that come block by block.

    They lie side by side so that every loop is over several of them: the greatest of one row, a
    number after the other, LLVM finds without vectors.

    Args:
        logits: (n, R), become exponentials relative to each column's greatest so far.
        top: (R,) the greatest so far, -inf at first.
        total: (R,) sum of exponentials so far.
        looked: (R, C), what was weighted by them and summed so far; rescaled as ``top`` rises.
    """
    count, columns = logits.shape
    highest = top.copy()
    for i in range(count):
        row = logits[i]
        for r in range(columns):
            highest[r] = max(highest[r], row[r])
    for r in range(columns):
        if highest[r] > top[r]:
            shrink = exp(top[r] - highest[r])  # 0 in the first block, whose sums are 0 anyway
            total[r] *= shrink
            for c in range(looked.shape[1]):
                looked[r, c] *= shrink
            top[r] = highest[r]
    for i in range(count):
        row = logits[i]
        for r in range(columns):
            e = exp(row[r] - top[r])
            row[r] = e
            total[r] += e
