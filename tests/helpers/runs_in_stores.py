"""A small run, and what of it must be the same wherever its images or its OUT lie."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from small_runs import results

from alps.engine.settings import ClusterSettings, PaintSettings, RunSettings, SourceSettings

SETTINGS = RunSettings(SourceSettings(tile=128, overlap=16), cluster=ClusterSettings(clusters=3))
AS_COG = replace(SETTINGS, paint=PaintSettings(cog=True))


def content(out: Path) -> dict[str, bytes]:
    """As ``results``, but for where clusters say that the images lay."""
    found = results(out)
    del found["clusters.npz"]
    with np.load(out / "clusters.npz") as clusters:
        return found | {name: clusters[name].tobytes() for name in clusters if name != "made_with"}
