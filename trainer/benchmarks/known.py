"""What the official downloads of benchmarks look like, and what their labels mean.

Names of files are searched below SRC as the unpacked archives have them, wherever they were put.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from alps.trainer.data.rules import LabelRules


@dataclass(frozen=True)
class Benchmark:
    """Patterns match '/'-separated paths below SRC; groups besides ``split`` make up the name.

    Of several patterns the first that an image matches counts.
    """

    title: str
    rules: LabelRules
    crop: int
    stride: int
    images: tuple[str, ...]
    labels: tuple[str, ...]
    test_names: frozenset[str] | None = None  # of the official test images, where names decide

    def split(self, name: str, said: str | None) -> str:
        """``train`` or ``val``, from the folder's name or the image's."""
        if self.test_names is not None:
            return "val" if name in self.test_names else "train"
        return str(said).lower()


@dataclass(frozen=True)
class Found:
    """A file that a pattern matched."""

    name: str
    split: str
    path: Path
    others: tuple[Path, ...] = ()  # files of the same pattern and name, in other folders


def match(
    benchmark: Benchmark, patterns: tuple[str, ...], below: str
) -> tuple[int, str, str] | None:
    """(rank of the pattern, name, split) of a path below SRC; None where none matches."""
    for rank, pattern in enumerate(patterns):
        hit = re.search(pattern, below)
        if hit:
            parts = hit.groupdict()
            said = parts.pop("split", None)
            name = "_".join(parts.values())
            return rank, name, benchmark.split(name, said)
    return None


ISPRS = LabelRules(
    classes=("impervious surface", "building", "low vegetation", "tree", "car", "clutter"),
    palette=(
        (255, 255, 255),
        (0, 0, 255),
        (0, 255, 255),
        (0, 255, 0),
        (255, 255, 0),
        (255, 0, 0),
    ),
    ignore_colours=((0, 0, 0),),  # borders of objects, in the eroded labels
    left_out=("clutter",),
)

# The contest's test images, named by row and column, and by area.
POTSDAM_TEST = frozenset(
    f"{row}_{column}"
    for row, columns in {2: (13, 14), 3: (13, 14), 4: (13, 14, 15), 5: (13, 14, 15),
                         6: (13, 14, 15), 7: (13,)}.items()
    for column in columns
)  # fmt: skip
VAIHINGEN_TEST = frozenset(
    map(str, (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38))
)

BENCHMARKS = {
    # Waqas Zamir et al. 2019 (arXiv 1905.12886); crops as its authors and those after them cut.
    "isaid": Benchmark(
        title="iSAID",
        rules=LabelRules(
            classes=(
                "background", "ship", "storage tank", "baseball diamond", "tennis court",
                "basketball court", "ground track field", "bridge", "large vehicle",
                "small vehicle", "helicopter", "swimming pool", "roundabout",
                "soccer ball field", "plane", "harbor",
            ),
            palette=(
                (0, 0, 0), (0, 0, 63), (0, 63, 63), (0, 63, 0), (0, 63, 127), (0, 63, 191),
                (0, 63, 255), (0, 127, 63), (0, 127, 127), (0, 0, 127), (0, 0, 191), (0, 0, 255),
                (0, 191, 127), (0, 127, 191), (0, 127, 255), (0, 100, 155),
            ),
        ),
        crop=896,
        stride=512,
        images=(r"(?:^|/)(?P<split>train|val|test)/images/(?:.*/)?(?P<name>P\d+)\.png$",),
        labels=(
            r"(?:^|/)(?P<split>train|val)/Semantic_masks/(?:.*/)?"
            r"(?P<name>P\d+)_instance_color_RGB\.png$",
        ),
    ),
    # ISPRS 2D Semantic Labeling Contest.
    "potsdam": Benchmark(
        title="ISPRS Potsdam",
        rules=ISPRS,
        crop=512,
        stride=512,
        images=(
            r"top_potsdam_(?P<name>\d+_\d+)_RGB\.tif$",
            r"top_potsdam_(?P<name>\d+_\d+)_IRRG\.tif$",
        ),
        labels=(
            r"top_potsdam_(?P<name>\d+_\d+)_label_noBoundary\.tif$",
            r"top_potsdam_(?P<name>\d+_\d+)_label\.tif$",
        ),
        test_names=POTSDAM_TEST,
    ),
    "vaihingen": Benchmark(
        title="ISPRS Vaihingen",
        rules=ISPRS,
        crop=512,
        stride=512,
        images=(r"(?:^|/)top/top_mosaic_09cm_area(?P<name>\d+)\.tif$",),
        labels=(
            r"top_mosaic_09cm_area(?P<name>\d+)_noBoundary\.tif$",
            r"(?:^|/)(?:gts[^/]*|[^/]*ground_truth[^/]*)/(?:.*/)?"
            r"top_mosaic_09cm_area(?P<name>\d+)\.tif$",
        ),
        test_names=VAIHINGEN_TEST,
    ),
    # Wang et al. 2021 (arXiv 2110.08733); label 0 is no data.
    "loveda": Benchmark(
        title="LoveDA",
        rules=LabelRules(
            classes=(
                "background", "building", "road", "water", "barren", "forest", "agriculture",
            ),
            reduce_zero=True,
        ),
        crop=1024,
        stride=1024,
        images=(
            r"(?:^|/)(?P<split>Train|Val|Test)/(?P<area>Urban|Rural)/images_png/(?P<name>\d+)\.png$",
        ),
        labels=(
            r"(?:^|/)(?P<split>Train|Val)/(?P<area>Urban|Rural)/masks_png/(?P<name>\d+)\.png$",
        ),
    ),
}  # fmt: skip
