"""Small downloads of benchmarks, in their official layout and naming."""

import numpy as np
from teaching import save_image

from alps.trainer.benchmarks.known import BENCHMARKS


def pictures(size, benchmark, seed=0):
    """An image, its labels as class numbers, and those in the benchmark's colours."""
    random = np.random.default_rng(seed)
    rules = BENCHMARKS[benchmark].rules
    ids = random.integers(0, len(rules.classes), size)
    image = random.integers(0, 256, (*size, 3))
    return image, ids, ids + 1 if rules.palette is None else np.array(rules.palette)[ids]


def save_isaid(src):
    for split, name, size in (("train", "P0000", (60, 100)), ("val", "P0003", (40, 40))):
        image, ids, colours = pictures(size, "isaid")
        save_image(src / split / "images" / f"{name}.png", image)
        masks = src / split / "Semantic_masks" / "images"
        save_image(masks / f"{name}_instance_color_RGB.png", colours)
        other = src / split / "Instance_masks" / "images"
        save_image(other / f"{name}_instance_id_RGB.png", colours)
    save_image(src / "test" / "images" / "P0006.png", image)
    return {"train": ["P0000"], "val": ["P0003"]}, ids


def save_potsdam(src):
    for name in ("2_10", "6_13"):
        image, ids, colours = pictures((40, 40), "potsdam")
        save_image(src / "2_Ortho_RGB" / f"top_potsdam_{name}_RGB.tif", image)
        save_image(src / "3_Ortho_IRRG" / f"top_potsdam_{name}_IRRG.tif", 255 - image)
        save_image(src / "5_Labels_all" / f"top_potsdam_{name}_label.tif", colours)
    return {"train": ["2_10"], "val": ["6_13"]}, ids


def save_vaihingen(src):
    for name in (1, 2):
        image, ids, colours = pictures((40, 40), "vaihingen")
        save_image(src / "top" / f"top_mosaic_09cm_area{name}.tif", image)
        save_image(src / "gts_for_participants" / f"top_mosaic_09cm_area{name}.tif", colours)
    complete = src / "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE"
    save_image(complete / "top_mosaic_09cm_area9.tif", colours)  # there is no such image
    return {"train": ["1"], "val": ["2"]}, ids


def save_loveda(src):
    for split, area, name in (
        ("Train", "Urban", 1366), ("Train", "Rural", 0), ("Val", "Rural", 2522),
    ):  # fmt: skip
        image, ids, labels = pictures((40, 40), "loveda")
        save_image(src / split / area / "images_png" / f"{name}.png", image)
        save_image(src / split / area / "masks_png" / f"{name}.png", labels)
    save_image(src / "Test" / "Urban" / "images_png" / "4191.png", image)
    return {"train": ["Rural_0", "Urban_1366"], "val": ["Rural_2522"]}, ids


SAVED = {
    "isaid": save_isaid,
    "potsdam": save_potsdam,
    "vaihingen": save_vaihingen,
    "loveda": save_loveda,
}
