"""The training pool of `tiny`: images and their nested masks.

Generated scenes bring their exact parts and objects; real images bring the regions that they make
of themselves. Where an image has labels, the connected pieces of its classes take the place of the
coarsest regions, in some of its crops only: drawn outlines are coarse. Everything lies in flat
arrays on disk (``.npy``, memory-mapped), so a pool larger than memory works, and building one goes
on where it stopped. An item depends on its number alone, so any number of processes builds the
same pool.
"""

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.base.progress import Progress
from alps.engine.base.records import Count, read_record
from alps.engine.base.stopping import children_without_ctrl_c
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.demo.scenes.labels import components
from alps.engine.images.sources import Source
from alps.engine.sam import Sam, SamConfig
from alps.trainer.tiny.crops import Cropper
from alps.trainer.tiny.recipe import PoolSettings
from alps.trainer.tiny.regions import region_hierarchy

LEVELS = 3
_FEATURES = 16  # principal components of the backbone's tokens that regions are told apart by
_KEPT_EVERY = 50  # items


@dataclass
class Pool:
    """Memory-mapped arrays of N training images."""

    images: np.memmap  # (N, S, S, 3) uint8 RGB
    levels: np.memmap  # (N, 3, l, l) uint16 region ids, fine to coarse, 0 none; l: level_side

    def __len__(self) -> int:
        return len(self.images)

    def some_images(self, count: int) -> np.ndarray:
        """At most ``count`` images (n, S, S, 3), evenly from the whole pool."""
        rows = np.linspace(0, len(self) - 1, min(len(self), count)).astype(int)
        return np.asarray(self.images[rows])


def level_side(config: SamConfig) -> int:
    """Pixels a side of kept label maps: twice the logits'."""
    return 2 * config.low_resolution_size


@dataclass(frozen=True)
class PoolMaker:
    """Makes the items of a pool.

    Attributes:
        sources: real images.
        model: whose encoder tells regions apart.
        settings: what is made, and how much of it.
        labels: as for ``Cropper``.
    """

    sources: list[Source]
    model: Sam
    settings: PoolSettings
    labels: Sequence[Source] = ()

    def begin(self) -> Callable[[int], tuple[np.ndarray, list[np.ndarray]]]:
        """A function that makes item number ``index``: its image and its levels, full size."""
        size = self.model.config.image_size
        cropper = Cropper(self.sources, size, self.settings, self.labels)

        def make(index: int) -> tuple[np.ndarray, list[np.ndarray]]:
            if index >= self.settings.crops:
                return _scene(index, size, self.settings)
            image, labelled = cropper.crop(index)
            levels = list(
                region_hierarchy(image, _features(self.model, image), self.settings.regions)
            )
            if labelled is not None:
                levels[-1] = np.where(labelled > 0, labelled + levels[-1].max(), levels[-1])
            return image, levels

        return make


def build_pool(folder: Path, maker: PoolMaker, workers: int = 1) -> Pool:
    """Fill ``folder`` with crops of real images and with scenes; go on where it stopped.

    Args:
        folder: of the pool.
        maker: of its items.
        workers: processes that make items.

    Raises:
        SettingsError: the pool in ``folder`` was begun with other settings.
        SourceError: an image cannot be read, or the pool is of another size.
    """
    settings, config = maker.settings, maker.model.config
    total, size, side = settings.scenes + settings.crops, config.image_size, level_side(config)
    folder.mkdir(parents=True, exist_ok=True)
    pool = _open_pool(folder, total, size, side)
    made = folder / "made.json"
    done = _items_made(made, settings)
    with (
        _items(folder, pool, maker, range(done, total), workers) as items,
        Progress(total - done, "images", "building the pool") as progress,
    ):
        for index in items:
            progress.advance(1)
            if index % _KEPT_EVERY == _KEPT_EVERY - 1 or index == total - 1:
                for array in (pool.images, pool.levels):
                    array.flush()
                write_text(made, json.dumps({"items": index + 1, "settings": asdict(settings)}))
    return pool


@contextmanager
def _items(
    folder: Path, pool: Pool, maker: PoolMaker, indices: range, workers: int
) -> Iterator[Iterator[int]]:
    """Numbers of items, in order, as they have come to lie in the pool."""
    if workers <= 1 or not indices:
        make = maker.begin()
        yield (_put(pool, index, *make(index)) for index in indices)
        return
    # Not forked: PyTorch's threads do not live on in a copy of their process.
    context = multiprocessing.get_context("spawn")
    arguments = (folder, pool.images.shape, pool.levels.shape, maker)
    executor = ProcessPoolExecutor(workers, context, _begin_working, arguments)
    try:
        with children_without_ctrl_c():  # started by what is submitted first
            made = executor.map(_work, indices, chunksize=4)
        yield made
    finally:
        executor.shutdown(cancel_futures=True)


_at_work: tuple[Pool, Callable[[int], tuple[np.ndarray, list[np.ndarray]]]]


def _begin_working(
    folder: Path, images: tuple[int, ...], levels: tuple[int, ...], maker: PoolMaker
) -> None:
    """What a worker does first."""
    global _at_work
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _at_work = _open_pool(folder, images[0], images[1], levels[-1]), maker.begin()


def _work(index: int) -> int:
    pool, make = _at_work
    return _put(pool, index, *make(index))


def _put(pool: Pool, index: int, image: np.ndarray, levels: list[np.ndarray]) -> int:
    side = pool.levels.shape[-1]
    pool.images[index] = image
    pool.levels[index] = [
        cv2.resize(level.astype(np.uint16), (side, side), interpolation=cv2.INTER_NEAREST)
        for level in levels
    ]
    return index


@dataclass(frozen=True)
class PoolState:
    """How far a pool is made."""

    items: Count
    settings: dict[str, Any]


def _items_made(made: Path, settings: PoolSettings) -> int:
    """How much of the pool there is; it must have been begun with these settings."""
    if not made.exists():
        return 0
    state = read_record(made, PoolState, SourceError, f"remove the folder {made.parent}")
    wanted = json.loads(json.dumps(asdict(settings)))
    if state.settings != wanted:
        raise SettingsError(
            f"{made.parent} was begun with other pool settings; remove it, or give another OUT"
        )
    return state.items


def _open_pool(folder: Path, total: int, size: int, side: int) -> Pool:
    return Pool(
        images=_open_array(folder / "images.npy", (total, size, size, 3), np.uint8),
        levels=_open_array(folder / "levels.npy", (total, LEVELS, side, side), np.uint16),
    )


def _open_array(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    if path.exists():
        array = np.lib.format.open_memmap(path, mode="r+")
        if array.shape != shape:
            raise SourceError(f"{path} is of another pool: {array.shape}, not {shape}; remove it")
        return array
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _scene(index: int, size: int, settings: PoolSettings) -> tuple[np.ndarray, list[np.ndarray]]:
    """A generated scene; a house is known as its roof, as the house, and as the row of houses."""
    rng = np.random.default_rng([settings.seed, index])
    low, high = np.log(settings.scene_metres)
    metres = float(np.exp(rng.uniform(low, high)))
    seed = int(rng.integers(2**31))
    scene = make_scene(seed, SceneSettings(size=size, metres_per_pixel=metres))
    return scene.image, [scene.parts, scene.segments, components(scene.classes)]


def _features(model: Sam, image: np.ndarray) -> np.ndarray:
    """An image's first principal components in the encoder's tokens, (h, w, 16)."""
    pixels = model.normalise(torch.from_numpy(image).permute(2, 0, 1)[None])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        grid = model.image_encoder.tokens(pixels)[0].float()
    tokens = grid.flatten(0, 1)
    centred = tokens - tokens.mean(0)
    _, directions = torch.linalg.eigh(centred.T @ centred)  # ascending
    components = centred @ directions[:, -_FEATURES:].flip(1)
    components = components / components[:, 0].std()
    return components.unflatten(0, grid.shape[:2]).numpy()
