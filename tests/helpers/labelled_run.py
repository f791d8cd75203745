"""A finished run of a few small images, and what it holds, found out another way."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import rasterio
from PIL import Image
from scipy import ndimage

from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.sums import record

IMAGES = (
    "a b.png", "line\nbreak.png", "images/ñ 雪.png", "images/x.jpg", "images/x.png",
    "=1+1 &<b>'#?%20.png",
)  # fmt: skip
# What means something to a browser, a spreadsheet, YAML, XML, a shell, or turns text around.
HOSTILE = (
    "</script><img src=x onerror=alert(1)> & \"quotes\" 'too'",
    "=cmd|'/c calc'!A1",
    "two\nlines\r\tand: {yaml: [*a, &b]} # !!python/object:os.system",
    "\u202eright to left \u05d0\u05d1\u0000\u0007",
    "long " * 2000,
    "]]> %s {0} $(touch x) `id` \\u0041",
    "\ud83d half a pair",
)


@dataclass(frozen=True)
class MadeRun:
    folder: RunFolder
    images: Path

    def label(self, name):
        """(H, W) of a label map."""
        with rasterio.open(self.folder.label(name)) as file:
            return file.read(1)

    def rows(self):
        """The first row of each source."""
        rows = {}
        for row in pq.read_table(self.folder.tiles).to_pylist():
            rows.setdefault(row["source_index"], row)
        return rows

    def expected(self, row, objects=None):
        """(value, mask) of all instances of a source, by SciPy and the run's own tables.

        objects: (H, W) the object of each pixel, -1 in none; None: of the tables.
        """
        labels = self.label(row["label"])
        objects = self.objects(row) if objects is None else objects
        for value in np.unique(labels[labels != 255]):
            own = labels == value
            for number in np.unique(objects[own & (objects >= 0)]):
                yield int(value), own & (objects == number)
            patches, count = ndimage.label(own & (objects < 0))
            for patch in range(1, count + 1):
                yield int(value), patches == patch

    def objects(self, row):
        """(H, W) the object of each pixel, -1 in none."""
        table = pq.read_table(self.folder.regions(0), columns=["source_index", "object"])
        own = table["object"].to_numpy()[table["source_index"].to_numpy() == row["source_index"]]
        with rasterio.open(self.folder.region_raster(row["label"])) as file:
            numbers = file.read(1).astype(np.int64)
        return np.append(own, -1)[np.minimum(numbers, len(own))]

    def name_classes(self, names):
        """Give classes these names, as somebody would who can write anything into classes.json."""
        content = json.loads(self.folder.classes.read_text())
        for entry, name in zip(content["classes"], names, strict=False):
            entry["name"] = name
        self.write_classes(content)

    def give_away(self, value, to):
        """Show a class as another one, so that its value is in no label map."""
        for row in self.rows().values():
            labels = self.label(row["label"])
            labels[labels == value] = to
            Image.fromarray(labels).save(self.folder.label(row["label"]))
        content = json.loads(self.folder.classes.read_text())
        content["classes"][to]["pixels"] += content["classes"][value]["pixels"]
        content["classes"][value]["pixels"] = 0
        self.write_classes(content)

    def write_classes(self, content):
        """Another classes.json, as if the run had written it."""
        self.folder.classes.write_text(json.dumps(content))
        record(self.folder, self.folder.classes)
