"""Which sources are painted, what their label maps show, and the sums of it: classes.json."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

import numpy as np

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import RunFolderError
from alps.engine.base.lines import append_line, open_journal
from alps.engine.labels.writer import unlabelled_value
from alps.engine.naming.names import ShownClasses
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.painted import UNKNOWN, BySource, PaintedLine, painted_lines
from alps.engine.run_folder.sums import FileSum, record, sum_of


@dataclass(frozen=True)
class Counted:
    """What a label map shows."""

    pixels: np.ndarray  # (K + 1,) int64 of each class, the unlabelled last
    regions: np.ndarray  # (K,) int64 of each class
    # (1,) int64: of the unlabelled pixels those without data
    nodata: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))

    @classmethod
    def of(cls, clusters: int) -> Self:
        """Nothing yet."""
        return cls(np.zeros(clusters + 1, np.int64), np.zeros(clusters, np.int64))


MOST_FILES = 3  # of a source, whose sizes are kept


class PaintedJournal:
    """The lines of journal/painted.jsonl, one a source that was painted; the last one counts.

    A context manager. fingerprint: of all that decides the labels; what was painted under another
    one does not count. Memory is a few numbers a source.
    """

    def __init__(self, folder: RunFolder, clusters: int, fingerprint: str) -> None:
        self._folder, self._clusters, self._fingerprint = folder, clusters, fingerprint
        # Of each source that is painted its line, then the sizes of its files, where the line says.
        self.done = BySource(1 + MOST_FILES)
        self.refused: dict[int, str] = {}  # source index -> why it could not be painted
        self._lines = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        written = _changed(self._folder.painted)
        for number, line in self._read():
            self.forget(line.source_index)  # painted anew since, with other clusters perhaps
            if line.of == self._fingerprint and self._stands(line, written):
                self._note(number, line)
        with _writing(self._folder):
            self._file = open_journal(self._folder.painted)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def has(self, source_index: int, paths: Iterable[Path]) -> bool:
        """Whether a source is painted, and each of its files there with all of its bytes."""
        line, *known = self.done[source_index]
        if line == UNKNOWN:
            return False
        try:
            sizes = [path.stat().st_size for path in paths]
        except OSError:
            return False
        if known[0] != UNKNOWN:
            return sizes == known[: len(sizes)]
        return all(sizes)  # older lines do not say

    def add(
        self,
        source_index: int,
        counted: Counted,
        reason: str = "",
        files: Iterable[FileSum] = (),
    ) -> None:
        """Note a source whose label map is whole, or one that has none (no pixels) and why.

        files: of it, the label map first.
        """
        if self._file is None:
            raise ValueError("the journal is not open")
        with _writing(self._folder):
            line = PaintedLine(
                source_index,
                self._fingerprint,
                reason,
                counted.pixels.tolist(),
                counted.regions.tolist(),
                int(counted.nodata[0]),
                tuple(files),
            )
            append_line(self._file, line.to_dict())
        self.forget(source_index)
        self._note(self._lines, line)
        self._lines += 1

    def forget(self, source_index: int) -> None:
        """Let what was noted of a source count no more."""
        self.refused.pop(source_index, None)
        self.done[source_index] = []

    def write_classes(self, shown: ShownClasses) -> None:
        """Write classes.json: id, name, colour, pixels and regions of each class."""
        total = Counted.of(self._clusters)
        for number, line in self._read():
            if self.done[line.source_index][0] == number:
                total.pixels[:] += line.pixels
                total.regions[:] += line.regions or 0
                total.nodata[:] += line.nodata or 0
        classes = [
            {
                "id": index,
                "name": shown.names[index],
                "colour": shown.colours[index].tolist(),
                "pixels": int(total.pixels[index]),
                "regions": int(total.regions[index]),
                **({"ignored": True} if shown.ignored[index] else {}),
                **({"part_of": value} if value not in (index, -1) else {}),
            }
            for index, value in enumerate(shown.values.tolist())
        ]
        content = {
            "classes": classes,
            "unlabelled": unlabelled_value(self._clusters),
            "unlabelled_pixels": int(total.pixels[self._clusters]),
            "nodata_pixels": int(total.nodata[0]),
        }
        write_text(self._folder.classes, json.dumps(content, indent=1) + "\n")
        record(self._folder, self._folder.classes)

    def _read(self) -> Iterator[tuple[int, PaintedLine]]:
        """Lines by number; what is no whole line is left out."""
        self._lines = 0
        for number, line in enumerate(painted_lines(self._folder.painted)):
            self._lines = number + 1
            if line is not None:
                yield number, line

    def _stands(self, line: PaintedLine, written: int) -> bool:
        """Whether what was painted is what the line says, as far as it changed since the journal
        was ``written``: a line comes after its files, and only those are read again.
        """
        for one in line.files:
            path = self._folder.root / one.file
            # What is gone or of another size is not done either, says ``has``.
            if path.is_file() and _changed(path) > written and sum_of(self._folder, path) != one:
                return False
        return True

    def _note(self, number: int, line: PaintedLine) -> None:
        if line.reason:
            self.refused[line.source_index] = line.reason
        elif line.counts(self._clusters):
            sizes = [one.bytes for one in line.files[:MOST_FILES]]
            self.done[line.source_index] = [number, *sizes]


def _changed(path: Path) -> int:
    """When a file's content changed, in nanoseconds; 0 where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def _writing(folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"cannot write {folder.painted}: {error.strerror or error}; check permissions and the "
            "space left, then run the same command again"
        ) from error
