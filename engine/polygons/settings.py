"""What of a run is written as polygons, and how."""

import re
from dataclasses import dataclass

from alps.engine.base.errors import SettingsError
from alps.engine.settings import setting

OPTION = "--simplify"


@dataclass(frozen=True)
class PolygonSettings:
    """Which polygons of a run's label maps, in which form."""

    objects: bool = setting(
        False,
        "Write objects, each with the class of most of its pixels, in place of patches of a class.",
    )
    simplify: str = setting(
        "0",
        "Straighten outlines by as many pixels, or metres, 2m say: corners go that make triangles "
        "smaller than its square. Neighbours keep their common border.",
    )
    min_area: str = setting(
        "0",
        "Leave out what has fewer pixels, or a smaller area, 25m2 say; it leaves a gap (alps paint "
        "--min-patch gives small patches to their neighbours).",
    )
    only: str | None = setting(None, "Write only images that match this glob, '2020/*' say.")
    crs: str | None = setting(
        None,
        "Coordinates of FILE, EPSG:4326 say. Default: those of the first image; of GeoJSON always "
        "WGS 84.",
    )

    def tolerance(self) -> tuple[float, bool]:
        """What ``simplify`` says: a number, and whether it is in metres. Raises SettingsError."""
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(px|m)?\s*", self.simplify)
        if not found:
            raise SettingsError(
                f"{OPTION} {self.simplify}: give a number of pixels, 1.5 say, or of metres, 2m say"
            )
        return float(found[1]), found[2] == "m"
