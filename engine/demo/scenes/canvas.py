"""What a scene is drawn on: a map of paints, and what each paint stands for.

Objects are polygons in metres, x to the right and y down, (0, 0) the image's upper left corner.
They are painted in order, later over earlier, on a grid twice as fine as the image. A *paint* has
a colour and a texture and belongs to a *part* (a roof face), which belongs to a *segment* (a
house), which has a class. Details without a label of their own (a chimney, a lane marking) are
paints of their host's part, so the labels stay exact whatever is drawn for looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

OVERSAMPLING = 2
_FRACTION_BITS = 4  # cv2 takes polygon corners as fixed-point numbers


@dataclass(frozen=True)
class Texture:
    """Relative brightness of the noise on a surface, by scale, and how it takes a shadow."""

    fine: float = 0.03  # about a pixel
    middle: float = 0.04  # about a metre
    coarse: float = 0.05  # tens of metres
    tint: float = 0.0  # grey levels of slow change in hue
    lumps: float = 0.0  # sunlit bumps as wide as tree crowns
    shaded: bool = True  # False for what stands above the ground, such as roofs


TEXTURES: dict[str, Texture] = {
    "crop": Texture(0.05, 0.04, 0.10, 7.0),
    "grass": Texture(0.05, 0.07, 0.12, 8.0),
    "lawn": Texture(0.03, 0.04, 0.05, 3.0),
    "soil": Texture(0.04, 0.05, 0.10, 5.0),
    "sand": Texture(0.02, 0.03, 0.06, 4.0),
    "asphalt": Texture(0.025, 0.03, 0.06, 0.0),
    "concrete": Texture(0.03, 0.05, 0.10, 3.0),
    "roof": Texture(0.03, 0.025, 0.0, 0.0, shaded=False),
    "gravel": Texture(0.03, 0.06, 0.06, 2.0, shaded=False),
    "crown": Texture(0.10, 0.15, 0.06, 4.0, shaded=False),
    "understorey": Texture(0.10, 0.20, 0.10, 4.0, shaded=False),
    "canopy": Texture(0.10, 0.05, 0.10, 6.0, lumps=0.24, shaded=False),
    "water": Texture(0.012, 0.02, 0.07, 4.0, shaded=False),
    "pool": Texture(0.03, 0.05, 0.0, 0.0),
    "metal": Texture(0.01, 0.0, 0.0, 0.0, shaded=False),
}
TEXTURE_NAMES = tuple(TEXTURES)


@dataclass(frozen=True)
class Furrows:
    """Parallel lines on a surface: direction in radians, period in metres, relative strength."""

    angle: float
    period: float
    strength: float


Polygons = np.ndarray | Sequence[np.ndarray]  # (n, k, 2) or n times (k, 2), metres


class Canvas:
    """A square of ground under construction; see the module's text for the terms.

    ``paint`` is (2 size, 2 size) int32, ``shadow`` (size, size) uint8 with 255 in full shadow.
    """

    def __init__(self, size: int, metres_per_pixel: float) -> None:
        self.size = size
        self.metres_per_pixel = metres_per_pixel
        self.extent = size * metres_per_pixel
        self.paint = np.zeros((OVERSAMPLING * size, OVERSAMPLING * size), np.int32)
        self.shadow = np.zeros((size, size), np.uint8)
        self._segment_class: list[np.ndarray] = []
        self._part_segment: list[np.ndarray] = []
        self._paint_part: list[np.ndarray] = []
        self._paint_colour: list[np.ndarray] = []
        self._paint_texture: list[np.ndarray] = []
        self._paint_furrows: list[np.ndarray] = []
        self._counts = [0, 0, 0]  # segments, parts, paints

    def pixels(self, metres: float) -> float:
        """Length in image pixels."""
        return metres / self.metres_per_pixel

    def visible(self, points: np.ndarray, margin: float) -> np.ndarray:
        """(n,) bool: which points, (n, 2) metres, lie within ``margin`` metres of the image."""
        inside = (points > -margin) & (points < self.extent + margin)
        return np.asarray(inside.all(axis=-1))

    # --- what there is ---------------------------------------------------------------------

    def new_segments(self, class_id: int, count: int = 1) -> np.ndarray:
        """Register objects of one class; returns their ids, (count,) int64."""
        self._segment_class.append(np.full(count, class_id, np.uint8))
        return self._take(0, count)

    def new_parts(self, segments: np.ndarray) -> np.ndarray:
        """Register a part for each segment id given; returns part ids, (n,) int64."""
        self._part_segment.append(np.asarray(segments, np.int32))
        return self._take(1, len(segments))

    def new_paints(
        self,
        parts: np.ndarray,
        colours: np.ndarray | Sequence[float],
        texture: str,
        furrows: Furrows | None = None,
    ) -> np.ndarray:
        """Register a paint for each part id given; ``colours`` is (3,) or (n, 3) RGB 0-255."""
        count = len(parts)
        colours = np.broadcast_to(np.asarray(colours, np.float32), (count, 3))
        lines = np.zeros((count, 4), np.float32)
        if furrows is not None:
            # Lines finer than the grid cannot be seen; drawn at their own period they would alias.
            period = max(furrows.period, 3.3 * self.metres_per_pixel)
            strength = furrows.strength * min(1.0, (furrows.period / period) + 0.25)
            wave = 2 * np.pi / (period / self.metres_per_pixel)
            phase = 0.7 * self._counts[2] % (2 * np.pi)
            lines[:] = (
                -np.sin(furrows.angle) * wave,
                np.cos(furrows.angle) * wave,
                phase,
                strength,
            )
        self._paint_part.append(np.asarray(parts, np.int32))
        self._paint_colour.append(np.clip(colours, 0, 255).astype(np.uint8))
        self._paint_texture.append(np.full(count, TEXTURE_NAMES.index(texture), np.uint8))
        self._paint_furrows.append(lines)
        return self._take(2, count)

    def _take(self, what: int, count: int) -> np.ndarray:
        first = self._counts[what]
        self._counts[what] += count
        return np.arange(first, first + count)

    # --- drawing ---------------------------------------------------------------------------

    def fill(self, polygons: Polygons, paints: np.ndarray) -> None:
        """Paint polygon ``i`` with paint id ``paints[i]``, in order."""
        scale = OVERSAMPLING / self.metres_per_pixel
        _fill(self.paint, polygons, paints.tolist(), scale, cv2.LINE_8)

    def cast(self, polygons: Polygons, offset: np.ndarray, darkness: int = 255) -> None:
        """Cast shadows of convex bodies with their tops shifted by ``offset``, (2,) or (n, 2) m."""
        count = len(polygons)
        offset = np.broadcast_to(np.asarray(offset, np.float64), (count, 2))
        hulls = []
        for body, shift in zip(polygons, offset, strict=True):
            both = np.concatenate([body, body + shift]).astype(np.float32)
            hulls.append(cv2.convexHull(both)[:, 0])
        _fill(self.shadow, hulls, [darkness] * count, 1 / self.metres_per_pixel, cv2.LINE_AA)

    def light(self, polygons: Polygons) -> None:
        """Take away all shadow cast so far on polygons that are drawn over what cast it."""
        _fill(self.shadow, polygons, [0] * len(polygons), 1 / self.metres_per_pixel, cv2.LINE_8)

    def add(
        self,
        class_id: int,
        polygons: Polygons,
        colours: np.ndarray | Sequence[float],
        texture: str,
        furrows: Furrows | None = None,
    ) -> np.ndarray:
        """Draw each polygon as a segment of its own, with one part; returns the part ids."""
        parts = self.new_parts(self.new_segments(class_id, len(polygons)))
        self.detail(parts, polygons, colours, texture, furrows)
        return parts

    def detail(
        self,
        parts: np.ndarray,
        polygons: Polygons,
        colours: np.ndarray | Sequence[float],
        texture: str,
        furrows: Furrows | None = None,
    ) -> None:
        """Draw each polygon as looks only: it belongs to the existing part ``parts[i]``."""
        if len(polygons):
            self.fill(polygons, self.new_paints(parts, colours, texture, furrows))

    def part_at(self, points: np.ndarray) -> np.ndarray:
        """Part id under each point, (n, 2) metres; points outside take the nearest edge's."""
        scale = OVERSAMPLING / self.metres_per_pixel
        index = np.clip((points * scale).astype(np.int64), 0, self.paint.shape[0] - 1)
        return _joined(self._paint_part)[self.paint[index[:, 1], index[:, 0]]]

    def class_at(self, points: np.ndarray) -> np.ndarray:
        """Class id under each point, (n, 2) metres."""
        segments = _joined(self._part_segment)[self.part_at(points)]
        return _joined(self._segment_class)[segments]

    def clear_of(self, polygons: np.ndarray, classes: Sequence[int]) -> np.ndarray:
        """(n,) bool: which polygons, (n, k, 2) metres, touch none of the classes so far.

        Looked up at the corners, the middles of the sides and the centre.
        """
        sides = 0.5 * (polygons + np.roll(polygons, -1, axis=1))
        points = np.concatenate([polygons, sides, polygons.mean(axis=1, keepdims=True)], axis=1)
        found = self.class_at(points.reshape(-1, 2)).reshape(points.shape[:2])
        return np.asarray(~np.isin(found, classes).any(axis=1))

    # --- results ---------------------------------------------------------------------------

    def tables(self) -> "PaintTables":
        """Everything registered so far, as flat tables."""
        return PaintTables(
            segment_class=np.concatenate(self._segment_class),
            part_segment=np.concatenate(self._part_segment),
            paint_part=np.concatenate(self._paint_part),
            paint_colour=np.concatenate(self._paint_colour),
            paint_texture=np.concatenate(self._paint_texture),
            paint_furrows=np.concatenate(self._paint_furrows),
        )


@dataclass(frozen=True)
class PaintTables:
    """Look-up tables: paint id -> part, colour, texture, furrows; part -> segment -> class."""

    segment_class: np.ndarray  # (S,) uint8
    part_segment: np.ndarray  # (P,) int32
    paint_part: np.ndarray  # (N,) int32
    paint_colour: np.ndarray  # (N, 3) uint8
    paint_texture: np.ndarray  # (N,) uint8, index into TEXTURE_NAMES
    paint_furrows: np.ndarray  # (N, 4) float32: wave vector x, y (1/pixel), phase, strength


def _joined(chunks: list[np.ndarray]) -> np.ndarray:
    """The chunks as one array; the list then holds just that, so that asking again is cheap."""
    if len(chunks) > 1:
        chunks[:] = [np.concatenate(chunks)]
    return chunks[0]


def _fill(
    target: np.ndarray, polygons: Polygons, values: list[int], scale: float, line_type: int
) -> None:
    """Fill polygons, metres times ``scale`` = pixels of ``target``, except those off the map."""
    limit = target.shape[0]
    factor = scale * (1 << _FRACTION_BITS)
    # A pixel's centre, not its corner, is at cv2's integer coordinates.
    half = 0.5 * (1 << _FRACTION_BITS)
    if isinstance(polygons, np.ndarray):
        corners = np.rint(polygons * factor - half)
        low, high = corners.min(axis=1), corners.max(axis=1)
        bound = limit * (1 << _FRACTION_BITS)
        seen = np.flatnonzero((high >= 0).all(axis=1) & (low <= bound).all(axis=1))
        corners = corners.astype(np.int32)
        for i in seen.tolist():
            cv2.fillPoly(target, [corners[i]], values[i], line_type, _FRACTION_BITS)
        return
    for polygon, value in zip(polygons, values, strict=True):
        corners = np.rint(np.asarray(polygon) * factor - half).astype(np.int32)
        cv2.fillPoly(target, [corners], value, line_type, _FRACTION_BITS)
