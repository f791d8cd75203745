"""What the compiled encoder does between products, beside PyTorch in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from alps.kernels.encoder.rows import add_and_gelu, add_and_norm


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 7, 768])
def test_add_and_norm(channels):
    tokens, normed = drawn(5, channels), np.empty((5, channels), np.float32)
    bias, weight, shift = drawn(3, channels, seed=1)
    sums = torch.from_numpy(tokens).double() + torch.from_numpy(bias)
    wanted = F.layer_norm(
        sums,
        (channels,),
        torch.from_numpy(weight).double(),
        torch.from_numpy(shift).double(),
        1e-6,
    )
    add_and_norm(tokens, bias, weight, shift, 1e-6, normed)
    np.testing.assert_allclose(tokens, sums, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(normed, wanted, rtol=2e-5, atol=2e-5)


def test_add_and_gelu():
    values, bias = 4 * drawn(9, 33), drawn(33, seed=1)
    wanted = F.gelu((torch.from_numpy(values) + torch.from_numpy(bias)).double())
    add_and_gelu(values, bias)
    np.testing.assert_allclose(values, wanted, rtol=1e-6, atol=1e-6)
