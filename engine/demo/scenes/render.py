"""From a painted canvas to a photograph: texture, shadow, haze, optics, noise, compression."""

import cv2
import numpy as np

from alps.engine.demo.scenes.canvas import (
    OVERSAMPLING,
    TEXTURES,
    Canvas,
    PaintTables,
)
from alps.engine.demo.scenes.texture import grain, octaves


def render(canvas: Canvas, rng: np.random.Generator, towards_sun: np.ndarray) -> np.ndarray:
    """The image of a canvas, (size, size, 3) uint8 RGB."""
    tables = canvas.tables()
    image = _flat_colours(canvas, tables)
    at_pixel = sample(canvas.paint)
    _apply_textures(canvas, tables, at_pixel, image, rng, towards_sun)
    _apply_shadow(canvas, tables, at_pixel, image, rng)
    return _photograph(image, rng)


def sample(fine: np.ndarray) -> np.ndarray:
    """The canvas's fine grid at the image's pixels: one cell near the middle of each."""
    return np.ascontiguousarray(
        fine[OVERSAMPLING // 2 :: OVERSAMPLING, OVERSAMPLING // 2 :: OVERSAMPLING]
    )


def _flat_colours(canvas: Canvas, tables: PaintTables) -> np.ndarray:
    """Every paint's colour, averaged over each pixel: (size, size, 3) float32."""
    packed = np.zeros((len(tables.paint_colour), 4), np.uint8)
    packed[:, :3] = tables.paint_colour
    # One 4-byte look-up a cell is several times faster than three of one byte.
    fine = packed.view(np.uint32)[:, 0].take(canvas.paint).view(np.uint8)
    fine = fine.reshape(*canvas.paint.shape, 4)
    small = cv2.resize(fine, (canvas.size, canvas.size), interpolation=cv2.INTER_AREA)
    return small[..., :3].astype(np.float32)


def _apply_textures(
    canvas: Canvas,
    tables: PaintTables,
    at_pixel: np.ndarray,
    image: np.ndarray,
    rng: np.random.Generator,
    towards_sun: np.ndarray,
) -> None:
    """Multiply brightness by noise and furrows, shift hue slowly; in place."""
    size, pixels = canvas.size, canvas.pixels
    texture = tables.paint_texture.take(at_pixel)
    kinds = list(TEXTURES.values())

    def strength(name: str) -> np.ndarray:
        return np.array([getattr(kind, name) for kind in kinds], np.float32).take(texture)

    middle = octaves(rng, size, max(2.0, pixels(1.6)), 2)
    coarse = octaves(rng, size, max(6.0, pixels(45.0)), 3)
    bright = strength("fine") * grain(rng, size, 1.3)
    bright += strength("middle") * middle
    bright += strength("coarse") * coarse
    lumps = strength("lumps")
    if lumps.any():
        bright += lumps * _sunlit_bumps(rng, size, max(3.0, pixels(6.0)), towards_sun)
    # Few paints have furrows, and a look-up of four numbers is dear: only their pixels are asked.
    lined = np.flatnonzero((tables.paint_furrows[:, 3] > 0).take(at_pixel))
    if len(lined):
        wave = tables.paint_furrows.take(at_pixel.ravel()[lined], axis=0)
        y, x = np.divmod(lined, size)
        angle = wave[:, 0] * x + wave[:, 1] * y + wave[:, 2] + 0.5 * middle.ravel()[lined]
        bright.ravel()[lined] += wave[:, 3] * np.sin(angle) * (1 + 0.35 * coarse.ravel()[lined])
    bright += 1
    image *= np.maximum(bright, 0.25)[..., None]
    hue = strength("tint") * octaves(rng, size, max(8.0, pixels(80.0)), 3)
    image += hue[..., None] * np.array([1.0, 0.35, -0.25], np.float32)


def _sunlit_bumps(
    rng: np.random.Generator, size: int, period: float, towards_sun: np.ndarray
) -> np.ndarray:
    """A canopy seen from above: slopes towards the sun are bright, (size, size) float32."""
    height = grain(rng, size, period)
    slope = towards_sun[0] * cv2.Sobel(height, -1, 1, 0) + towards_sun[1] * cv2.Sobel(
        height, -1, 0, 1
    )
    # Rising away from the sun means facing it.
    slope = -slope * np.float32(period / 20)
    return 0.7 * slope.astype(np.float32) + 0.5 * height


def _apply_shadow(
    canvas: Canvas,
    tables: PaintTables,
    at_pixel: np.ndarray,
    image: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Darken what lies in shadow, red more than blue: only the sky lights it; in place."""
    takes = np.array([kind.shaded for kind in TEXTURES.values()], np.float32)
    depth = rng.uniform(0.42, 0.72)
    share = canvas.shadow * np.float32(depth / 255)
    share *= takes.take(tables.paint_texture).take(at_pixel)
    image *= 1 - share[..., None] * np.array([1.0, 0.96, 0.86], np.float32)


def _photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Atmosphere, sensor and file: float32 radiance -> uint8 image."""
    blur = rng.uniform(0.35, 0.85)
    image = cv2.GaussianBlur(image, (0, 0), blur)
    haze = rng.uniform(0.0, 0.22) * rng.uniform()
    contrast = rng.uniform(0.85, 1.2)
    gain = rng.uniform(0.85, 1.15) * (1 + 0.035 * rng.standard_normal(3))
    saturation = rng.uniform(0.55, 1.05)
    # One affine map of colours: saturation about the grey, contrast about 118, haze, white balance.
    grey_of = np.tile(np.array([0.30, 0.59, 0.11]), (3, 1))
    mix = saturation * np.eye(3) + (1 - saturation) * grey_of
    mix = (1 - haze) * contrast * gain[:, None] * mix
    shift = 118 * (1 - contrast) + np.array([165, 175, 190]) * haze
    image = cv2.transform(image, np.hstack([mix, shift[:, None]]).astype(np.float32))
    noise = rng.uniform(0.5, 3.5)
    grey = rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(noise)
    image = image + grey[..., None]
    np.clip(image, 0, 255, out=image)
    done = image.astype(np.uint8)
    if rng.uniform() < 0.5:
        quality = int(rng.integers(60, 96))
        _, code = cv2.imencode(".jpg", done, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
        assert decoded is not None  # it was encoded a line above
        return decoded.astype(np.uint8, copy=False)
    return done
