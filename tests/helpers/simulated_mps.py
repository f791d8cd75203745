"""An Apple GPU as far as Python sees one: tensors that say ``mps``, and refuse what it refuses.

They lie in this machine's memory and are computed by its CPU. As on the device, one of them does
not meet a tensor of the CPU in one operation, has no float64, and is not NumPy's.
"""

from contextlib import contextmanager
from unittest import mock

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

MPS = torch.device("mps", 0)
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default, torch.Tensor.copy_)


class OnMps(torch.Tensor):
    """A tensor that says it lies on the device."""

    @staticmethod
    def __new__(cls, held):
        if held.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=MPS,
        )

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"OnMps({self.held!r})"

    def numpy(self, *, force=False):
        raise TypeError("can't convert mps:0 device type tensor to numpy")

    def tolist(self):
        return self.held.tolist()

    def storage(self):
        return self.held.storage()

    def untyped_storage(self):
        return self.held.untyped_storage()

    def __reduce_ex__(self, protocol):
        return self.held.__reduce_ex__(protocol)  # as it is read with map_location="cpu"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return carried_out(function, args, kwargs or {})


def carried_out(function, args, kwargs):
    """One operation, by the CPU; what comes of it lies where the device would put it."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    on_mps = [leaf for leaf in tensors if isinstance(leaf, OnMps)]
    to = kwargs.get("device")
    goes = bool(on_mps) if to is None else torch.device(to).type == "mps"
    copies = function in COPIES
    if on_mps and not copies:
        strays = [leaf for leaf in tensors if not isinstance(leaf, OnMps) and leaf.dim() > 0]
        if strays and "item__" not in str(function):  # indices may lie on the CPU
            raise RuntimeError(f"{function}: all tensors must be on one device, mps:0 and cpu")
    plain = tree_map(lambda leaf: leaf.held if isinstance(leaf, OnMps) else leaf, (args, kwargs))
    if to is not None:
        plain[1]["device"] = torch.device("cpu")
    found = function(*plain[0], **plain[1])
    back = {id(leaf.held): leaf for leaf in on_mps}  # what is changed in place stays itself

    def placed(value):
        if not isinstance(value, torch.Tensor) or not goes:
            return value
        known = back.get(id(value))
        if known is not None:
            return known
        with torch.inference_mode(False):  # a view is of the kind that it is a view of
            return OnMps(value)

    return tree_map(placed, found)


class Factories(TorchDispatchMode):
    """Lets ``torch.zeros(..., device="mps")`` and the like make such tensors."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return carried_out(function, args, kwargs or {})


class Calls(TorchFunctionMode):
    """Lets calls through before which PyTorch looks for the device's driver."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == "mps":
            return OnMps(function(*args, **kwargs | {"device": "cpu"}))
        if function is torch.Tensor.to and not isinstance(args[0], OnMps):
            words = {name: word for name, word in kwargs.items() if name != "copy"}
            if args[1:] or words:
                device, dtype, *_ = torch._C._nn._parse_to(*args[1:], **words)
                if device is not None and device.type == "mps":
                    return OnMps(args[0].detach().to(dtype or args[0].dtype, copy=True))
        if function is scaled_dot_product_attention:  # it would look for kernels of the device
            return carried_out(function, args, kwargs)
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            if "not linked with support for mps" not in str(error):
                raise
            return carried_out(function, args, kwargs)


@contextmanager
def simulated_mps():
    """A machine that has the device."""
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter's kind changes
    try:
        with mock.patch("torch.backends.mps.is_available", lambda: True), Factories(), Calls():
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
