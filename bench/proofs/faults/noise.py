"""Noise: an image, what lies beside it, or a model is spoilt before a run begins.

The archive is labelled in one pass with clusters that are there already, so the label maps of all
other images must have the bytes that they have without the spoilt one. Survived is an image that is
read all the same; one that is not is a row with a reason, a named error.
"""

import random
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import rasterio

from alps.bench.proofs.faults.attack import Attack
from alps.bench.proofs.faults.ground import SIDE, Ground, around, label_maps
from alps.bench.proofs.faults.outcome import SURVIVED, Outcome, Verdict, fault, judge, with_place
from alps.bench.proofs.faults.spoil import NOISES, OTHERS, spoil

IMAGES = ("a.png", "b.jpg", "north/c.tif", "north/d.tif")
STATISTICS = """<PAMDataset>
  <SRS>EPSG:32631</SRS>
  <GeoTransform>500000, 0.5, 0, 4000000, 0, -0.5</GeoTransform>
  <PAMRasterBand band="1"><NoDataValue>7</NoDataValue><ColorInterp>Red</ColorInterp>
    <Metadata><MDI key="STATISTICS_MAXIMUM">200</MDI></Metadata></PAMRasterBand>
</PAMDataset>
"""
VIRTUAL = f"""<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}">
  <SRS>EPSG:32631</SRS><GeoTransform>500000, 0.5, 0, 4000000, 0, -0.5</GeoTransform>
  <VRTRasterBand dataType="Byte" band="1">
    <SimpleSource><SourceFilename relativeToVRT="1">c.tif</SourceFilename>
      <SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="{SIDE}" ySize="{SIDE}"/>
      <DstRect xOff="0" yOff="0" xSize="{SIDE}" ySize="{SIDE}"/></SimpleSource>
  </VRTRasterBand>
</VRTDataset>
"""
MODEL, CLUSTERS = "model.safetensors", "clusters.npz"


def _write_grey(path: Path) -> None:
    grey = np.full((1, SIDE, SIDE), 255, np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype="uint8"
    ) as file:
        file.write(grey)


# What lies beside an image, by its name: the image, and how it is made.
BESIDE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a.png.aux.xml": ("a.png", lambda path: path.write_text(STATISTICS)),
    "north/c.tif.aux.xml": ("north/c.tif", lambda path: path.write_text(STATISTICS)),
    "b.jgw": ("b.jpg", lambda path: path.write_text("0.5\n0\n0\n-0.5\n500000\n4000000\n")),
    "north/c.tif.msk": ("north/c.tif", _write_grey),
    "north/d.tif.ovr": ("north/d.tif", _write_grey),
    "north/v.vrt": ("north/v.vrt", lambda path: path.write_text(VIRTUAL)),
}


def draw(ground: Ground, rng: random.Random) -> Attack:
    """A file and a noise."""
    target = rng.choice([*IMAGES, *IMAGES, *BESIDE, MODEL, CLUSTERS])
    ways = [way.__name__ for way in NOISES]
    how, seed = rng.choice([*ways, *OTHERS] if target in BESIDE else ways), rng.random()
    row = "model, clusters" if target in (MODEL, CLUSTERS) else f"*{Path(target).suffix}"
    carry_out = partial(_noisy, ground, target, how, seed)
    return Attack(row, f"{target} {how}", carry_out)


def _noisy(ground: Ground, target: str, how: str, seed: float) -> Outcome:
    wanted = _label_maps(ground)
    ground.restore(finished=False)
    clusters = ground.round / CLUSTERS
    clusters.write_bytes(ground.clusters.read_bytes())
    path = ground.round / target if target in (MODEL, CLUSTERS) else ground.archive / target
    if target in BESIDE:
        BESIDE[target][1](path)
    spoil(path, how, random.Random(seed), ground.victim)
    before = around(ground)
    ended = ground.alps(*_one_pass(ground, clusters))
    outcome = with_place(judge(ended), ground, before)
    if outcome.verdict is not Verdict.SURVIVED or target in (MODEL, CLUSTERS):
        return outcome
    own = BESIDE[target][0] if target in BESIDE else target
    found = label_maps(ground.out)
    mine = f"labels/{Path(own).with_suffix('')}."
    others = [name for name in wanted if name.startswith("labels/") and mine not in name]
    differing = [name for name in others if found.get(name) != wanted[name]]
    if differing:
        return fault(f"label maps of other images differ: {', '.join(differing)}")
    tiles = pq.read_table(ground.out / "tiles.parquet", columns=["source", "status", "reason"])
    reasons = [
        row["reason"]
        for row in tiles.to_pylist()
        if row["source"] == own and row["status"] == "failed"
    ]
    if reasons and not all(reasons):
        return fault("a tile failed without a reason")
    return Outcome(Verdict.NAMED, reasons[0]) if reasons else SURVIVED


def _one_pass(ground: Ground, clusters: Path) -> list[str | Path]:
    return [*ground.one_pass_command(clusters), "--max-failed", "1"]


@cache
def _label_maps(ground: Ground) -> dict[str, bytes]:
    """Those of an archive that nobody spoilt."""
    ground.restore(finished=False)
    ended = ground.alps(*_one_pass(ground, ground.clusters))
    if ended.code != 0:
        raise SystemExit(f"the undisturbed run failed: {ended.said}")
    return label_maps(ground.out)
