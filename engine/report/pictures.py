"""Draws what the page shows and packs it into data URIs, each within a number of bytes."""

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from alps.engine.images.windows import Window
from alps.engine.labels.palette import palette
from alps.engine.report.rows.masks import MaskRow
from alps.engine.report.rows.regions import RegionRow
from alps.kernels.base.threads import spread
from alps.kernels.paint import paint, paint_order

TILE_SIDE = 640  # pixels embedded for a tile's longer side
THUMBNAIL_SIDE = 144  # of an exemplar's longer side, twice what is shown, for dense screens
QUALITIES = (82, 70, 55, 40, 25, 10)  # of WebP, tried until a picture is small enough
FILL = 0.5  # how much of a mask's colour covers the image
MASK_COLOURS = 60  # masks take turns; those that touch have an outline between them
CONTEXT = 0.35  # of an exemplar's box, shown on each side of it
LEAST_CROP = 96  # pixels of the source
LEAST_OUTLINE = 24  # pixels of the thumbnail that an outline encloses
PLAIN = 128  # grey where the source image is gone


def shown_size(window: Window, side: int = TILE_SIDE) -> tuple[int, int]:
    """(width, height) of a window's pictures: never enlarged."""
    scale = min(1.0, side / max(window.width, window.height))
    return max(1, round(window.width * scale)), max(1, round(window.height * scale))


def image_picture(rgb: np.ndarray, valid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a tile, (H, W, 3) uint8, to RGB, or to RGBA with pixels without data left out."""
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    if valid.all():
        return small
    return np.dstack([small, nearest(valid, size).astype(np.uint8) * 255])


def mask_map(masks: list[MaskRow], window: Window) -> np.ndarray:
    """Number of the mask on top of each pixel, (H, W) int32, -1 for none.

    Smaller ones lie on top. Raises ValueError for a damaged run-length code.
    """
    area = np.array([m.area for m in masks], np.int64)
    predicted_iou = np.array([m.predicted_iou for m in masks], np.float32)
    painted = paint(
        [m.counts for m in masks],
        np.arange(1, len(masks) + 1, dtype=np.uint32),
        paint_order(area, predicted_iou),
        (window.height, window.width),
        0,
    )
    return painted.astype(np.int32) - 1


def masks_picture(image: np.ndarray | None, numbers: np.ndarray) -> np.ndarray:
    """Colour each mask of ``numbers`` (H, W), -1 none, over the image and draw its outline.

    image: (H, W, 3 or 4) uint8 as shown, None for plain grey. Returns the same shape.
    """
    if image is None:
        image = np.full((*numbers.shape, 3), PLAIN, np.uint8)
    drawn = image.copy()
    under = numbers >= 0
    fill = palette(MASK_COLOURS)[numbers[under] % MASK_COLOURS].astype(np.float32)
    drawn[under, :3] = (1 - FILL) * image[under, :3] + FILL * fill
    edge = np.zeros(numbers.shape, bool)
    edge[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    edge[1:] |= numbers[1:] != numbers[:-1]
    drawn[edge, :3] = 0.45 * drawn[edge, :3] + 0.55 * 255
    return drawn


def labels_picture(labels: np.ndarray, colours: np.ndarray, unlabelled: int) -> np.ndarray:
    """Colour class ids (H, W) as RGBA, see-through where there is no class."""
    known = (labels != unlabelled) & (labels < len(colours))
    drawn = np.zeros((*labels.shape, 4), np.uint8)
    drawn[known, :3] = colours[labels[known]]
    drawn[known, 3] = 255
    return drawn


def exemplar_window(region: RegionRow, width: int, height: int) -> Window:
    """What to cut out of a source of ``width`` x ``height`` pixels to show a region with its
    surroundings.
    """
    side = max(region.width, region.height)
    side = max(LEAST_CROP, round(side * (1 + 2 * CONTEXT)))
    across, down = min(side, width), min(side, height)
    x = region.x + region.width // 2 - across // 2
    y = region.y + region.height // 2 - down // 2
    return Window(min(max(x, 0), width - across), min(max(y, 0), height - down), across, down)


def exemplar_picture(
    rgb: np.ndarray | None, mask: np.ndarray, side: int = THUMBNAIL_SIDE
) -> np.ndarray:
    """What ``mask`` (H, W) bool shows, outlined, (h, w, 3) uint8, the rest of it dimmed.

    rgb: (H, W, 3) uint8, None where the source is gone. side: of the picture, the longer one.
    """
    height, width = mask.shape
    scale = side / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    grow = cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA
    inside = cv2.resize(mask.astype(np.float32), size, interpolation=grow) >= 0.5
    if rgb is None:
        rgb = np.full((height, width, 3), PLAIN, np.uint8)
    drawn = cv2.resize(rgb, size, interpolation=grow)
    drawn[~inside] = (drawn[~inside] * 0.75).astype(np.uint8)
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    # Of a patch full of pinholes only the outlines that can be told apart.
    outlines = [line for line in outlines if cv2.contourArea(line) >= LEAST_OUTLINE] or outlines
    for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 2)):
        cv2.drawContours(drawn, outlines, -1, colour, thickness)
    return drawn


def nearest(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pick (H, W) values at (width, height) places without mixing them."""
    width, height = size
    rows = ((np.arange(height) + 0.5) * values.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * values.shape[1] / width).astype(int)
    return values[np.ix_(rows, columns)]


def photo_uri(pixels: np.ndarray, most_bytes: int) -> str:
    """Pack RGB or RGBA pixels as WebP, as well as ``most_bytes`` allow."""
    return _uri(photo(pixels, most_bytes))


def photo_uris(photos: Sequence[np.ndarray], most_bytes: int) -> list[str]:
    """``photo_uri`` of each, by all threads that kernels may use."""
    found = [""] * len(photos)

    def pack(first: int, last: int) -> None:
        for number in range(first, last):
            found[number] = photo_uri(photos[number], most_bytes)

    spread(pack, len(photos))
    return found


def photo(pixels: np.ndarray, most_bytes: int) -> bytes:
    """RGB or RGBA pixels as a WebP file, as good as ``most_bytes`` allow."""
    image = Image.fromarray(pixels)
    while True:
        for quality in QUALITIES:
            # Half the time of method 4, for 8 % more bytes.
            data = _webp(image, quality=quality, method=2)
            if len(data) <= most_bytes:
                return data
        image = image.resize(_halved(image), Image.Resampling.BOX)


def colours_uri(pixels: np.ndarray, most_bytes: int) -> str:
    """Pack RGBA pixels with every colour as it is; shrunk where they would take too much."""
    image = Image.fromarray(pixels)
    while len(data := _webp(image, lossless=True, exact=True, method=4)) > most_bytes:
        image = image.resize(_halved(image), Image.Resampling.NEAREST)
    return _uri(data)


def _halved(image: Image.Image) -> tuple[int, int]:
    return max(1, image.width // 2), max(1, image.height // 2)


def _webp(image: Image.Image, **options: int | bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    return buffer.getvalue()


def _uri(data: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")
