"""Lower precision where it is safe: products in it, norms and softmax in float32.

ViT encoders overflow float16 elsewhere: their residual stream grows to thousands, whose squares a
layer norm sums up. So only products of matrices (and what follows them elementwise, until the next
norm) are computed in the lower precision, as PyTorch's autocast has it. Autocast itself does not
survive an export; this mode writes each conversion down as a node of the graph.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}

M = TypeVar("M", bound=nn.Module)

_PRODUCTS = {
    F.linear, F.conv2d, torch.matmul, torch.bmm, torch.baddbmm, torch.einsum,
    Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__,
}  # fmt: skip
_IN_FLOAT32 = {F.layer_norm, F.softmax, torch.softmax, Tensor.softmax}


class Products(TorchFunctionMode):
    """Within it products of matrices take and give ``dtype``; norms and softmax float32."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Convert what a function is given, then call it."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return attention(*args, **kwargs)
        if func in _PRODUCTS:
            args, kwargs = _to(self.dtype, args), _to(self.dtype, kwargs)
        elif func in _IN_FLOAT32:
            args, kwargs = _to(torch.float32, args), _to(torch.float32, kwargs)
        return func(*args, **kwargs)


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Attention in steps that the mode sees; query is scaled before it meets a key.

    In float16 the other order would overflow: an unscaled logit is eight times as large.
    """
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if attn_mask is not None:
        logits = logits.float() + attn_mask.float()
    return logits.softmax(-1) @ value


def with_weights_in(module: M, dtype: torch.dtype) -> M:
    """A copy whose linear layers and convolutions keep their weights in ``dtype``."""
    if dtype == torch.float32:
        return module
    changed = copy.deepcopy(module)
    for part in changed.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            part.to(dtype)
    return changed


def _to(dtype: torch.dtype, value: Any) -> Any:
    if isinstance(value, Tensor):
        convert = value.is_floating_point() and value.dtype != dtype
        return value.to(dtype) if convert else value
    if isinstance(value, tuple | list):
        return type(value)(_to(dtype, item) for item in value)
    if isinstance(value, dict):
        return {name: _to(dtype, item) for name, item in value.items()}
    return value
