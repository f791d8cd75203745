"""Columns of the tables of a run folder."""

import pyarrow as pa

# One row a window of a source; a source that cannot be opened has one row without pixels.
PLAN_SCHEMA = pa.schema(
    [
        ("tile_id", pa.int64()),
        ("source_index", pa.int32()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("label", pa.string()),
        ("source_width", pa.int32()),
        ("source_height", pa.int32()),
        ("x", pa.int32()),
        ("y", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("reason", pa.string()),
    ]
)
COLOUR_VALUES = 6  # of a segment's column ``colour``
STAGES = ("read", "encode", "decode", "filter", "pool", "write")
TILE_SCHEMA = pa.schema(
    [
        *[field for field in PLAN_SCHEMA if field.name != "reason"],
        ("status", pa.string()),
        ("reason", pa.string()),
        ("segments", pa.int32()),
        ("points", pa.int32()),
        ("valid_pixels", pa.int64()),
        ("covered_pixels", pa.int64()),
        *[(f"{stage}_seconds", pa.float32()) for stage in STAGES],
    ]
)
# A line of pixels of a source that a model predicted, a byte (or two) a pixel and layer.
PREDICTED_SCHEMA = pa.schema(
    [
        ("source_index", pa.int32()),
        ("y", pa.int32()),
        ("labels", pa.binary()),
        ("confidence", pa.binary()),
        ("probabilities", pa.binary()),
    ]
)


def segment_schema(channels: int) -> pa.Schema:
    """One row a segment, its embedding of ``channels`` values."""
    return pa.schema(
        [
            ("tile_id", pa.int64()),
            ("segment_id", pa.int32()),
            # Of its tile; parts of one mask share it. -1: what lies under no mask.
            ("mask", pa.int32()),
            ("x", pa.int32()),
            ("y", pa.int32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("area", pa.int32()),
            ("predicted_iou", pa.float32()),
            ("stability_score", pa.float32()),
            ("point_x", pa.float32()),
            ("point_y", pa.float32()),
            # Middle of the box of what its embedding was averaged over, in pixels of the tile.
            ("centre_x", pa.float32()),
            ("centre_y", pa.float32()),
            ("counts", pa.binary()),
            ("embedding", pa.list_(pa.float16(), channels)),
            # Mean, then standard deviation, of L*, a* and b* over the mask.
            ("colour", pa.list_(pa.float16(), COLOUR_VALUES)),
        ]
    )


# A row a region, in the order of its group's regions: its class, and how much nearer that one's
# centroid is than the second.
CLASS_SCHEMA = pa.schema([("cluster", pa.int32()), ("margin", pa.float32())])
