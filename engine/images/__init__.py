"""From files to pixels: what SRC names, what a raster says, the grid of windows."""
