"""Run folders put together by hand, for the stages after segmenting."""

import pyarrow as pa

from alps.engine.run_folder import plan as planning
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.schemas import COLOUR_VALUES, PLAN_SCHEMA, segment_schema
from alps.engine.run_folder.tables import write_table
from alps.kernels.masks import coco


def make_run(root, windows, segments, channels=4):
    """A folder with one source, and its segments in shards of the plan's size.

    windows: of a whole grid, in order. segments: for each window a list of dictionaries with
    columns of the segment table; ``mask`` (H, W) bool gives counts and, where none is given,
    area; the rest is 0.
    """
    folder = RunFolder(root)
    (root / "journal").mkdir(parents=True)
    (root / "segments").mkdir()
    size = {
        "source_width": max(window.x + window.width for window in windows),
        "source_height": max(window.y + window.height for window in windows),
    }
    rows = [
        {"tile_id": index, "source_index": 0, "source": "a.png", "path": str(root / "a.png"),
         "label": "a.png", "reason": "", **size, **vars(window)}
        for index, window in enumerate(windows)
    ]  # fmt: skip
    write_table(pa.Table.from_pylist(rows, schema=PLAN_SCHEMA), folder.plan)
    schema = segment_schema(channels)
    nothing = {name: 0 for name in schema.names} | {"counts": b"", "embedding": [0] * channels}
    nothing["colour"] = [0] * COLOUR_VALUES
    for start in range(0, len(windows), planning.SHARD_TILES):
        table = []
        for tile in range(start, min(start + planning.SHARD_TILES, len(windows))):
            for index, segment in enumerate(segments[tile]):
                row = nothing | {"tile_id": tile, "segment_id": index}
                if "mask" in segment:
                    mask = segment["mask"]
                    row |= {"counts": coco.encode_mask(mask), "area": int(mask.sum())}
                table.append(row | {k: v for k, v in segment.items() if k != "mask"})
        path = folder.segments(start // planning.SHARD_TILES)
        write_table(pa.Table.from_pylist(table, schema=schema), path)
    return folder
