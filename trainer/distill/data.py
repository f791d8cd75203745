"""Windows of the archive as the network sees them, in an order that the seed alone decides.

Nothing here keeps a state between steps: which windows a step sees, and how they are flipped and
turned, follows from the seed and the number of the draw. So a run that goes on at step n, and one
that is shared among processes, sees what an undisturbed one would.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from alps.engine.base.errors import SourceError
from alps.engine.images.raster import RasterReader
from alps.engine.images.reading import Reading
from alps.engine.masks.crops import Crop, network_pixels
from alps.engine.run_folder.plan import PlannedTile, check_size
from alps.engine.sam.config import NetworkConfig

# What a generator's seed is made of besides the user's: no two draws may share one.
ORDER, ORIENTATION, HELD_OUT = 0, 1, 2
ORIENTATIONS = 8  # upright or flipped, turned by 0 to 3 quarters
OPEN_FILES = 16  # a thread; a scene of 16 bits is sampled for its stretch whenever it is opened
THREADS = 2
# Below this many images single windows are held out, from it on whole images, whose windows overlap
# and resemble each other.
IMAGES_TO_HOLD_OUT = 10


@dataclass(frozen=True)
class Split:
    """Rows of the plan."""

    train: np.ndarray  # (n,) int64
    held_out: np.ndarray  # (m,) int64, in random order
    by: str  # "image" or "window": what was held out as a whole


@dataclass(frozen=True)
class Draw:
    """One window of a batch."""

    index: int  # among the windows of training
    orientation: int  # 0…7


@dataclass
class NetworkWindow:
    """A window at the network's input."""

    rgb: np.ndarray  # (H, W, 3) uint8, as in the image
    valid: np.ndarray  # (H, W) bool
    pixels: Tensor  # (3, S, S) float32, normalised and padded
    weight: Tensor  # (h, w) float32, share of each cell of the embedding that shows something
    reason: str  # why it could not be read, and then shows nothing; empty otherwise


def split_windows(plan: pa.Table, share: float, seed: int) -> Split:
    """Choose the windows that the student never sees.

    Raises:
        SourceError: too few windows to keep one out and one to learn from.
    """
    good = np.flatnonzero(np.array(plan.column("reason").to_pylist()) == "")
    if len(good) < 2:
        raise SourceError(
            f"{len(good)} windows of SRC can be opened, but at least 2 are needed: one to learn "
            "from, one to measure agreement on; give more images, or a smaller --tile"
        )
    images = plan.column("source_index").to_numpy()[good]
    by_image = len(np.unique(images)) >= IMAGES_TO_HOLD_OUT
    groups = np.unique(images) if by_image else good
    of_group = images if by_image else good
    groups = np.random.default_rng([seed, HELD_OUT]).permutation(groups)
    count = min(max(1, round(share * len(groups))), len(groups) - 1)
    held_out = np.isin(of_group, groups[:count])
    order = np.random.default_rng([seed, HELD_OUT]).permutation(int(held_out.sum()))
    return Split(good[~held_out], good[held_out][order], "image" if by_image else "window")


class Draws:
    """The endless sequence of windows, epoch after epoch, each in its own order."""

    def __init__(self, windows: int, seed: int, *, oriented: bool) -> None:
        """``oriented``: flip and turn; else every window stays upright."""
        self.windows, self.seed = windows, seed
        self._oriented = oriented
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def order(self, epoch: int) -> np.ndarray:
        """All windows in the order of an epoch, (n,) int64."""
        if epoch != self._epoch:
            generator = np.random.default_rng([self.seed, ORDER, epoch])
            self._epoch, self._order = epoch, generator.permutation(self.windows)
        return self._order

    def batch(self, step: int, size: int) -> list[Draw]:
        """The windows of a step."""
        return [self._draw(position) for position in range(step * size, (step + 1) * size)]

    def _draw(self, position: int) -> Draw:
        epoch, place = divmod(position, self.windows)
        orientation = 0
        if self._oriented:
            generator = np.random.default_rng([self.seed, ORIENTATION, position])
            orientation = int(generator.integers(ORIENTATIONS))
        return Draw(int(self.order(epoch)[place]), orientation)


class WindowReader:
    """Reads windows of a plan in background threads. Use it as a context manager."""

    def __init__(self, plan: pa.Table, reading: Reading | None, config: NetworkConfig) -> None:
        self._plan, self._reading, self._config = plan, reading, config
        self._local = threading.local()
        self._opened: list[OrderedDict[str, RasterReader]] = []

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="alps-read")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for readers in self._opened:
            for reader in readers.values():
                reader.close()

    def read(self, rows: list[int], orientations: list[int]) -> list[Future[NetworkWindow]]:
        """Begin to read windows, given as rows of the plan."""
        return [
            self._pool.submit(self._read, row, orientation)
            for row, orientation in zip(rows, orientations, strict=True)
        ]

    def upright(self, rows: np.ndarray) -> Iterator[NetworkWindow]:
        """Windows one after the other as they are, each read while the one before is used."""
        waiting: list[Future[NetworkWindow]] = []
        for row in rows.tolist():
            waiting += self.read([row], [0])
            if len(waiting) > THREADS:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()

    def _read(self, row: int, orientation: int) -> NetworkWindow:
        planned = PlannedTile(**self._plan.slice(row, 1).to_pylist()[0])
        try:
            tile, reason = self._reader(planned).read(planned.window), ""
            rgb, valid = turned(tile.rgb, orientation), turned(tile.valid, orientation)
        except SourceError as error:
            reason = str(error)
            shape = (planned.height, planned.width)
            rgb, valid = np.zeros((*shape, 3), np.uint8), np.zeros(shape, bool)
        whole = Crop(0, 0, rgb.shape[1], rgb.shape[0], 0)
        pixels = network_pixels(rgb, whole, self._config.image_size)
        return NetworkWindow(rgb, valid, pixels, cell_weights(valid, self._config), reason)

    def _reader(self, planned: PlannedTile) -> RasterReader:
        """This thread's open file, of which it keeps the last few."""
        if not hasattr(self._local, "readers"):
            self._local.readers = OrderedDict()
            self._opened.append(self._local.readers)
        readers = self._local.readers
        if planned.path not in readers:
            if len(readers) == OPEN_FILES:
                readers.popitem(last=False)[1].close()
            reader = RasterReader(planned.path, self._reading)
            try:
                check_size(reader, planned)
            except SourceError:
                reader.close()
                raise
            readers[planned.path] = reader
        readers.move_to_end(planned.path)
        return readers[planned.path]


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (H, W, …) flipped where ``orientation`` is odd, then turned by its half quarters."""
    if orientation & 1:
        image = image[:, ::-1]
    return np.rot90(image, orientation >> 1)


def cell_weights(valid: np.ndarray, config: NetworkConfig) -> Tensor:
    """Share of each cell of the embedding under valid pixels of a window: (h, w) float32.

    valid: (H, W) bool. What the network pads below and to the right counts as not valid.
    """
    height, width = valid.shape
    rows, columns = Crop(0, 0, width, height, 0).input_size(config.image_size)
    share = torch.from_numpy(np.ascontiguousarray(valid)).float()[None, None]
    share = F.interpolate(share, size=(rows, columns), mode="area")
    size = config.image_size
    share = F.pad(share, (0, size - columns, 0, size - rows))
    return F.avg_pool2d(share, config.patch_size)[0, 0]
