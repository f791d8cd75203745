"""A small archive of generated scenes, labelled and scored against its exact classes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import RunFolderError
from alps.engine.base.records import read_record
from alps.engine.demo.scenes import CLASS_NAMES, SceneSettings, make_scene
from alps.engine.quality.measure import Quality, measure_quality
from alps.engine.quality.settings import QualitySettings
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import locked
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages.label import (
    RunOptions,
    RunSummary,
    finish,
    label_archive,
)

SCENE_SIDE = 640
# Coarse to fine, one a scene in turn; training saw all of them, but none of these seeds.
METRES_PER_PIXEL = (0.3, 0.5, 0.8, 1.2)
# Training draws its seeds below 2**31.
FIRST_SEED = 1 << 31
CLUSTERS = 24


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to."""

    summary: RunSummary
    quality: Quality


def run_demo(out: Path, *, scenes: int, seed: int, model: str, device: str) -> DemoResult:
    """Generate ``scenes`` scenes, label them, score the labels, and put the score on the report.

    Raises:
        RunFolderError: ``out`` holds something else, or the demo of other scenes.
    """
    _claim(out, {"scenes": scenes, "seed": seed})
    make_archive(out, scenes, seed)
    options = RunOptions(model=model, device=device)
    settings = RunSettings(cluster=ClusterSettings(clusters=CLUSTERS))
    label_archive(out / "images", out / "run", settings, options)
    quality = measure_quality(
        out / "run", out / "truth", QualitySettings(class_names=tuple(CLASS_NAMES))
    )
    folder = RunFolder(out / "run")
    with locked(folder):
        folder.update_run(quality=quality.as_dict())
        return DemoResult(finish(folder, options.max_failed), quality)


def _claim(out: Path, scenes: dict[str, int]) -> None:
    """Write nothing over what is not an earlier demo of the same scenes."""
    mark = out / "demo.json"
    if mark.exists():
        mend = "give a new folder for the demo"
        if read_record(mark, dict[str, Any], RunFolderError, mend) != scenes:
            raise RunFolderError(f"{out} holds the demo of other scenes; give a new folder")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out} is not an empty folder; give a new one for the demo")
    out.mkdir(parents=True, exist_ok=True)
    write_text(mark, json.dumps(scenes) + "\n")


def make_archive(out: Path, scenes: int, seed: int) -> None:
    """Write scenes as ``images/*.png`` and their classes as ``truth/*.png``."""
    for name in ("images", "truth"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for index in range(scenes):
        metres = METRES_PER_PIXEL[index % len(METRES_PER_PIXEL)]
        scene_seed = FIRST_SEED + 10_000 * seed + index
        scene = make_scene(scene_seed, SceneSettings(size=SCENE_SIDE, metres_per_pixel=metres))
        name = f"scene{index:03d}-{scene.kind}.png"
        Image.fromarray(scene.image).save(out / "images" / name)
        Image.fromarray(scene.classes.astype(np.uint8)).save(out / "truth" / name)
