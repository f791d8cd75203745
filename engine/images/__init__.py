"""From files to pixels: what SRC names, what a raster says, the grid of windows."""

import os

# GDAL keeps blocks of rasters up to a twentieth of the machine's memory, megabytes that grow with a
# scene until then. This holds what parts of a scene that are read one after the other share, also
# where it is wide; who has set it knows better.
os.environ.setdefault("GDAL_CACHEMAX", "64")
