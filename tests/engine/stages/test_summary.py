"""What a run came to, and when that is too little: --max-failed to the tile."""

import json

import pyarrow as pa
import pytest

from alps.engine.base.errors import TooManyFailuresError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.schemas import TILE_SCHEMA
from alps.engine.run_folder.tables import write_table
from alps.engine.stages import label as stage
from alps.engine.stages.label import finish, refuse_failures, summarise


@pytest.fixture
def folder(tmp_path):
    """Of ten tiles two failed, each a source of its own; one is empty, one was skipped."""
    folder = RunFolder(tmp_path)
    rows = []
    for index in range(10):
        status = {0: "failed", 1: "failed", 2: "empty", 3: "skipped"}.get(index, "ok")
        row = dict.fromkeys(TILE_SCHEMA.names, 0) | {
            "tile_id": index,
            "source_index": min(index, 4),
            "source": f"{index}.png",
            "path": f"/images/{index}.png",
            "label": f"{index}.png",
            "status": status,
            "reason": f"Cannot open /images/{index}.png: cut off." if status == "failed" else "",
        }
        if status == "ok":
            row |= {"segments": 3, "valid_pixels": 200, "covered_pixels": 50}
        if status in ("ok", "empty"):
            row |= {"decode_seconds": 7.0, "read_seconds": 0.5}
        rows.append(row)
    write_table(pa.Table.from_pylist(rows, schema=TILE_SCHEMA), folder.tiles)
    return folder


def test_figures_are_of_what_was_segmented(folder):
    summary = summarise(folder)
    assert summary.tiles == {"empty": 1, "failed": 2, "ok": 6, "skipped": 1}
    assert (summary.sources, summary.segments, summary.coverage) == (5, 18, 0.25)
    assert (summary.regions, summary.labelled) == (0, None)  # nothing is painted
    assert summary.seconds_per_tile["decode"] == 7 and summary.seconds_per_tile["read"] == 0.5
    assert summary.failed_reasons == {"Cannot open a file: cut off.": 2}


def test_what_is_labelled_is_apart_from_what_masks_cover(folder):
    classes = [{"id": i, "colour": [9, 9, 9], "pixels": 300, "regions": 7} for i in range(3)]
    content = {"classes": classes, "unlabelled_pixels": 350, "nodata_pixels": 250}
    folder.classes.write_text(json.dumps(content))
    summary = summarise(folder)
    assert (summary.regions, summary.labelled, summary.coverage) == (21, 0.9, 0.25)
    for key in ("unlabelled_pixels", "nodata_pixels"):  # of an older version
        folder.classes.write_text(json.dumps({k: v for k, v in content.items() if k != key}))
        assert summarise(folder).labelled is None


@pytest.mark.parametrize(("most", "passes"), [(0.3, True), (0.2, True), (0.19, False), (0, False)])
def test_the_share_of_failed_tiles_that_is_allowed_may_be_reached(folder, most, passes):
    summary = summarise(folder)
    if passes:
        refuse_failures(folder, summary.tiles, summary.failed_reasons, most)
        return
    with pytest.raises(TooManyFailuresError, match=r"2 of 10 .*commonest.*a file: cut off"):
        refuse_failures(folder, summary.tiles, summary.failed_reasons, most)


def test_no_failure_passes_even_where_none_is_allowed(folder):
    refuse_failures(folder, {"ok": 3}, {}, 0.0)


@pytest.mark.parametrize(("most", "passes"), [(0.4, True), (0.39, False)])
def test_the_share_of_label_maps_that_may_be_missing(folder, monkeypatch, most, passes):
    monkeypatch.setattr(stage, "build_report", lambda root: root)
    unpainted = {"0.png": "it is gone.", "1.png": "it is larger."}  # of five sources
    if passes:
        assert finish(folder, most, unpainted).sources == 5
        return
    with pytest.raises(TooManyFailuresError, match=r"2 of 5 label maps .* of 0\.png: it is gone"):
        finish(folder, most, unpainted)
