"""The image encoder's kernels for GPUs: what they compute, and what they take of a GPU."""

import pytest
from interpreted import interpreted, needs_triton

pytestmark = needs_triton
# A type's own rounding, a few times: of operands, of weights and of what is stored.
ROUNDING = {"fp32": 1e-6, "fp16": 1e-3, "bf16": 6e-3}


@pytest.fixture(scope="module")
def found():
    return interpreted("triton_encoder", "all_but_tiny")


def test_attention_over_a_grid_is_that_of_float64(found):
    assert len(found["attention"]) == 12
    for form, shape, (error, *of_offsets) in found["attention"]:
        assert 0 < error < ROUNDING[form], (form, shape)
        assert max(of_offsets) < 1e-6, (form, shape)  # float32 in all forms


def test_the_prepared_encoder_rounds_no_worse_than_autocast(found):
    assert found["encoders"].keys() == ROUNDING.keys()
    for form, (error, usual) in found["encoders"].items():
        assert 0 < error < 1.1 * usual, form


@pytest.mark.slow
def test_the_encoder_of_tiny_rounds_no_worse_than_autocast():
    """In one form; a small encoder is tried in all."""
    found = interpreted("triton_encoder", "encoders", which="tiny", forms=["fp16"])
    error, usual = found["fp16"]
    assert 0 < error < 1.1 * usual


def test_bytes_become_the_patches_that_pixels_do(found):
    *equal, of_embedding = found["bytes"]
    assert equal == [True, True, True] and of_embedding < 1e-5


def test_an_image_that_overflows_float16_is_encoded_again(found):
    finite, other_as_it_was, error = found["overflow"]
    assert finite == [True, False] and other_as_it_was and error < 2e-2


OFFICIAL = {  # heads, rows, columns, channels of a head
    "ViT-B, global": (12, 64, 64, 64),
    "ViT-H, global": (16, 64, 64, 80),
    "ViT-H, windows": (16, 14, 14, 80),
}


@pytest.mark.parametrize(
    ("which", "form", "capability"),
    [
        (which, form, capability)
        for capability in (80, 90)
        for form in ("fp16", "bf16", "fp32")
        for which in OFFICIAL
    ],
)
def test_what_attention_takes_of_a_gpu(which, form, capability):
    from alps.kernels.base.triton import compile_for
    from alps.kernels.encoder.gpu.attention import Heads, attend_constants, attend_kernel
    from alps.kernels.encoder.gpu.forms import Form

    heads = Heads(8, *OFFICIAL[which])
    constants, options = attend_constants(heads, Form(form))
    own = f"*{form}"
    pointers = {"qkv": own, "by_row": "*fp32", "by_column": "*fp32", "out": own}
    pointers |= {"scale": "*fp32"}
    taken = compile_for(attend_kernel, capability, pointers, constants, **options)
    half = form != "fp32"
    assert taken.tensor_cores == ("HGMMA" if capability == 90 else "HMMA")
    # Two programs share a multiprocessor; of float32 the registers are one program's.
    assert taken.shared <= (232_448 if capability == 90 else 166_912) // (2 if half else 1)
    assert taken.registers <= (128 if half else 255)
    # What two programs' registers cost on a large grid, and three halves; else nothing.
    assert taken.stack <= (0 if "windows" in which else 160 if half else 32)
    assert taken.instructions["LDGSTS"] >= 4 or capability == 90  # copied while others are used


@pytest.mark.parametrize("capability", [80, 90])
def test_what_the_other_kernels_take_of_a_gpu(capability):
    from alps.kernels.base.triton import compile_for
    from alps.kernels.encoder.gpu.attention import Heads, offsets_constants, offsets_kernel
    from alps.kernels.encoder.gpu.forms import Form
    from alps.kernels.encoder.gpu.norms import Grid, Order, norm_constants, norm_kernel
    from alps.kernels.encoder.gpu.patches import Patches, patches_constants, patches_kernel
    from alps.kernels.resize.gpu import AT_ONCE, axis_kernel

    form, float32 = Form("fp16"), "*fp32"
    offsets = offsets_constants(Heads(8, 16, 64, 64, 80), form)
    pointers = dict.fromkeys(("qkv", "of_rows", "of_columns"), "*fp16")
    pointers |= {"by_row": float32, "by_column": float32}
    taken = compile_for(offsets_kernel, capability, pointers, offsets, num_warps=4)
    assert taken.tensor_cores == ("HGMMA" if capability == 90 else "HMMA")
    assert taken.stack == 0 and taken.shared <= 65_536

    order = Order(Grid(8, 64, 64, 1280, 14), to_windows=True)
    pointers = {"residual": float32, "branch": "*fp16", "weight": float32, "bias": float32}
    pointers |= {"out": "*fp16", "epsilon": "fp32", "count": "i32"}
    taken = compile_for(
        norm_kernel, capability, pointers, norm_constants(order, True, form), num_warps=4
    )
    assert taken.stack == 0 and taken.registers <= 168  # three programs a multiprocessor

    pointers = {"images": "*u8", "places": "*i64", "mean": float32, "deviation": float32}
    pointers |= {"out": "*fp16", "count": "i32"}
    constants = patches_constants(Patches(8, 64, 16), form)
    assert compile_for(patches_kernel, capability, pointers, constants, num_warps=4).stack == 0

    pointers = {"image": "*u8", "first": "*i32", "weights": "*i32", "out": "*u8"}
    pointers |= dict.fromkeys(("old", "new", "inner", "count"), "i32")
    constants = {"TAPS": 5, "AT_ONCE": AT_ONCE}
    assert compile_for(axis_kernel, capability, pointers, constants, num_warps=4).stack == 0
