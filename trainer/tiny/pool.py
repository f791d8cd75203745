"""The training pool of `tiny`: images, nested masks, and the frozen encoder's tokens.

Generated scenes bring their exact parts and objects; real images bring the regions that they make
of themselves. Where an image has labels, the connected pieces of its classes take the place of the
coarsest regions, in some of its crops only: drawn outlines are coarse. Everything lies in flat
arrays on disk (``.npy``, memory-mapped), so a pool larger than memory works, and building one goes
on where it stopped.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from alps.engine.errors import SettingsError, SourceError
from alps.engine.progress import Progress
from alps.engine.raster import RasterReader
from alps.engine.sam import Sam, SamConfig
from alps.engine.scenes import SceneSettings, make_scene
from alps.engine.scenes.labels import components
from alps.engine.sources import Source
from alps.engine.windows import Window
from alps.trainer.tiny.recipe import PoolSettings
from alps.trainer.tiny.regions import region_hierarchy

LEVELS = 3


@dataclass
class Pool:
    """Memory-mapped arrays of N training images."""

    images: np.ndarray  # (N, S, S, 3) uint8 RGB
    levels: np.ndarray  # (N, 3, l, l) uint16 region ids, fine to coarse, 0 none; l: level_side
    tokens: np.ndarray  # (N, h·w, width) float16, before the encoder's last block's mean is removed

    def __len__(self) -> int:
        return len(self.images)


def level_side(config: SamConfig) -> int:
    """Pixels a side of kept label maps: twice the logits'."""
    return 2 * config.low_resolution_size


def build_pool(
    folder: Path,
    sources: list[Source],
    model: Sam,
    settings: PoolSettings,
    labels: Sequence[Source] = (),
) -> Pool:
    """Fill ``folder`` with crops of ``sources`` and with scenes; go on where it stopped.

    ``labels`` are index images, 255 unknown, or masks of 0 and 255; they belong to the sources that
    have their names, whatever the ending.
    """
    total = settings.scenes + settings.crops
    size, grid = model.config.image_size, model.config.embedding_size
    side = level_side(model.config)
    shapes = {
        "images": ((total, size, size, 3), np.uint8),
        "levels": ((total, LEVELS, side, side), np.uint16),
        "tokens": ((total, grid * grid, model.config.encoder_width), np.float16),
    }
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: _open_array(folder / f"{name}.npy", shape, dtype)
        for name, (shape, dtype) in shapes.items()
    }
    pool = Pool(**arrays)
    made = folder / "made.json"
    done = _items_made(made, settings)
    cropper = Cropper(sources, size, settings, labels)
    with Progress(total - done, "images", "building the pool") as progress:
        for index in range(done, total):
            if index < settings.crops:
                image, labelled = cropper.crop(index)
                tokens, features = _encode(model, image)
                levels = list(region_hierarchy(image, features, settings.regions))
                if labelled is not None:
                    levels[-1] = np.where(labelled > 0, labelled + levels[-1].max(), levels[-1])
            else:
                image, levels = _scene(index, size, settings)
                tokens, _ = _encode(model, image)
            pool.images[index], pool.tokens[index] = image, tokens
            pool.levels[index] = [
                cv2.resize(level.astype(np.uint16), (side, side), interpolation=cv2.INTER_NEAREST)
                for level in levels
            ]
            progress.advance(1)
            if index % 50 == 49 or index == total - 1:
                for array in arrays.values():
                    array.flush()
                made.write_text(json.dumps({"items": index + 1, "settings": asdict(settings)}))
    return pool


def _items_made(made: Path, settings: PoolSettings) -> int:
    """How much of the pool there is; it must have been begun with these settings."""
    if not made.exists():
        return 0
    state = json.loads(made.read_text())
    wanted = json.loads(json.dumps(asdict(settings)))
    if state["settings"] != wanted:
        raise SettingsError(
            f"{made.parent} was begun with other pool settings; remove it, or give another OUT"
        )
    return state["items"]


def _open_array(path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
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


class Cropper:
    """Square pieces of real images, flipped and turned, scaled to the input's size."""

    def __init__(
        self,
        sources: list[Source],
        size: int,
        settings: PoolSettings,
        labels: Sequence[Source] = (),
    ) -> None:
        self.sources, self.size, self.settings = sources, size, settings
        self.labels = {Path(source.name).stem: source for source in labels}
        sides = []
        for source in sources:
            with RasterReader(source.path) as reader:
                sides.append(np.sqrt(reader.width * reader.height))
        # By their sides, so that large images do not drown small ones.
        self.weights = np.array(sides) / np.sum(sides)

    def crop(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Crop number ``index``: (S, S, 3) uint8, and (S, S) int32 pieces of its classes, 0 none.

        The pieces are None where the image has no labels, and in some crops of those that have.
        """
        settings, size = self.settings, self.size
        rng = np.random.default_rng([settings.seed, index])
        for _ in range(20):
            source = self.sources[rng.choice(len(self.sources), p=self.weights)]
            with RasterReader(source.path) as reader:
                scale = rng.uniform(*settings.crop_scale)
                side = int(min(size * scale, reader.width, reader.height))
                x, y = rng.integers(reader.width - side + 1), rng.integers(reader.height - side + 1)
                window = Window(int(x), int(y), side, side)
                tile = reader.read(window)
            if tile.valid.mean() > 0.9:
                break
        turns, flip = int(rng.integers(4)), bool(rng.random() < 0.5)
        how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
        image = _placed(tile.rgb, turns, flip, size, how)
        labels = self.labels.get(Path(source.name).stem)
        if labels is None or rng.random() >= settings.labelled:
            return image, None
        with RasterReader(labels.path) as reader:
            classes = reader.read(window).rgb[..., 0]
        classes = _placed(classes, turns, flip, size, cv2.INTER_NEAREST)
        known = classes == 255 if set(np.unique(classes)) <= {0, 255} else classes < 255
        return image, np.where(known, components(classes), 0)


def _placed(array: np.ndarray, turns: int, flip: bool, size: int, how: int) -> np.ndarray:
    """A square array turned, scaled to ``size``, and flipped from left to right."""
    turned = cv2.resize(np.rot90(array, turns), (size, size), interpolation=how)
    return np.ascontiguousarray(turned[:, ::-1] if flip else turned)


def _encode(model: Sam, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (h·w, width) float16 and the image's first 16 principal components (h, w, 16)."""
    pixels = model.normalise(torch.from_numpy(image).permute(2, 0, 1)[None])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        grid = model.image_encoder.tokens(pixels)[0].float()
    tokens = grid.flatten(0, 1)
    centred = tokens - tokens.mean(0)
    _, directions = torch.linalg.eigh(centred.T @ centred)  # ascending
    components = centred @ directions[:, -16:].flip(1)
    components = components / components[:, 0].std()
    return tokens.numpy().astype(np.float16), components.unflatten(0, grid.shape[:2]).numpy()


@dataclass
class Prompts:
    """Points on B images with all true masks at each."""

    index: np.ndarray  # (B,) rows of the pool
    xy: Tensor  # (B, N, 2) float32, input pixels
    truth: Tensor  # (B·N, 3, l/2, l/2) float32 share of each pixel
    valid: Tensor  # (B·N, 3) bool


def draw_prompts(
    levels: np.ndarray, rng: np.random.Generator, points: int, min_pixels: int, max_share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on one image, half uniform over pixels, half over regions, and the masks there.

    Args:
        levels: (3, s, s) region ids.

    Returns:
        xy (points, 2) pixels of ``levels``, truth (points, 3, s/2, s/2) float32, valid (points, 3)
    """
    count, side, _ = levels.shape
    xy = rng.integers(0, side, (points, 2))
    for row in range(points // 2):
        level = levels[rng.integers(count)]
        ids = np.unique(level)
        ys, xs = np.nonzero(level == ids[rng.integers(len(ids))])
        pick = rng.integers(len(ys))
        xy[row] = xs[pick], ys[pick]
    at_points = levels[:, xy[:, 1], xy[:, 0]].T  # (points, 3)
    masks = (levels[None] == at_points[:, :, None, None]) & (at_points > 0)[:, :, None, None]
    area = masks.sum((2, 3))
    valid = (area >= min_pixels) & (area <= max_share * side * side)
    valid[:, 1:] &= area[:, 1:] != area[:, :-1]  # nested: the same area is the same mask
    covered = masks.view(np.uint8)
    quarters = (covered[..., y::2, x::2] for y in (0, 1) for x in (0, 1))
    truth = np.float32(0.25) * sum(quarters)
    return xy, truth, valid


def batches(
    pool: Pool,
    *,
    seed: int,
    start: int,
    images: int,
    points: int,
    min_pixels: int,
    max_share: float,
    size: int,
) -> Iterator[Prompts]:
    """Endless batches; batch number ``start`` is the same however the run got there."""
    for step in range(start, 2**31):
        rng = np.random.default_rng([seed, step])
        index = np.sort(rng.choice(len(pool), images, replace=False))
        drawn = [
            draw_prompts(np.asarray(pool.levels[i]), rng, points, min_pixels, max_share)
            for i in index
        ]
        xy = np.stack([d[0] for d in drawn]).astype(np.float32)
        yield Prompts(
            index=index,
            xy=torch.from_numpy((xy + 0.5) * (size / pool.levels.shape[-1]) - 0.5),
            truth=torch.from_numpy(np.concatenate([d[1] for d in drawn])),
            valid=torch.from_numpy(np.concatenate([d[2] for d in drawn])),
        )
