"""Which sources are painted, what their label maps show, and the sums of it: classes.json."""

import json
from dataclasses import dataclass
from typing import IO, Self

import numpy as np

from alps.engine.label_writer import unlabelled_value
from alps.engine.palette import palette
from alps.engine.run_folder import RunFolder, write_text


@dataclass(frozen=True)
class Counted:
    """What a label map shows."""

    pixels: np.ndarray  # (K + 1,) int64 of each class, the unlabelled last
    segments: np.ndarray  # (K,) int64 of each class

    @classmethod
    def of(cls, clusters: int) -> Self:
        """Nothing yet."""
        return cls(np.zeros(clusters + 1, np.int64), np.zeros(clusters, np.int64))


class PaintedJournal:
    """The lines of journal/painted.jsonl, one a source that was painted.

    A context manager. fingerprint: of all that decides the labels; lines under another one, and
    those of sources that could not be painted, do not count as done.
    """

    def __init__(self, folder: RunFolder, clusters: int, fingerprint: str) -> None:
        self._folder, self._clusters, self._fingerprint = folder, clusters, fingerprint
        self.done = self._read()
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        self._file = open(self._folder.painted, "a", encoding="utf-8")
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, source_index: int, counted: Counted) -> None:
        """Note a source whose label map is whole, or one that has none (no pixels)."""
        if self._file is None:
            raise ValueError("the journal is not open")
        line = {"source_index": source_index, "of": self._fingerprint, **_to_lists(counted)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._note(source_index, counted)

    def write_classes(self) -> None:
        """Write classes.json: id, name, colour, pixels and segments of each class."""
        total = Counted.of(self._clusters)
        for counted in self.done.values():
            total.pixels[:] += counted.pixels
            total.segments[:] += counted.segments
        classes = [
            {
                "id": index,
                "name": f"cluster {index}",
                "colour": colour.tolist(),
                "pixels": int(total.pixels[index]),
                "segments": int(total.segments[index]),
            }
            for index, colour in enumerate(palette(self._clusters))
        ]
        content = {
            "classes": classes,
            "unlabelled": unlabelled_value(self._clusters),
            "unlabelled_pixels": int(total.pixels[self._clusters]),
        }
        write_text(self._folder.classes, json.dumps(content, indent=1) + "\n")

    def _read(self) -> dict[int, Counted]:
        self.done: dict[int, Counted] = {}
        if self._folder.painted.exists():
            for text in self._folder.painted.read_text(encoding="utf-8").splitlines():
                try:
                    line = json.loads(text)
                    counted = Counted(*(np.array(line[n]) for n in ("pixels", "segments")))
                except (ValueError, KeyError):  # the last line of a killed run; an older version's
                    continue
                if line["of"] == self._fingerprint:
                    self._note(line["source_index"], counted)
                else:  # painted anew since, with other clusters
                    self.done.pop(line["source_index"], None)
        return self.done

    def _note(self, source_index: int, counted: Counted) -> None:
        if counted.pixels.any():
            self.done[source_index] = counted
        else:
            self.done.pop(source_index, None)


def _to_lists(counted: Counted) -> dict[str, list[int]]:
    return {"pixels": counted.pixels.tolist(), "segments": counted.segments.tolist()}
