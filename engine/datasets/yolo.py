"""Ultralytics' segmentation layout: a text file an image, a line a part of an object.

    images/train/NAME.jpg    labels/train/NAME.txt    data.yaml

A line is a class number and the points of one ring, x and y as shares of the image's sides. An
object of several parts takes as many lines; to join them, as Ultralytics' own converter does, would
draw lines across what lies between. ``polygons`` says what becomes of holes.
"""

import re

from alps.engine.base.atomic import write_text
from alps.engine.datasets.draft import Done, Draft
from alps.engine.datasets.images import TRAIN, VAL, LabelledImage, LabelledRun
from alps.engine.datasets.polygons import rings_of
from alps.engine.datasets.settings import ExportSettings

# Of a pixel. Whoever cuts off what is behind the point, and whoever rounds, finds the pixel again.
WITHIN = 0.25
# The last folder of this name in an image's path is where labels are looked for instead.
_IMAGES = re.compile(r"(?<![^/])images(_*)(?=/)")


class YoloFormat:
    """Links or copies images, and writes the outlines of each one's objects."""

    def __init__(self, run: LabelledRun, draft: Draft, settings: ExportSettings) -> None:
        self._run, self._draft, self._copy = run, draft, settings.copy
        self._val = VAL if settings.splits.val else TRAIN

    def add(self, image: LabelledImage, number: int) -> int:
        """An image and the parts of its objects."""
        file = self._run.file(image)
        found = self._run.instances(image)
        numbers = self._run.categories.numbers[found.values].tolist()
        lines = []
        for index, own in enumerate(numbers):
            for ring in rings_of(found.mask(index)):
                points = ring + found.boxes[index, :2] + WITHIN
                shares = points / (image.width, image.height)
                values = shares.ravel().tolist()
                lines.append(f"{own} " + " ".join(["%.6f"] * len(values)) % tuple(values))
        stem = _IMAGES.sub(r"images\1_", image.stem)
        text = "\n".join(lines) + "\n" * bool(lines)
        write_text(self._draft.path(f"labels/{image.split}/{stem}.txt"), text)
        name = f"images/{image.split}/{stem}{image.suffix}"
        self._draft.take(file, name, copy=self._copy)
        return len(lines)

    def finish(self, done: Done) -> None:
        """Where images are, and the names of the classes."""
        names = [f"  {item.number}: {_quoted(item.name)}" for item in self._run.categories.items]
        held_out = "" if self._val == VAL else "  # none held out: see --val"
        lines = [f"train: images/{TRAIN}", f"val: images/{self._val}{held_out}", "names:", *names]
        write_text(self._draft.path("data.yaml"), "\n".join(lines) + "\n")


def _quoted(text: str) -> str:
    """A double-quoted scalar of YAML 1.2 that is this text to any reader."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return "\\" + letter
    if letter.isprintable():
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 1 << 8 else f"\\U{code:08x}"
