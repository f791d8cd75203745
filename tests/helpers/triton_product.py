"""A product of matrices in each of the forms that Triton's kernels have."""

import torch
import triton
import triton.language as tl

from alps.kernels.base.triton import BF16, EXACT, FP16, dot, dot_of_halves, halves, rounded

FORMS = {"fp16": FP16.value, "bf16": BF16.value, "exact": EXACT.value}


@triton.jit
def product(a, b, out, C: tl.constexpr, FORM: tl.constexpr, EMULATE: tl.constexpr):
    """Of (C, C) float32 by (C, C) float32."""
    own = tl.arange(0, C)
    at = own[:, None] * C + own[None, :]
    x, y = tl.load(a + at), tl.load(b + at)
    total = tl.zeros((C, C), tl.float32)
    if FORM == EXACT:
        x_high, x_low = halves(x)
        y_high, y_low = halves(y)
        total = dot_of_halves(x_high, x_low, y_high, y_low, total)
    else:
        total = dot(rounded(x, FORM, EMULATE), rounded(y, FORM, EMULATE), total, EMULATE)
    tl.store(out + at, total)


def errors(size):
    """Relative to the product in float64, of each form and of PyTorch in the same type."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator) * 100 for _ in range(2))
    exact = a.double() @ b.double()
    found = {}
    for name, form in FORMS.items():
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "exact": torch.float32}[name]
        out = torch.full_like(a, torch.nan)
        product[(1,)](a, b, out, size, form, name == "bf16")
        usual = a.to(dtype).float() @ b.to(dtype).float()
        found[name] = [
            float((product_of - exact).norm() / exact.norm()) for product_of in (out, usual)
        ]
    return found
