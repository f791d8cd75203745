"""Chooses and draws the segments that stand for each class."""

from dataclasses import dataclass

from alps.engine.report import pictures
from alps.engine.report.segment_rows import Candidates, SegmentRow
from alps.engine.report.sources import SourcePixels
from alps.engine.report.tile_rows import TileRow

CLEAREST = 2  # of a class's exemplars; the others are drawn by lot
SAME_OVERLAP = 0.5  # of the smaller box; windows overlap, and both see the thing between them
THUMBNAIL_BYTES = 5_000


@dataclass(frozen=True)
class Exemplar:
    """A segment cut out of its source."""

    uri: str
    width: int
    height: int
    source: str
    area: int
    gone: bool  # the source cannot be read, so only the outline is shown


def pick_exemplars(candidates: Candidates, rows: dict[int, TileRow], each: int) -> list[SegmentRow]:
    """Up to ``each`` segments: the CLEAREST first, then drawn ones, none of them twice."""
    chosen: list[SegmentRow] = []
    for found, most in (
        (candidates.clearest, CLEAREST),
        (candidates.drawn, each),
        (candidates.clearest, each),
    ):
        for segment in found:
            if len(chosen) >= most:
                break
            if not any(_same(segment, other, rows) for other in chosen):
                chosen.append(segment)
    return chosen


def draw_exemplars(
    segments: dict[int, list[SegmentRow]], rows: dict[int, TileRow], sources: SourcePixels
) -> dict[int, list[Exemplar]]:
    """Draw the exemplars of each class; every source is opened once, whatever class it is for."""
    places = [
        (rows[segment.tile_id], class_id, number)
        for class_id, found in segments.items()
        for number, segment in enumerate(found)
    ]
    drawn: dict[tuple[int, int], Exemplar] = {}
    for row, class_id, number in sorted(places, key=lambda p: (p[0].source, p[0].tile_id, p[1:])):
        segment = segments[class_id][number]
        crop = pictures.exemplar_window(segment, row.window)
        tile = sources.read(row, crop)
        rgb = None if tile is None else tile.rgb
        pixels = pictures.exemplar_picture(rgb, segment, row.window, crop)
        drawn[class_id, number] = Exemplar(
            uri=pictures.photo_uri(pixels, THUMBNAIL_BYTES),
            width=pixels.shape[1],
            height=pixels.shape[0],
            source=row.source,
            area=segment.area,
            gone=tile is None,
        )
    return {
        class_id: [drawn[class_id, number] for number in range(len(found))]
        for class_id, found in segments.items()
    }


def _same(one: SegmentRow, other: SegmentRow, rows: dict[int, TileRow]) -> bool:
    """Whether two segments are one thing, seen in two windows of a source."""
    first, second = rows[one.tile_id], rows[other.tile_id]
    if first.source != second.source:
        return False
    left, top = first.window.x + one.x, first.window.y + one.y
    other_left, other_top = second.window.x + other.x, second.window.y + other.y
    width = min(left + one.width, other_left + other.width) - max(left, other_left)
    height = min(top + one.height, other_top + other.height) - max(top, other_top)
    smaller = min(one.width * one.height, other.width * other.height)
    return min(width, height) > 0 and width * height > SAME_OVERLAP * smaller
