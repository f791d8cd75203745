"""Images on their way to a device: one piece of memory a batch, of bytes, which is cut up there.

Three bytes a pixel are sent instead of twelve; resizing, normalising and padding are the device's,
to the bit what ``network_pixels`` gives. Tables of a resize travel along, and what it writes has
room behind them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alps.engine.runtimes.protocol import ImagePart
from alps.kernels.resize.rules import rows_first, taps_of

_ALIGNED = 16  # bytes; each piece begins at a multiple


@dataclass(frozen=True)
class ResizeStep:
    """One axis of one image; places are in bytes of the memory on the device."""

    source: int
    first: int  # of the table of ``Taps.first``
    weights: int  # of the table of ``Taps.weights``
    taps: int
    target: int
    shape: tuple[int, int, int, int]  # outer, old, new, inner; see ``Axis`` of the kernel


@dataclass
class PackedImages:
    """A batch. The first bytes say where each image begins, and its rows and columns."""

    memory: Tensor  # (N,) uint8 of the host, pinned where a GPU is to read it
    count: int  # images
    steps: list[ResizeStep]
    room: int  # bytes on the device, the memory's own among them

    @classmethod
    def of(cls, parts: Sequence[ImagePart | None], pin: bool) -> "PackedImages":
        """Pack parts of images; None: nothing, which the network sees as padding."""
        return _Packer(parts).packed(pin)

    def places(self, memory: Tensor) -> Tensor:
        """(count, 3) int64 of its memory on a device: first byte, rows, columns of each image."""
        return memory[: 24 * self.count].view(torch.int64).view(self.count, 3)

    def copy_to(self, device: torch.device) -> Tensor:
        """Its memory on a device, with the room behind it; on PyTorch's current stream, which is
        not waited for.
        """
        memory = torch.empty(self.room, dtype=torch.uint8, device=device)
        memory[: len(self.memory)].copy_(self.memory, non_blocking=True)
        return memory

    def resize_in(self, memory: Tensor) -> None:
        """Resize, in its memory on a device, what has not the size yet; likewise."""
        from alps.kernels.resize.gpu import Axis, resize_axis

        for step in self.steps:
            axis = Axis(*step.shape)
            first, weights = (
                memory[place : place + 4 * axis.new * width].view(torch.int32).view(-1, width)
                for place, width in ((step.first, 1), (step.weights, step.taps))
            )
            resize_axis(memory[step.source :], first, weights, memory[step.target :], axis)


@dataclass(frozen=True)
class SentImages:
    """A batch that is on its way, or there."""

    packed: PackedImages
    _memory: Tensor
    _sent: Any  # event
    _cuda: Any

    def memory(self) -> Tensor:
        """Its memory on the device, for the current stream."""
        stream = self._cuda.current_stream(self._memory.device)
        stream.wait_event(self._sent)
        # It was made in another stream, which may not have it back before this one is done.
        self._memory.record_stream(stream)
        return self._memory


class Sender:
    """Sends batches to a GPU in a stream of its own, while another computes.

    cuda: PyTorch's module, or what stands in for it.
    """

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        self._device, self._cuda = device, cuda
        self._stream = cuda.Stream(device)

    def send(self, packed: PackedImages) -> SentImages:
        """From any thread."""
        with self._cuda.stream(self._stream):
            memory = packed.copy_to(self._device)
            sent = self._stream.record_event()
        return SentImages(packed, memory, sent, self._cuda)


@dataclass
class _Packer:
    """Lays pieces one behind the other."""

    parts: Sequence[ImagePart | None]
    pieces: list[tuple[int, np.ndarray]] = field(default_factory=list)
    tables: dict[tuple[int, int], tuple[int, int, int]] = field(default_factory=dict)
    end: int = 0

    def packed(self, pin: bool) -> PackedImages:
        places = np.zeros((len(self.parts), 3), np.int64)
        self._put(places)
        begins = [None if part is None else self._put(part.pixels) for part in self.parts]
        resized = [
            part is not None and part.pixels.shape[:2] != (part.height, part.width)
            for part in self.parts
        ]
        for part, is_resized in zip(self.parts, resized, strict=True):
            if part is not None and is_resized:
                for old, new in zip(part.pixels.shape, (part.height, part.width), strict=False):
                    self._table(old, new)
        sent = self.end
        steps: list[ResizeStep] = []
        for number, (part, begin) in enumerate(zip(self.parts, begins, strict=True)):
            if part is None or begin is None:
                continue
            if resized[number]:
                begin = self._resized(part, begin, steps)
            places[number] = begin, part.height, part.width
        memory = torch.empty(sent, dtype=torch.uint8, pin_memory=pin)
        into = memory.numpy()
        for begin, piece in self.pieces:
            into[begin : begin + piece.nbytes].view(piece.dtype).reshape(piece.shape)[...] = piece
        return PackedImages(memory, len(self.parts), steps, self.end)

    def _put(self, piece: np.ndarray) -> int:
        self.pieces.append((self.end, piece))
        return self._take(piece.nbytes)

    def _take(self, size: int) -> int:
        begin, self.end = self.end, self.end + -(-size // _ALIGNED) * _ALIGNED
        return begin

    def _table(self, old: int, new: int) -> None:
        if old != new and (old, new) not in self.tables:
            taps = taps_of(old, new)
            places = self._put(taps.first), self._put(taps.weights)
            self.tables[old, new] = *places, taps.weights.shape[1]

    def _resized(self, part: ImagePart, begin: int, steps: list[ResizeStep]) -> int:
        """Where an image begins that one step or two bring to its size."""
        shape = list(part.pixels.shape)
        wanted = [part.height, part.width]
        for axis in (0, 1) if rows_first(part.pixels.shape, *wanted) else (1, 0):
            old, new = shape[axis], wanted[axis]
            if old == new:
                continue
            outer, inner = (1, shape[1] * 3) if axis == 0 else (shape[0], 3)
            target = self._take(outer * new * inner)
            table = self.tables[old, new]
            steps.append(ResizeStep(begin, *table, target, (outer, old, new, inner)))
            begin, shape[axis] = target, new
        return begin
