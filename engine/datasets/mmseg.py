"""mmseg's layout: img_dir and ann_dir, masks whose classes are 0, 1, 2, … and 255 is ignored.

    img_dir/train/NAME.jpg    ann_dir/train/NAME.png    metainfo.json    dataset.json

metainfo.json has what an mmseg config calls metainfo; dataset.json says the same to our trainer.
"""

import json

import numpy as np

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import SettingsError
from alps.engine.datasets.draft import Done, Draft
from alps.engine.datasets.images import LabelledImage, LabelledRun
from alps.engine.datasets.settings import ExportSettings
from alps.engine.labels.writer import UNLABELLED, LabelMapWriter


class MmsegFormat:
    """Links or copies images, and writes a palette PNG for each."""

    def __init__(self, run: LabelledRun, draft: Draft, settings: ExportSettings) -> None:
        numbers = run.categories.numbers
        if len(run.categories.items) > UNLABELLED:
            raise SettingsError(
                f"masks of mmseg have 8 bits, and tell {UNLABELLED} classes apart; the run has "
                f"{len(run.categories.items)}: merge some, or give alps cluster fewer --clusters"
            )
        self._run, self._draft, self._copy = run, draft, settings.copy
        self._numbers = np.where(numbers < 0, UNLABELLED, numbers).astype(np.uint8)

    def add(self, image: LabelledImage, number: int) -> int:
        """An image and its mask, which is one annotation."""
        file = self._run.file(image)
        mask = self._draft.path(f"ann_dir/{image.split}/{image.stem}.png")
        colours = self._run.categories.colours()
        with LabelMapWriter(mask, image.width, image.height, colours) as writer:
            for y, strip in self._run.labels(image):
                writer.write_rows(y, self._numbers[strip])
        name = f"img_dir/{image.split}/{image.stem}{image.suffix}"
        self._draft.take(file, name, copy=self._copy)
        return 1

    def finish(self, done: Done) -> None:
        """What the masks' values mean."""
        items = self._run.categories.items
        names = [item.name for item in items]
        metainfo = {"classes": names, "palette": [item.colour for item in items]}
        rules = {"classes": names, "ignore": [UNLABELLED]}
        for name, content in (("metainfo.json", metainfo), ("dataset.json", rules)):
            text = json.dumps(content, ensure_ascii=False, indent=1)
            write_text(self._draft.path(name), text + "\n")
