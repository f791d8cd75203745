"""Columns of the tables of regions."""

import pyarrow as pa

from alps.engine.run_folder.schemas import COLOUR_VALUES

# A row a region; regions of a source are numbered from 0 in the order of their rows, and carry
# that number in the source's raster of regions.
REGION_SCHEMA = pa.schema(
    [
        ("source_index", pa.int32()),
        ("x", pa.int32()),
        ("y", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("area", pa.int32()),
        # Mean, then standard deviation, of L*, a* and b* over the region.
        ("colour", pa.list_(pa.float16(), COLOUR_VALUES)),
        # The segment on top of most of it; -1 where no window has one there.
        ("tile_id", pa.int64()),
        ("segment_id", pa.int32()),
        ("object", pa.int32()),  # of that segment, from 0 in each source; -1: none
        # All segments that windows saw there, and their shares, which add up to 1.
        ("tiles", pa.list_(pa.int64())),
        ("segments", pa.list_(pa.int32())),
        ("shares", pa.list_(pa.float32())),
    ]
)
# A row a pair of regions of one source that touch.
BORDER_SCHEMA = pa.schema(
    [
        ("source_index", pa.int32()),
        ("region", pa.int32()),
        ("other", pa.int32()),  # the higher number
        ("length", pa.int32()),  # pairs of pixels
        ("contrast", pa.float16()),  # mean distance of colour across, in L*a*b* units
    ]
)
# A row a segment, in the order of its file in segments/.
OBJECT_SCHEMA = pa.schema(
    [("tile_id", pa.int64()), ("segment_id", pa.int32()), ("object", pa.int32())]
)
