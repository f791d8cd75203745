"""Where polygons lie: from pixels to coordinates of a scene, from those to the file's."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pyproj
import rasterio
import shapely
from pyproj.enums import WktVersion
from rasterio.transform import GCPTransformer

from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.images.georeference import Georeference

TURN = 360.0  # degrees of longitude around the Earth


class Ground:
    """The ground of one scene.

    Without a CRS and a transform it is that of its pixels, as QGIS shows an image that lies
    nowhere: x to the right, y upwards, the upper left corner at 0, 0.

    Args:
        place: of the scene.
        target: the file's; None where scenes have none.

    Raises SourceError where its place is known by a camera's polynomials alone.
    """

    def __init__(self, place: Georeference, target: pyproj.CRS | None, name: str) -> None:
        self._place, self._name = place, name
        self.crs = crs_of(place, name)
        self._gcps = GCPTransformer(list(place.gcps)) if place.gcps else None
        self._transformer = None
        if target is not None and self.crs is not None and self.crs != target:
            self._transformer = _transformer(self.crs, target)
        self._target = target
        self._goes_round: bool | None = None  # past 180 degrees; known once asked for

    @property
    def is_turned(self) -> bool:
        """Whether y grows upwards here, as on maps, and not downwards as in the image."""
        if self._gcps is not None:
            corner, right, down = self.points(np.array([[0.0, 0], [1, 0], [0, 1]]))
            (a, b), (c, d) = right - corner, down - corner
            return bool(a * d - b * c < 0)
        transform = self._place.transform
        return transform is None or transform.determinant < 0

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Coordinates (N, 2) of corners of pixels (N, 2) float64: of the scene's own CRS."""
        x, y = xy.T
        if self._gcps is not None:
            return np.stack(self._gcps.xy(y, x, offset="ul"), axis=1)
        t = self._place.transform
        if t is None:
            return np.stack([x, -y], axis=1)
        return np.stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f], axis=1)

    def moved(self, geometries: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Geometries in the file's CRS; size: (width, height) of the scene.

        Raises SettingsError where they have no place in it.
        """
        if self._transformer is None:
            return geometries
        if self._goes_round is None:
            self._goes_round = self._crosses_180(size)
        found: np.ndarray = shapely.transform(geometries, self._to_target)
        return found

    def areas(self, geometries: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """Square metres (n,) of geometries in the scene's own CRS that have so many pixels.

        In degrees, on the CRS's ellipsoid. NaN where the scene has no scale.
        """
        geod = self.crs.get_geod() if self.crs is not None and self.crs.is_geographic else None
        if geod is not None:
            return np.array([abs(geod.geometry_area_perimeter(one)[0]) for one in geometries])
        if self.crs is None or not self.crs.is_projected:
            return np.full(len(pixels), np.nan)
        area = self._place.pixel_area()
        if area is not None:
            return pixels * area
        metres = self.crs.axis_info[0].unit_conversion_factor
        found: np.ndarray = shapely.area(geometries) * metres**2
        return found

    def _to_target(self, xy: np.ndarray) -> np.ndarray:
        assert self._transformer is not None
        x, y = self._transformer.transform(xy[:, 0], xy[:, 1])
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise SettingsError(
                f"{self._name} has no place in the file's coordinates; give others by --crs"
            )
        if self._goes_round:  # or a polygon would go around the Earth
            x = np.where(x < 0, x + TURN, x)
        return np.stack([x, y], axis=1)

    def _crosses_180(self, size: tuple[int, int]) -> bool:
        """Whether the scene lies on both sides of the meridian of 180 degrees."""
        if self._target is None or not self._target.is_geographic:
            return False
        x, y = np.meshgrid(np.linspace(0, size[0], 9), np.linspace(0, size[1], 9))
        self._goes_round = False
        there = self._to_target(self.points(np.stack([x.ravel(), y.ravel()], axis=1)))
        return bool(np.ptp(there[:, 0]) > TURN / 2)


def crs_of(place: Georeference, name: str) -> pyproj.CRS | None:
    """The CRS that coordinates of a place are in; None where there is none.

    Raises SourceError where there are a camera's polynomials and nothing else.
    """
    if place.transform is None and not place.gcps:
        if place.rpcs is not None:
            raise SourceError(
                f"{name} says by RPCs alone where it lies, which needs heights: rectify the image "
                "(gdalwarp -rpc), and label that"
            )
        return None
    return None if place.crs is None or not place.crs else _known(place.crs)


def named_crs(text: str) -> pyproj.CRS:
    """What somebody asked for. Raises SettingsError."""
    try:
        return pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"--crs {text}: {reason}; give EPSG:4326, say") from error


def crs_words(crs: pyproj.CRS | None) -> str:
    """What a person calls it."""
    if crs is None:
        return "pixel coordinates"
    authority = crs.to_authority(min_confidence=100)
    return ":".join(authority) if authority else crs.name


def written(crs: pyproj.CRS | None) -> str | None:
    """As GDAL is told it: by its authority where it has one."""
    if crs is None:
        return None
    authority = crs.to_authority(min_confidence=100)
    return ":".join(authority) if authority else crs.to_wkt(WktVersion.WKT2_2019)


def different(known: Iterable[pyproj.CRS | None]) -> list[pyproj.CRS | None]:
    """Each once, in their order."""
    found: list[pyproj.CRS | None] = []
    for crs in known:
        if not any(crs is one or (crs is not None and crs == one) for one in found):
            found.append(crs)
    return found


@lru_cache(maxsize=64)
def _from_wkt(text: str) -> pyproj.CRS:
    return pyproj.CRS.from_wkt(text)


def _known(crs: rasterio.CRS) -> pyproj.CRS:
    return _from_wkt(crs.to_wkt(version="WKT2_2019"))


@lru_cache(maxsize=64)
def _transformer(source: pyproj.CRS, target: pyproj.CRS) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)
