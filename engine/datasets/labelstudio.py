"""Label Studio's tasks: a brush region for each class of an image, as a prediction.

tasks.json is imported, config.xml is the labelling interface to paste. A region is a mask of the
whole image, since the browser keeps a canvas for each: one an object would be hundreds.

The code of a mask is that of @thi.ng/rle-pack, rows end to end, each pixel four times for red,
green, blue and alpha: 32 bits of length, 5 of word size - 1, 4 x 4 of the run sizes - 1; then for
each run a bit 1, which of the sizes in 2 bits, length - 1 in so many bits, and the word.
"""

import json
from collections.abc import Iterable
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import SourceError
from alps.engine.datasets.draft import Done, Draft
from alps.engine.datasets.images import LabelledImage, LabelledRun
from alps.engine.datasets.settings import ExportSettings

FROM, TO = "labels", "image"  # what the parts of the interface are called
CHANNELS = 4
WORD_BITS = 8
SIZE_BITS = np.array([3, 4, 8, 16])
LONGEST = 1 << 16
MOST_WORDS = 1 << 32
ON = 255


class LabelStudioFormat:
    """Writes tasks.json and config.xml."""

    def __init__(self, run: LabelledRun, draft: Draft, settings: ExportSettings) -> None:
        self._run, self._draft, self._url = run, draft, settings.url
        self._tasks = draft.stream("tasks.json", "[\n", ",\n")

    def add(self, image: LabelledImage, number: int) -> int:
        """A task, with a region for each class."""
        if CHANNELS * image.width * image.height >= MOST_WORDS:
            raise SourceError(
                f"{image.width} x {image.height} pixels are more than Label Studio's code of masks "
                "counts; cut the image in pieces and label those"
            )
        values, lengths = row_runs(strip for _, strip in self._run.labels(image))
        found = self._run.categories.numbers[values]
        regions = []
        for own in np.unique(found[found >= 0]).tolist():
            item = self._run.categories.items[own]
            rle = mask_code(found == own, lengths).tolist()
            regions.append(
                {
                    "id": f"{image.index}-{item.value}",
                    "type": "brushlabels",
                    "from_name": FROM,
                    "to_name": TO,
                    "original_width": image.width,
                    "original_height": image.height,
                    "image_rotation": 0,
                    "value": {"format": "rle", "rle": rle, "brushlabels": [item.label]},
                }
            )
        task = {
            "data": {TO: self._url + quote(image.name)},
            "predictions": [{"model_version": "alps", "result": regions}],
        }
        self._tasks.add(json.dumps(task, separators=(",", ":")))
        return len(regions)

    def finish(self, done: Done) -> None:
        """The labelling interface."""
        self._tasks.end("\n]\n")
        labels = (
            f"    <Label value={quoteattr(item.label)} background={quoteattr(item.hex)}/>\n"
            for item in self._run.categories.items
        )
        text = (
            f'<View>\n  <Image name="{TO}" value="${TO}" zoom="true"/>\n'
            f'  <BrushLabels name="{FROM}" toName="{TO}">\n{"".join(labels)}'
            "  </BrushLabels>\n</View>\n"
        )
        write_text(self._draft.path("config.xml"), text)


def row_runs(strips: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Runs of equal values along the rows of an image, end to end: values and lengths, (R,) each.

    strips: (h, W), from top to bottom.
    """
    values, lengths = [], []
    for strip in strips:
        flat = strip.ravel()
        head = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
        values.append(flat[head])
        lengths.append(np.diff(head, append=flat.size))
    return np.concatenate(values), np.concatenate(lengths)


def mask_code(is_on: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The bytes, uint8, of a mask given as runs (R,) bool and their lengths in pixels (R,)."""
    head = np.flatnonzero(np.concatenate([[True], is_on[1:] != is_on[:-1]]))
    words = CHANNELS * np.add.reduceat(lengths, head)
    # Runs in pieces that 16 bits can count, the last of them shorter.
    counts = -(-words // LONGEST)
    pieces = np.full(counts.sum(), LONGEST, np.int64)
    pieces[np.cumsum(counts) - 1] = words - (counts - 1) * LONGEST
    on = np.repeat(is_on[head], counts)
    which = np.searchsorted(1 << SIZE_BITS, pieces)  # the smallest that counts so far
    bits = SIZE_BITS[which]
    token = (((4 | which) << bits | pieces - 1) << WORD_BITS) | np.where(on, ON, 0)
    header = [(32, int(words.sum())), (5, WORD_BITS - 1), *((4, n - 1) for n in SIZE_BITS.tolist())]
    sizes = np.concatenate([[size for size, _ in header], 3 + bits + WORD_BITS])
    return _packed(sizes, np.concatenate([[value for _, value in header], token]))


def _packed(sizes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (T,) one after the other, each in so many of at most 32 bits, highest first: bytes."""
    shifted = (values.astype(np.uint64) << (32 - sizes).astype(np.uint64)).astype(">u4")
    bits = np.unpackbits(shifted.view(np.uint8)).reshape(-1, 32)
    return np.packbits(bits[np.arange(32) < sizes[:, None]])
