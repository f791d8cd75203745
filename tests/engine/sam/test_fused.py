"""The mask decoder's kernels for GPUs, in Triton's interpreter, beside float64 and today's."""

from pathlib import Path

import pytest
from interpreted import interpreted, needs_triton

pytestmark = needs_triton

# Of what today's decoder errs in the same precision. Three products of halves leave out a fourth;
# fp16 and bf16 round less often here than PyTorch's autocast.
NO_MORE = {"fp32": 4.0, "fp16": 1.0, "bf16": 1.0}
WORST = {"fp32": 2e-6, "fp16": 2e-3, "bf16": 1.5e-2}


def errs_no_more_than_today(found):
    for precision, of_what in found.items():
        for what, (ours, usual) in of_what.items():
            most = min(NO_MORE[precision] * usual, WORST[precision])
            assert 0 < ours <= most, (precision, what, ours, usual)


@pytest.fixture(scope="module")
def small():
    return interpreted("fused_masks", "small")


@pytest.mark.parametrize("norms", ["folded", "plain"])
def test_masks_err_no_more_than_todays_decoder(small, norms):
    errs_no_more_than_today(small[norms])


@pytest.mark.slow
def test_tiny_errs_no_more_than_todays_decoder():
    weights = Path(__file__).resolve().parents[3] / "engine" / "models" / "weights"
    found = interpreted(
        "fused_masks",
        "errors_of_tiny",
        path=str(weights / "tiny.safetensors"),
        precisions=["fp32", "fp16"],
    )
    errs_no_more_than_today(found)


@pytest.mark.dear
def test_the_shape_of_official_models():
    found = interpreted("fused_masks", "errors_of_vit_b", precisions=["fp32", "fp16"])
    errs_no_more_than_today(found)


def test_masks_of_several_images_take_their_slots(small):
    found = small["slots"]
    assert found["asked"] == [0, 0, 0, 2, 2, 2]
    every, some, expected = found["count"]
    assert every == [6, 9] and some == expected and max(some) > 4  # more than there is room for
    assert all(found["same"])


def test_a_runtime_finds_room_for_all_masks(small):
    found = small["runtime"]
    ours, theirs = found["points"]
    assert found["parts"] == 2 and ours == theirs and len(ours) == 8
    assert found["error"] < WORST["fp16"]


def test_images_of_a_batch_are_decoded_as_alone(small):
    for count, (ours, theirs, error) in zip((6, 3), small["batch"], strict=True):
        assert ours == theirs and len(ours) == count  # of the first, 3 slots would do for none
        assert error < WORST["fp16"]


def test_what_float16_does_not_hold_is_decoded_in_bf16(small):
    finite, as_in_bf16 = small["beyond"]
    assert finite == [False, True] and as_in_bf16
