"""Which sources are painted, what their label maps show, and the sums of it: classes.json."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Self

import numpy as np

from alps.engine.base.atomic import write_text
from alps.engine.labels.palette import palette
from alps.engine.labels.writer import unlabelled_value
from alps.engine.run_folder.folder import RunFolder


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


class PaintedJournal:
    """The lines of journal/painted.jsonl, one a source that was painted; the last one counts.

    A context manager. fingerprint: of all that decides the labels; what was painted under another
    one does not count. Memory is two numbers a source.
    """

    def __init__(self, folder: RunFolder, clusters: int, fingerprint: str) -> None:
        self._folder, self._clusters, self._fingerprint = folder, clusters, fingerprint
        self.done: dict[int, int] = {}  # source index -> its line
        self.refused: dict[int, str] = {}  # source index -> why it could not be painted
        self._lines = 0
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        for number, line in self._read():
            index = line["source_index"]
            self.refused.pop(index, None)
            self.done.pop(index, None)  # painted anew since, with other clusters perhaps
            if line.get("of") == self._fingerprint:
                self._note(number, line)
        self._file = open(self._folder.painted, "a", encoding="utf-8")
        if self._lines and not self._ends_whole():  # the last line of a killed run
            self._file.write("\n")
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, source_index: int, counted: Counted, reason: str = "") -> None:
        """Note a source whose label map is whole, or one that has none (no pixels) and why."""
        if self._file is None:
            raise ValueError("the journal is not open")
        line = {
            "source_index": source_index,
            "of": self._fingerprint,
            "reason": reason,
            "pixels": counted.pixels.tolist(),
            "regions": counted.regions.tolist(),
            "nodata": int(counted.nodata[0]),
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self.refused.pop(source_index, None)
        self.done.pop(source_index, None)
        self._note(self._lines, line)
        self._lines += 1

    def write_classes(self) -> None:
        """Write classes.json: id, name, colour, pixels and regions of each class."""
        total = Counted.of(self._clusters)
        for number, line in self._read():
            if self.done.get(line["source_index"]) == number:
                total.pixels[:] += line["pixels"]
                total.regions[:] += line["regions"]
                total.nodata[:] += line["nodata"]
        classes = [
            {
                "id": index,
                "name": f"cluster {index}",
                "colour": colour.tolist(),
                "pixels": int(total.pixels[index]),
                "regions": int(total.regions[index]),
            }
            for index, colour in enumerate(palette(self._clusters))
        ]
        content = {
            "classes": classes,
            "unlabelled": unlabelled_value(self._clusters),
            "unlabelled_pixels": int(total.pixels[self._clusters]),
            "nodata_pixels": int(total.nodata[0]),
        }
        write_text(self._folder.classes, json.dumps(content, indent=1) + "\n")

    def _read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Lines by number; what is no whole line is left out."""
        self._lines = 0
        if not self._folder.painted.exists():
            return
        with open(self._folder.painted, encoding="utf-8") as file:
            for number, text in enumerate(file):
                self._lines = number + 1
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict) and "source_index" in line:
                    yield number, line

    def _ends_whole(self) -> bool:
        with open(self._folder.painted, "rb") as file:
            file.seek(-1, 2)
            return file.read() == b"\n"

    def _note(self, number: int, line: dict[str, Any]) -> None:
        if line.get("reason"):
            self.refused[line["source_index"]] = line["reason"]
        elif {"nodata", "regions"} <= line.keys() and any(line["pixels"]):  # older: painted anew
            self.done[line["source_index"]] = number
