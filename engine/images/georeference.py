"""Where on Earth an image lies, handed on to what is made of it."""

import math
from copy import copy
from dataclasses import dataclass, replace
from typing import Self

import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from alps.engine.images.raster import RasterReader

METRES_A_DEGREE = 111_195.0  # of a great circle of a sphere of 6371 km


@dataclass(frozen=True)
class Georeference:
    """Where on Earth an image lies: by a transform, ground control points, or the rational
    polynomials of a satellite's camera.
    """

    crs: rasterio.CRS | None = None
    transform: rasterio.Affine | None = None
    gcps: tuple[GroundControlPoint, ...] = ()
    rpcs: RPC | None = None

    @classmethod
    def of(cls, reader: RasterReader | rasterio.DatasetReader) -> Self:
        """Take over what a file says."""
        gcps, gcps_crs = reader.gcps
        if gcps:
            return cls(gcps_crs, None, tuple(gcps), reader.rpcs)
        transform = None if reader.transform.is_identity else reader.transform
        return cls(reader.crs, transform, (), reader.rpcs)

    @property
    def is_known(self) -> bool:
        """Whether anything says where it lies."""
        return self != Georeference()

    def seen_from(self, x: int, y: int) -> Self:
        """That of the part of the image whose top left pixel is (``x``, ``y``)."""
        gcps = tuple(
            GroundControlPoint(p.row - y, p.col - x, p.x, p.y, p.z, p.id, p.info) for p in self.gcps
        )
        rpcs = copy(self.rpcs)
        if rpcs is not None:
            rpcs.line_off -= y
            rpcs.samp_off -= x
        moved = rasterio.Affine.translation(x, y)
        transform = None if self.transform is None else self.transform * moved
        return replace(self, transform=transform, gcps=gcps, rpcs=rpcs)

    def pixel_area(self) -> float | None:
        """Square metres of a pixel; None where the image has no scale. In degrees, as on a sphere
        at the latitude of the first pixel.
        """
        if self.crs is None or self.transform is None:
            return None
        area = abs(self.transform.determinant)
        if self.crs.is_geographic:
            latitude = math.radians(self.transform.f)
            return area * METRES_A_DEGREE**2 * math.cos(latitude)
        if not self.crs.is_projected:
            return None
        metres = self.crs.linear_units_factor[1]
        return area * metres**2
