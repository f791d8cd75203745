"""The decoder's kernels compiled for GPUs that are not there: what they take of one."""

import pytest
from interpreted import needs_triton

pytestmark = needs_triton

# Precision, capability, pass, and the most bytes that a thread may spill: the first takes 288 by
# Triton 3.6, 648 by 3.9, the last 848 and 1416.
COMPILED = [
    ("fp16", 90, "3", 700),
    pytest.param("fp16", 90, "2", 450, marks=pytest.mark.slow),
    pytest.param("fp16", 90, "4b", 128, marks=pytest.mark.slow),
    pytest.param("fp32", 90, "3", 2400, marks=pytest.mark.dear),
    pytest.param("fp16", 80, "3", 1500, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("precision", "capability", "which", "stack"), COMPILED)
def test_a_pass_fits_the_gpu_it_is_launched_on(precision, capability, which, stack):
    from alps.bench.gpu.decoder_resources import SHARED, VIT, resources

    taken = resources(VIT, which, precision, capability)
    assert taken.shared <= SHARED[capability]
    assert taken.registers <= 255 and taken.stack <= stack
    assert taken.tensor_cores == {80: "HMMA", 90: "HGMMA"}[capability]
