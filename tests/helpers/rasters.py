"""Rasters that tests write."""

import numpy as np
import rasterio


def save_raster(path, bands, colours=None, driver="GTiff", **options):
    """Write bands (B, H, W), or one (H, W), to ``path``, which is returned; its folder is made.

    colours: the bands' interpretations. options: of rasterio's profile.
    """
    bands = bands if bands.ndim == 3 else bands[None]
    path.parent.mkdir(exist_ok=True)
    count, height, width = bands.shape
    size = {"count": count, "height": height, "width": width, "dtype": np.dtype(bands.dtype)}
    with rasterio.open(path, "w", driver=driver, **size, **options) as file:
        if colours:
            file.colorinterp = colours
        file.write(bands)
    return path
