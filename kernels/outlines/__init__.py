"""Outlines of the patches of an image, along the edges of pixels: what polygons are made of.

Neighbours share the vertices of their common border. Each patch is one polygon that is valid as
Simple Features say (OGC 06-103r4, 6.1.11): its rings neither cross nor touch themselves, and touch
each other in single points.

Bytes moved: H x W x 2 x 4 for values, twice, 4 more for weights; 21 a vertex, 4 a corner.
"""

from alps.kernels.outlines.cpu import OutlineTracer, outlines
from alps.kernels.outlines.reference import reference_outlines
from alps.kernels.outlines.rules import NOTHING, Outlines

__all__ = ["NOTHING", "OutlineTracer", "Outlines", "outlines", "reference_outlines"]
