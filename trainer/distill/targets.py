"""The teacher's embeddings: computed when they are needed, or once and kept in OUT.

What is kept is float16, in files of a few windows that appear whole or not at all. Windows that
belong into a file are always encoded together, whoever asks, so that a cache that was filled in
several goes, or by several processes, holds the same bytes.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alps.engine.base.atomic import whole
from alps.engine.base.errors import ModelError, RunFolderError
from alps.engine.base.progress import Progress
from alps.engine.base.records import BadRecordError
from alps.engine.base.zips import read_arrays
from alps.engine.sam.model import SamLike
from alps.trainer.distill.data import (
    Draw,
    Draws,
    NetworkWindow,
    WindowReader,
)
from alps.trainer.processes import Processes

WINDOWS_A_FILE = 8
# Images that the teacher sees at once: ViT-H's relative positions take a GB an image and layer.
TEACHER_PASS = 4


@dataclass
class Batch:
    """What a step learns from."""

    pixels: Tensor  # (B, 3, S, S) float32
    target: Tensor  # (B, C, h, w) float32, the teacher's embedding
    weight: Tensor  # (B, h, w) float32, share of each cell that shows something
    unread: list[str]  # reasons of windows that could not be read


class Targets:
    """Windows of training with the teacher's embeddings beside them."""

    def __init__(
        self,
        teacher: SamLike,
        reader: WindowReader,
        rows: np.ndarray,
        autocast: Callable[[], torch.autocast],
    ) -> None:
        """Prepare to look windows up.

        Args:
            teacher: on the device where training happens.
            reader: open.
            rows: (n,) rows of the plan, the windows of training.
            autocast: the precision that the teacher computes in.
        """
        self._teacher, self._reader, self._rows = teacher.eval(), reader, rows
        self._autocast = autocast
        self._slots = np.full(len(rows), -1)
        self._folder = Path()

    def fill_cache(self, folder: Path, draws: Draws, used: int, gb: float, group: Processes) -> int:
        """Keep the embeddings of the first windows to be drawn; returns how many are kept.

        Args:
            folder: for the files.
            draws: the order of the first epoch decides which windows are kept.
            used: windows drawn in all of training.
            gb: how much may be kept, in GB of 10^9 bytes.
            group: the processes share the work.
        """
        config = self._teacher.config
        each = 2 * config.embedding_channels * config.embedding_size**2
        count = min(int(gb * 1e9) // each, used, len(self._rows))
        kept = draws.order(0)[:count].copy()
        self._slots[kept], self._folder = np.arange(count), folder
        folder.mkdir(exist_ok=True)
        files = -(-count // WINDOWS_A_FILE)
        missing = [
            number
            for number in range(files)[group.rank :: group.size]
            if not self._file(number).exists()
        ]
        with ExitStack() as stack:
            done: Callable[[], None] = _nothing
            if group.is_first and missing:
                title = "files", "keeping the teacher's embeddings"
                done = stack.enter_context(Progress(len(missing), *title)).advance
            self._fill(missing, kept, done)
        group.wait()
        return count

    def batches(self, steps: Iterator[list[Draw]]) -> Generator[Batch, None, None]:
        """A batch for each list of draws, the next one read while one is used."""
        waiting = self._begin(next(steps, []))
        while waiting:
            following = self._begin(next(steps, []))
            yield self._finish(*waiting)
            waiting = following

    def _begin(self, draws: list[Draw]) -> tuple[list[Draw], list[Future[NetworkWindow]]] | None:
        if not draws:
            return None
        rows = [int(self._rows[draw.index]) for draw in draws]
        return draws, self._reader.read(rows, [draw.orientation for draw in draws])

    def _finish(self, draws: list[Draw], reads: list[Future[NetworkWindow]]) -> Batch:
        windows = [read.result() for read in reads]
        device = self._teacher.device
        pixels = torch.stack([window.pixels for window in windows]).to(device)
        slots = [int(self._slots[draw.index]) for draw in draws]
        asked = [i for i, slot in enumerate(slots) if slot < 0]
        config = self._teacher.config
        side = config.embedding_size
        target = torch.zeros(len(windows), config.embedding_channels, side, side, device=device)
        if asked:
            target[asked] = self._encode(pixels[asked])
        for i, slot in enumerate(slots):
            if slot >= 0:
                target[i] = torch.from_numpy(self._kept(slot)).to(device, torch.float32)
        return Batch(
            pixels,
            target,
            torch.stack([window.weight for window in windows]).to(device),
            [window.reason for window in windows if window.reason],
        )

    @torch.inference_mode()
    def _encode(self, pixels: Tensor) -> Tensor:
        with self._autocast():
            parts = [self._teacher.encode(part) for part in pixels.split(TEACHER_PASS)]
        return torch.cat(parts).float()

    def _fill(self, files: list[int], kept: np.ndarray, done: Callable[[], None]) -> None:
        for number in files:
            chosen = kept[number * WINDOWS_A_FILE : (number + 1) * WINDOWS_A_FILE]
            reads = self._reader.read(self._rows[chosen].tolist(), [0] * len(chosen))
            pixels = torch.stack([read.result().pixels for read in reads])
            embeddings = self._encode(pixels.to(self._teacher.device)).half().cpu().numpy()
            if not np.isfinite(embeddings).all():
                raise ModelError(
                    "the teacher's embeddings are not finite, or too large for float16; leave out "
                    "--cache-gb, or check the checkpoint"
                )
            with whole(self._file(number)) as part, open(part, "wb") as file:
                # An entry a window: each has a checksum, which reading it compares.
                np.savez(file, **{str(place): one for place, one in enumerate(embeddings)})
            done()

    def _file(self, number: int) -> Path:
        return self._folder / f"embeddings-{number:06d}.npz"

    def _kept(self, slot: int) -> np.ndarray:
        number, place = divmod(slot, WINDOWS_A_FILE)
        path, config = self._file(number), self._teacher.config
        side = config.embedding_size
        try:
            found = read_arrays(path, [str(place)])[str(place)]
            if (found.shape, found.dtype) != ((config.embedding_channels, side, side), np.float16):
                raise BadRecordError(f"it holds {found.dtype} {found.shape}")
        except (OSError, BadRecordError) as error:
            raise RunFolderError(
                f"{path} is damaged: {error}; remove it and give the same command again, it is "
                "made anew"
            ) from error
        return found.copy()


def _nothing() -> None:
    pass
