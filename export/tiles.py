"""Images that an export is calibrated and verified on."""

import numpy as np
from torch import Tensor

from alps.engine.base.errors import SourceError
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.images.raster import RasterReader
from alps.engine.images.sources import find_sources
from alps.engine.images.windows import plan_windows
from alps.engine.masks.crops import crop_kind, network_pixels
from alps.engine.sam.config import NetworkConfig

_SMALLEST_SCENE = 64


def read_tiles(src: str | None, count: int, side: int, overlap: int, seed: int) -> list[np.ndarray]:
    """Up to ``count`` tiles (H, W, 3) uint8 RGB, from as many images as there are.

    src: as SRC of ``alps label``; None: generated scenes. side, overlap: of windows, in pixels.

    Raises:
        SourceError: no image can be read at ``src``.
    """
    if src is None:
        scene = SceneSettings(size=max(side, _SMALLEST_SCENE))
        return [make_scene(seed + index, scene).image for index in range(count)]
    sources = find_sources(src)
    every = max(1, len(sources) // count)
    tiles: list[np.ndarray] = []
    reasons: list[str] = []
    by_source = [_windows(str(source.path), side, overlap, reasons) for source in sources[::every]]
    depth = max((len(windows) for windows in by_source), default=0)
    for rank in range(depth):  # the first window of each image, then the second, …
        for windows in by_source:
            if rank < len(windows) and len(tiles) < count:
                path, window = windows[rank]
                with RasterReader(path) as reader:
                    tile = reader.read(window)
                if tile.valid.any():
                    tiles.append(np.ascontiguousarray(tile.rgb))
    if not tiles:
        reason = reasons[0] if reasons else "no window has a valid pixel"
        raise SourceError(f"none of the images at {src} can be used: {reason}")
    return tiles


def pixels_of(image: np.ndarray, config: NetworkConfig) -> Tensor:
    """A tile as the network wants it, (1, 3, S, S) normalised."""
    whole = crop_kind(config)(0, 0, image.shape[1], image.shape[0], 0)
    return network_pixels(image, whole, config.image_size)[None]


def _windows(path: str, side: int, overlap: int, reasons: list[str]) -> list:
    try:
        with RasterReader(path) as reader:
            return [(path, w) for w in plan_windows(reader.width, reader.height, side, overlap)]
    except SourceError as error:
        reasons.append(str(error))
        return []
