"""The decoder's kernels compiled for GPUs that are not there: what they take of one."""

import pytest
from interpreted import needs_triton

pytestmark = needs_triton

# Of each capability and precision, the most bytes that a thread may spill in passes 2, 3, 4a and
# 4b: a third more than the worse of Triton 3.6 and 3.9.
SPILLED = {
    (80, "fp16"): (1400, 1900, 160, 160),
    (80, "bf16"): (1400, 1930, 160, 160),
    (90, "fp16"): (560, 880, 128, 128),
    (90, "bf16"): (560, 1200, 600, 128),
    (90, "fp32"): (1620, 2870, 1590, 970),
}
FAST = (90, "fp16", "3")
CASES = [
    pytest.param(
        capability,
        precision,
        which,
        stack,
        marks=() if (capability, precision, which) == FAST else pytest.mark.slow,
    )
    for (capability, precision), stacks in SPILLED.items()
    for which, stack in zip(("2", "3", "4a", "4b"), stacks, strict=True)
]


@pytest.mark.parametrize(("capability", "precision", "which", "stack"), CASES)
def test_a_pass_fits_the_gpu_it_is_launched_on(capability, precision, which, stack):
    from alps.bench.gpu.decoder_resources import SHARED, VIT, resources

    taken = resources(VIT, which, precision, capability)
    assert taken.shared <= SHARED[capability]
    assert taken.registers <= 255 and taken.stack <= stack
    assert taken.tensor_cores == {80: "HMMA", 90: "HGMMA"}[capability]


def test_every_launch_is_compiled_here():
    from alps.kernels.decoder.gpu.launch import BLOCKS

    assert {(capability, precision == "fp32") for capability, precision in SPILLED} == set(BLOCKS)
