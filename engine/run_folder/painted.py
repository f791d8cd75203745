"""Lines of journal/painted.jsonl: what the label map of a source shows, and its checksums."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alps.engine.base.errors import RunFolderError
from alps.engine.base.lines import read_lines
from alps.engine.base.records import Count
from alps.engine.run_folder.sums import FileSum

PAGE = 1 << 8  # sources
UNKNOWN = -1


@dataclass(frozen=True)
class PaintedLine:
    """A source that was painted, or could not be. Older versions noted less."""

    source_index: Count
    of: str = ""  # fingerprint of all that decides the labels
    reason: str = ""  # why there is no label map
    pixels: tuple[Count, ...] = ()  # of each class, the unlabelled last
    regions: tuple[Count, ...] | None = None  # of each class
    nodata: Count | None = None
    files: tuple[FileSum, ...] = ()  # the label map first

    def counts(self, clusters: int) -> bool:
        """Whether it tells all that is to be known of a label map of so many classes."""
        regions = self.regions or ()
        lengths = len(self.pixels), len(regions)
        return lengths == (clusters + 1, clusters) and self.nodata is not None and any(self.pixels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class BySource:
    """A few numbers of each of many sources, by their index; UNKNOWN where there are none."""

    def __init__(self, width: int) -> None:
        """``width``: how many numbers a source has."""
        self._width = width
        # In pages, because a damaged line may speak of any index.
        self._pages: dict[int, np.ndarray] = {}

    def __iter__(self) -> Iterator[int]:
        """The sources whose first number is known."""
        for number, page in sorted(self._pages.items()):
            yield from (number * PAGE + np.flatnonzero(page[:, 0] != UNKNOWN)).tolist()

    def __getitem__(self, source_index: int) -> list[int]:
        number, at = divmod(source_index, PAGE)
        page = self._pages.get(number)
        return [UNKNOWN] * self._width if page is None else page[at].tolist()

    def __setitem__(self, source_index: int, values: Sequence[int]) -> None:
        """``values``: as many as are known, at most ``width``."""
        number, at = divmod(source_index, PAGE)
        if number not in self._pages:
            if not values:
                return
            self._pages[number] = np.full((PAGE, self._width), UNKNOWN, np.int64)
        self._pages[number][at] = [*values, *[UNKNOWN] * (self._width - len(values))]


def painted_lines(journal: Path) -> Iterator[PaintedLine | None]:
    """All lines, None for those that are damaged. Raises RunFolderError."""
    try:
        yield from read_lines(journal, PaintedLine)
    except OSError as error:
        raise RunFolderError(
            f"cannot read {journal}: {error.strerror or error}; check its permissions"
        ) from error


def last_lines(journal: Path) -> Iterator[PaintedLine]:
    """The last line of each source, which counts. Raises RunFolderError."""
    last = BySource(1)
    for number, line in enumerate(painted_lines(journal)):
        if line is not None:
            last[line.source_index] = [number]
    # Read twice: of many classes the lines are too long to be kept.
    for number, line in enumerate(painted_lines(journal)):
        if line is not None and last[line.source_index] == [number]:
            yield line
