"""CVAT for images 1.1: one XML, a mask for each object in its box.

annotations.xml is uploaded to a task that has the images; labels.json makes the task's labels, by
its constructor's tab "Raw". A mask's ``rle`` is run lengths of its box row by row, the first of
pixels that are not its own.
"""

import json
import re
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from alps.engine.base.atomic import write_text
from alps.engine.datasets.draft import Done, Draft
from alps.engine.datasets.images import LabelledImage, LabelledRun
from alps.engine.datasets.settings import ExportSettings

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2


class CvatFormat:
    """Writes annotations.xml and labels.json."""

    def __init__(self, run: LabelledRun, draft: Draft, settings: ExportSettings) -> None:
        self._run, self._draft = run, draft
        self._labels = [quoteattr(item.label) for item in run.categories.items]
        self._file = draft.stream("annotations.xml", self._head(), "")

    def add(self, image: LabelledImage, number: int) -> int:
        """An image and its objects."""
        found = self._run.instances(image)
        numbers = self._run.categories.numbers[found.values].tolist()
        self._file.add(
            f'<image id="{image.index}" name={_attribute(image.name)} width="{image.width}" '
            f'height="{image.height}">\n'
        )
        for index, (own, box) in enumerate(zip(numbers, found.boxes.tolist(), strict=True)):
            x, y, width, height = box
            rle = ", ".join(map(str, row_counts(found.mask(index)).tolist()))
            self._file.add(
                f'<mask label={self._labels[own]} source="auto" occluded="0" rle="{rle}" '
                f'left="{x}" top="{y}" width="{width}" height="{height}" z_order="0"></mask>\n'
            )
        self._file.add("</image>\n")
        return len(found)

    def finish(self, done: Done) -> None:
        """The end of the XML, and the labels by themselves."""
        self._file.end("</annotations>\n")
        labels = [
            {"name": item.label, "color": item.hex, "type": "mask", "attributes": []}
            for item in self._run.categories.items
        ]
        text = json.dumps(labels, ensure_ascii=False, indent=1)
        write_text(self._draft.path("labels.json"), text + "\n")

    def _head(self) -> str:
        labels = "".join(
            f"<label><name>{escape(item.label)}</name><color>{item.hex}</color><type>mask</type>"
            "<attributes></attributes></label>\n"
            for item in self._run.categories.items
        )
        return (
            '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
            "<meta><task><name>alps</name><mode>annotation</mode><overlap>0</overlap>\n"
            f"<labels>\n{labels}</labels></task></meta>\n"
        )


def row_counts(mask: np.ndarray) -> np.ndarray:
    """Run lengths of a mask (h, w) bool along its rows, the first of what is not of it: (R,)."""
    flat = np.ascontiguousarray(mask).ravel()
    head = np.flatnonzero(np.concatenate([[bool(flat[0])], flat[1:] != flat[:-1]]))
    return np.diff(head, prepend=0, append=flat.size)


def _attribute(text: str) -> str:
    """An attribute's value in quotes; what XML cannot hold is replaced."""
    return quoteattr(_NOT_XML.sub("\ufffd", text))
