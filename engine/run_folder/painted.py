"""Lines of journal/painted.jsonl: what the label map of a source shows, and its checksums."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alps.engine.base.errors import RunFolderError
from alps.engine.base.lines import read_lines
from alps.engine.base.records import Count
from alps.engine.run_folder.sums import FileSum

PAGE = 1 << 12  # sources


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
    last: dict[int, np.ndarray] = {}  # in pages, for a damaged line may speak of any source
    for number, line in enumerate(painted_lines(journal)):
        if line is not None:
            page, at = divmod(line.source_index, PAGE)
            if page not in last:
                last[page] = np.full(PAGE, -1, np.int64)
            last[page][at] = number
    # Read twice: of many classes the lines are too long to be kept.
    for number, line in enumerate(painted_lines(journal)):
        if line is None:
            continue
        page, at = divmod(line.source_index, PAGE)
        if page in last and last[page][at] == number:
            yield line
