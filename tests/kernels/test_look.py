"""The first look at the shared image, beside its definition in float64."""

import numpy as np
import pytest
from scipy.special import softmax

from alps.kernels.decoder.look import look_at


# queries that fill lines and do not; pixels of less than a block, of blocks and a rest; one of all
@pytest.mark.parametrize(("count", "pixels"), [(7, 60), (32, 700), (1, 1)])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_look_is_what_it_is_defined_as(count, pixels, scale):
    generator = np.random.default_rng(count)
    shapes = ((3, count, 8), (3, pixels, 8), (3, pixels, 8))
    queries, keys, values = (generator.standard_normal(s).astype(np.float32) for s in shapes)
    queries *= np.float32(scale)
    weights = softmax(queries.astype(np.float64) @ keys.transpose(0, 2, 1), axis=-1)
    np.testing.assert_allclose(look_at(queries, keys, values), weights @ values, atol=2e-5)
