"""Room that a thread uses again and again: memory asked for anew is paged in anew, at some cost."""

import math
import threading

import torch
from torch import Tensor


class Rooms(threading.local):
    """Of each thread its own, by name; as large as the largest asked for."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def of(self, name: str, *shape: int) -> Tensor:
        """float32 on the CPU, not filled; what had it before under this name loses it."""
        size = math.prod(shape)
        held = self._held.get(name)
        if held is None or len(held) < size:
            held = self._held[name] = torch.empty(size)
        return held[:size].view(shape)
