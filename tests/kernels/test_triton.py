"""What Triton's kernels stand on: forms of a product, and what a kernel takes of a GPU."""

import sys

import pytest
from interpreted import interpreted, needs_triton

from alps.kernels.base import gpu


@needs_triton
def test_each_form_of_a_product_errs_as_its_type_does():
    for form, (found, usual) in interpreted("triton_product", "errors", size=32).items():
        assert 0 < found <= (3 if form == "exact" else 1.01) * usual, form


@needs_triton
@pytest.mark.parametrize(("capability", "instruction"), [(80, "HMMA"), (90, "HGMMA")])
def test_what_a_kernel_takes_of_a_gpu_that_is_not_there(capability, instruction):
    from triton_product import FORMS, product

    from alps.kernels.base.triton import compile_for

    pointers = dict.fromkeys(("a", "b", "out"), "*fp32")
    found = {
        form: compile_for(
            product,
            capability,
            pointers,
            {"C": 64, "FORM": FORMS[form], "EMULATE": False},
            num_warps=4,
        )
        for form in ("fp16", "exact")
    }
    once, thrice = (found[form].instructions[instruction] for form in ("fp16", "exact"))
    assert thrice == 3 * once > 0
    for resources in found.values():
        assert resources.tensor_cores == instruction
        assert 32 <= resources.registers <= 255 and resources.stack == 0
        assert 64 * 64 * 2 <= resources.shared <= 4 * 64 * 64 * 2


def test_where_triton_is_missing_it_is_said(monkeypatch):
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "platform", "linux")
    assert "pip install" in gpu.triton_missing()
    monkeypatch.setattr(sys, "platform", "win32")
    assert "no wheels for this system" in gpu.triton_missing()
