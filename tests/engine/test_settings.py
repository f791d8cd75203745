"""The table of settings: who decides what was left open, and which values are refused."""

from dataclasses import fields, replace

import pytest

from alps.engine.base.errors import SettingsError
from alps.engine.settings import (
    ClusterSettings,
    ModelDefaults,
    PaintSettings,
    RunSettings,
    SegmentSettings,
    SourceSettings,
    stock,
)

GROUPS = {
    "source": SourceSettings,
    "segment": SegmentSettings,
    "cluster": ClusterSettings,
    "paint": PaintSettings,
}
RANGES = [
    (group, item.name, item.metadata["low"], item.metadata["high"])
    for group, table in GROUPS.items()
    for item in fields(table)
    if item.metadata["low"] is not None
]


def with_value(group, name, value):
    """Filled settings in which one has this value; the tile fits whichever overlap is tried."""
    given = RunSettings(source=SourceSettings(tile=1 << 20, overlap=0))
    if name == "tile":
        given = RunSettings(source=SourceSettings(overlap=0))
    changed = replace(getattr(given, group), **{name: value})
    return replace(given, **{group: changed}).for_model(ModelDefaults())


def test_the_user_decides_then_the_model_then_the_stock_value():
    model = ModelDefaults(points_per_side=6, pred_iou_thresh=0.0, tile=512)
    filled = RunSettings().for_model(model)
    assert (filled.segment.points_per_side, filled.segment.pred_iou_thresh) == (6, 0.0)
    assert filled.segment.max_area == stock(SegmentSettings, "max_area") == 0.3
    assert (filled.source.tile, filled.source.overlap) == (512, 128)
    given = RunSettings(
        SourceSettings(tile=64, overlap=0), SegmentSettings(max_area=0.0, points_per_side=9)
    ).for_model(model)
    assert (given.source.tile, given.source.overlap) == (64, 0)
    assert (given.segment.max_area, given.segment.points_per_side) == (0.0, 9)
    assert given.segment.pred_iou_thresh == 0.0


def test_nothing_is_left_open():
    filled = RunSettings().for_model(ModelDefaults())
    for group in (filled.source, filled.segment, filled.cluster, filled.paint):
        open_fields = {f.name for f in fields(group) if getattr(group, f.name) is None}
        # What sources say, or where OUT lies, decides these.
        assert open_fields <= {"asset", "bands", "cog", "nodata"}


@pytest.mark.parametrize(("group", "name", "low", "high"), RANGES)
def test_the_ends_of_a_range_work_and_what_lies_beyond_is_refused(group, name, low, high):
    kind = GROUPS[group].__dataclass_fields__[name].type
    step = 1 if kind in (int, int | None) else 1e-6
    for value in (low, high):
        if name == "overlap" and value == high:
            value = high - 1  # less than half of the largest tile
        assert getattr(getattr(with_value(group, name, value), group), name) == value
    option = "--" + name.replace("_", "-")
    for value in (low - step, high + step):
        with pytest.raises(SettingsError, match=rf"{option} .*between {low} and {high}"):
            with_value(group, name, value)


def test_a_model_that_fixes_what_cannot_work_is_refused():
    with pytest.raises(SettingsError, match="--max-area 2"):
        RunSettings().for_model(ModelDefaults(max_area=2))


@pytest.mark.parametrize("bands", [(1, 2), (0,), (1, 2, 3, 4), ()])
def test_bands_that_are_neither_grey_nor_colour_are_refused(bands):
    with pytest.raises(SettingsError, match="--bands"):
        RunSettings(SourceSettings(bands=bands)).for_model(ModelDefaults())
