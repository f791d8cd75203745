"""A card that computes nothing and counts what it is asked for: launches, waits, room, bytes.

PyTorch's part lies on its ``meta`` device, where tensors have shapes and no values, and says that
it is CUDA's; streams, graphs, Numba's and Triton's kernels are stand-ins. What depends on values,
how many masks pass say, is said beforehand, so a tile of an official model is counted in seconds on
any machine. ``FakeCard.install`` must come before the engine is imported, in its own process.

An operator of PyTorch counts as one launch, but for the few that are known to be more
(``LAUNCHES``); views are none. Bytes are those of arrays that an operator or kernel is given and
gives, each read or written once: what caches cannot spare. Of ViT-B's shape in float32 that made
1202 launches where a profiler had seen 1374 on an H100, and 152 GB for its decoder where 150 had
been worked out by hand.
"""

import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators of more than one kernel, as PyTorch's CUDA build runs them.
LAUNCHES = {"sort": 4, "nonzero": 4, "cumsum": 2, "unique_consecutive": 6, "topk": 2, "baddbmm": 2}
# Room that an operator asks for is no launch.
_ROOM = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
# Operators that give as many rows as there are values of a kind.
_ROWS = ("nonzero", "unique_consecutive")
# What they change in place they do not read.
_WRITE_ONLY = ("copy_", "fill_", "zero_")
# Products, before which autocast casts.
_CAST = {
    "linear", "matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "addmm", "baddbmm", "einsum",
    "conv2d", "conv_transpose2d", "scaled_dot_product_attention",
}  # fmt: skip


@dataclass
class Counts:
    """What was asked of a card."""

    launches: Counter[str] = field(default_factory=Counter)  # by operator or kernel
    waits: Counter[str] = field(default_factory=Counter)  # of the host, by what made it wait
    room: Counter[str] = field(default_factory=Counter)  # arrays made, by who manages their memory
    moved: Counter[str] = field(default_factory=Counter)  # bytes: memory, up, down
    by_name: Counter[str] = field(default_factory=Counter)  # bytes moved in memory, likewise
    graphs: Counter[str] = field(default_factory=Counter)  # replays, and kernels in them

    def add(self, other: "Counts") -> None:
        """Everything that another has counted."""
        for name, counter in vars(self).items():
            counter.update(getattr(other, name))

    def row(self, tiles: int = 1) -> dict[str, float]:
        """Totals a tile."""
        kernels = sum(self.launches.values())
        by_host = kernels - self.graphs["kernels"] + self.graphs["replays"]
        return {
            "kernels": kernels / tiles,
            "launches by the host": by_host / tiles,
            "waits": sum(self.waits.values()) / tiles,
            "allocations, PyTorch's pool": self.room["pool"] / tiles,
            "allocations, cuMemAlloc": self.room["driver"] / tiles,
            "GB moved in memory": self.moved["memory"] / tiles / 1e9,
            "MB up": self.moved["up"] / tiles / 1e6,
            "MB down": self.moved["down"] / tiles / 1e6,
        }


@dataclass(frozen=True)
class Scenario:
    """What depends on values."""

    masks: float = 1000 / 3072  # share of a pass's masks whose predicted IoU passes
    points: float = 0.5  # share of its points that have one
    count: int = 1000  # what is read where counts are read, several at once


class FakeCard:
    """See the module; count within ``counting``."""

    device = torch.device("cuda", 0)  # as it calls itself
    capability = (9, 0)
    memory = 80 << 30  # bytes

    def __init__(self, scenario: Scenario | None = None) -> None:
        self.counts = Counts()
        self.scenario = scenario or Scenario()
        self.cast: torch.dtype | None = None

    @classmethod
    def install(cls) -> Self:
        """Take the place of Numba's CUDA target and of Triton's launcher, in this process."""
        card = cls()
        loaded = [name for name in sys.modules if name.startswith("alps.kernels") and "gpu" in name]
        if loaded:
            raise RuntimeError(f"kernels are loaded already: {', '.join(sorted(loaded))}")
        module: Any = types.ModuleType("alps.kernels.base.numba_cuda")
        module.cuda, module.in_simulator = _FakeNumba(card), card.array
        module.numba_config = types.SimpleNamespace(ENABLE_CUDASIM=0)
        sys.modules[module.__name__] = module
        from alps.kernels.base import gpu

        plain = gpu.is_on_gpu
        vars(gpu).update(
            is_on_gpu=lambda array: _is_meta(array) or plain(array),
            on_gpu=card.on_gpu,
            on_host=lambda array: array.copy_to_host() if _is_there(array) else np.asarray(array),
        )
        vars(torch)["autocast"] = card.autocast
        _be_cuda(card)
        _count_triton(card)
        return card

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count what happens within."""
        self.counts = Counts()
        with torch.inference_mode(), _Functions(self), _Operators(self):
            yield self.counts

    def array(self, tensor: Any) -> "FakeArray":
        """A tensor of the card as Numba's kernels take it."""
        kind = np.dtype(str(tensor.dtype).removeprefix("torch."))
        return FakeArray(self, tuple(tensor.shape), kind)

    def on_gpu(self, array: Any, dtype: Any = None) -> "FakeArray":
        """As ``alps.kernels.base.gpu.on_gpu``."""
        if isinstance(array, FakeArray):
            return array
        if _is_meta(array):
            return self.array(array)
        array = np.ascontiguousarray(array, dtype)
        self.bring(array.nbytes, "Numba: to_device")
        self.counts.room["driver"] += 1
        return FakeArray(self, array.shape, array.dtype)

    def launch(self, name: str, arrays: Any) -> None:
        """A kernel on arrays."""
        self.counts.launches[name] += 1
        size = sum(map(_bytes_of, tree_leaves(arrays)))
        self.counts.moved["memory"] += size
        self.counts.by_name[name] += size

    def bring(self, size: int, why: str, waits: bool = True) -> None:
        """Bytes from the host."""
        self.counts.moved["up"] += size
        self.counts.waits[why] += waits

    def fetch(self, size: int, why: str, waits: bool = True) -> None:
        """Bytes to the host."""
        self.counts.moved["down"] += size
        self.counts.waits[why] += waits

    def autocast(
        self, kind: str, dtype: torch.dtype | None = None, enabled: bool = True, **_: Any
    ) -> AbstractContextManager[None]:
        """As ``torch.autocast``: what products take is cast before them."""
        return self._casting(dtype) if enabled else nullcontext()

    @contextmanager
    def _casting(self, dtype: torch.dtype | None) -> Iterator[None]:
        before, self.cast = self.cast, dtype
        try:
            yield
        finally:
            self.cast = before


class FakeArray:
    """An array of Numba's on the card: a shape and a dtype."""

    def __init__(self, card: FakeCard, shape: tuple[int, ...], dtype: Any) -> None:
        self.card, self.shape, self.dtype = card, shape, np.dtype(dtype)
        self.ndim, self.size = len(shape), int(np.prod(shape))
        self.nbytes = self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> "FakeArray":
        shape = np.broadcast_to(np.zeros((), self.dtype), self.shape)[index].shape
        return FakeArray(self.card, shape, self.dtype)

    def copy_to_host(self, *_: Any, **__: Any) -> np.ndarray:
        """Zeros."""
        self.card.fetch(self.nbytes, "Numba: copy_to_host")
        return np.zeros(self.shape, self.dtype)


class _FakeNumba:
    """``numba.cuda`` as far as the host's side of kernels uses it."""

    def __init__(self, card: FakeCard) -> None:
        self._card = card

    def __getattr__(self, name: str) -> Any:  # what only kernels use, and those are never run
        return types.SimpleNamespace()

    def jit(self, *arguments: Any, **options: Any) -> Any:
        """A kernel that counts its launches."""
        if options.get("device") or not arguments or not callable(arguments[0]):
            return lambda function: function if options.get("device") else self.jit(function)
        room = arguments[0].__module__.split(".")[-2:-1]  # of alps.kernels.nms.gpu: nms
        return _Kernel(self._card, ".".join([*room, arguments[0].__name__]))

    def device_array(self, shape: Any, dtype: Any = np.float64, **_: Any) -> FakeArray:
        """Room."""
        self._card.counts.room["driver"] += 1
        return FakeArray(self._card, shape if isinstance(shape, tuple) else (shape,), dtype)

    def to_device(self, array: np.ndarray, **_: Any) -> FakeArray:
        """A copy there."""
        return self._card.on_gpu(array)

    def as_cuda_array(self, array: Any, **_: Any) -> FakeArray:
        """The same memory."""
        return self._card.on_gpu(array)

    def external_stream(self, _: int) -> int:
        """A stream."""
        return 0

    def synchronize(self) -> None:
        """A wait."""
        self._card.counts.waits["Numba: synchronize"] += 1

    def is_available(self) -> bool:
        """Yes."""
        return True


@dataclass(frozen=True)
class _Kernel:
    card: FakeCard
    name: str

    def __getitem__(self, _: Any) -> Callable[..., None]:
        return lambda *arguments: self.card.launch(self.name, arguments)


class _Functions(TorchFunctionMode):
    """Attention is one kernel on a GPU; casts of autocast."""

    def __init__(self, card: FakeCard) -> None:
        super().__init__()
        self.card = card

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__" and _is_meta_inside(args[0]):
            asked = func.__self__.__name__
            if asked in ("is_cuda", "device"):
                return True if asked == "is_cuda" else self.card.device
        if name == "is_pinned" or name == "pin_memory":
            return args[0] if name == "pin_memory" else True
        if name == "tolist" and _is_meta_inside(args[0]):
            self.card.fetch(_bytes_of(args[0]), "values read")
            return [self.card.scenario.count] * args[0].numel()
        kwargs.pop("pin_memory", None)
        args = tuple(_on_meta(value) for value in args)
        kwargs = {key: _on_meta(value) for key, value in kwargs.items()}
        if self.card.cast is not None and name in _CAST:
            args = [_cast(value, self.card.cast) for value in args]
            kwargs = {key: _cast(value, self.card.cast) for key, value in kwargs.items()}
        if name == "scaled_dot_product_attention" and _is_meta(args[0]):
            shape = (*args[0].shape[:-1], args[2].shape[-1])
            out = torch.empty(shape, dtype=args[0].dtype, device="meta")
            self.card.launch("attention", [args, list(kwargs.values()), out])
            return out
        return func(*args, **kwargs)


class _Operators(TorchDispatchMode):
    """Every operator of PyTorch that touches the card."""

    def __init__(self, card: FakeCard) -> None:
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        with self:  # in inference mode what is made of other operators comes whole
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = any(map(_is_meta, given))
        if name in ("_to_copy", "copy_", "_local_scalar_dense", "equal", *_ROWS):
            # Without pinned memory a copy waits, whatever ``non_blocking`` says: they are pinned.
            asynchronous = kwargs.get("non_blocking") or (name == "copy_" and True in args[2:])
            done = self._special(name, given, there, kwargs, not asynchronous)
            if done is not None:
                return done
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor) and _is_meta(leaf)]
        if not made and not there:
            return out
        own = {leaf.untyped_storage()._cdata for leaf in given}
        new = [leaf for leaf in made if leaf.untyped_storage()._cdata not in own]
        self.card.counts.room["pool"] += len(new)
        if name not in _ROOM and (new or func._schema.is_mutable):
            changed = [] if new or name in _WRITE_ONLY else given[:1]
            self.card.launch(name, [given, new, changed])
            self.card.counts.launches[name] += LAUNCHES.get(name, 1) - 1
        return out

    def _special(
        self, name: str, given: list[Tensor], there: bool, kwargs: Any, waits: bool
    ) -> Any:
        """Operators whose answer depends on values, or that go to the host or come from it."""
        card, first = self.card, given[0]
        if name == "copy_" and _is_meta(given[0]) != _is_meta(given[1]):
            move = card.bring if _is_meta(given[0]) else card.fetch
            move(_bytes_of(given[1]), "copy", waits)
            return given[0]
        if name == "_to_copy" and kwargs.get("device") is not None:
            to = torch.device(kwargs["device"])
            dtype = kwargs.get("dtype") or first.dtype
            if there and to.type == "cpu":
                card.fetch(_bytes_of(first), "to the host", waits)
                return torch.zeros(first.shape, dtype=dtype)
            if not there and to.type == "meta":
                card.bring(_bytes_of(first), "to the card", waits)
                card.counts.room["pool"] += 1
                return torch.empty(first.shape, dtype=dtype, device="meta")
        if not there:
            return None
        if name in ("_local_scalar_dense", "equal"):
            card.fetch(first.element_size(), "a value read")
            # All is well; numbers are 0.
            return name == "equal" or first.dtype == torch.bool
        if name == "nonzero":
            card.fetch(8, "how many there are")
            rows = round(first.numel() * card.scenario.masks)
            out: Any = torch.empty(rows, first.ndim, dtype=torch.int64, device="meta")
        elif name == "unique_consecutive":
            card.fetch(8, "how many there are")
            few = round(first.numel() / card.scenario.masks / 3 * card.scenario.points)
            kinds = (few, first.numel(), few)
            out = tuple(torch.empty(n, dtype=torch.int64, device="meta") for n in kinds)
        else:
            return None
        card.launch(name, [given, out])
        card.counts.launches[name] += LAUNCHES[name] - 1
        card.counts.room["pool"] += len(tree_leaves(out))
        return out


def _cast(value: Any, dtype: torch.dtype) -> Any:
    halves = isinstance(value, Tensor) and value.dtype == torch.float32
    return value.to(dtype) if halves else value


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and _is_meta_inside(value)


def _is_meta_inside(value: Tensor) -> bool:
    """Whatever it calls itself."""
    with torch._C.DisableTorchFunction():
        return value.is_meta


def _on_meta(value: Any) -> Any:
    """Where a device is named: PyTorch's own."""
    named = isinstance(value, torch.device) or (isinstance(value, str) and value[:4] == "cuda")
    return "meta" if named and torch.device(value).type == "cuda" else value


def _is_there(value: Any) -> bool:
    return isinstance(value, FakeArray)


def _bytes_of(value: Any) -> int:
    """Of an array, what is expanded once; of what Triton takes it through, likewise."""
    value = getattr(value, "base", value)
    if isinstance(value, Tensor):
        own = [n for n, step in zip(value.shape, value.stride(), strict=True) if step or n < 2]
        return int(np.prod(own, dtype=np.int64)) * value.element_size()
    return value.nbytes if isinstance(value, FakeArray) else 0


class _Stream:
    """A stream, an event, or a graph; what is counted is that the host waits."""

    cuda_stream = 1
    device = FakeCard.device

    def __init__(self, card: FakeCard) -> None:
        self._card, self.captured = card, Counts()

    def synchronize(self) -> None:
        """A wait."""
        self._card.counts.waits["the stream"] += 1

    def elapsed_time(self, _: Any) -> float:
        """Milliseconds; nothing takes any."""
        return 1.0

    def replay(self) -> None:
        """All kernels of a graph, by one launch."""
        counts = self._card.counts
        counts.add(self.captured)
        counts.graphs["replays"] += 1
        counts.graphs["kernels"] += sum(self.captured.launches.values())

    def __getattr__(self, name: str) -> Any:  # wait_stream, wait_event, record and so on
        return lambda *_, **__: None


def _be_cuda(card: FakeCard) -> None:
    """Let ``torch.cuda`` know the card."""

    @contextmanager
    def graph(into: _Stream, **_: Any) -> Iterator[None]:
        before, card.counts = card.counts, into.captured
        try:
            yield
        finally:
            card.counts = before

    def waited(*_: Any) -> None:
        card.counts.waits["the device"] += 1

    class Bound(_Stream):
        """A class, as others name it in types."""

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__(card)

    properties = types.SimpleNamespace(total_memory=card.memory, name="a card that counts")
    vars(torch.cuda).update(
        is_available=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        get_device_capability=lambda *_: card.capability,
        get_device_properties=lambda *_: properties,
        get_device_name=lambda *_: properties.name,
        current_stream=lambda *_: _Stream(card),
        synchronize=waited,
        empty_cache=lambda: None,
        device=lambda *_: nullcontext(),
        stream=lambda *_: nullcontext(),
        graph=graph,
        **dict.fromkeys(("Stream", "Event", "CUDAGraph"), Bound),
    )


def _count_triton(card: FakeCard) -> None:
    """Launches of Triton's kernels, where it is installed."""
    try:
        from triton.runtime.jit import JITFunction
    except ImportError:
        return

    def run(self: Any, *arguments: Any, **options: Any) -> None:
        given = dict(zip(self.arg_names, arguments, strict=False)) | options
        if self.fn.__name__ == "patches":  # of the masks of a batch it writes its own points'
            points = given["image"].shape[0] // given["SIDE"] ** 2
            each = 3 * card.scenario.masks / card.scenario.points  # masks of a point that has one
            given["logits"] = given["logits"][: round(each * points)]
        card.launch(f"triton.{self.fn.__name__}", list(given.values()))

    JITFunction.run = run
