"""Each option of ``alps predict``, given on the command line, has its effect."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from crews import CrewHere
from PIL import Image
from predicting import blobs

from alps.engine.run_folder.tables import read_table
from alps.trainer.predict import model as models
from alps.trainer.predict import shards
from alps.trainer.predict.command import predict

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports")

MOSAIC = (
    '<VRTDataset rasterXSize="80" rasterYSize="60"><VRTRasterBand dataType="Byte" band="1">'
    '<SimpleSource><SourceFilename relativeToVRT="0">{}</SourceFilename><SourceBand>1</SourceBand>'
    "</SimpleSource></VRTRasterBand></VRTDataset>"
)


@dataclass(frozen=True)
class Outcome:
    code: int
    said: str
    root: Path
    batches: list[int]
    precision: list[str]
    workers: int  # that were asked for

    @property
    def tiles(self):
        table = read_table(self.root / "tiles.parquet").to_pydict()
        return {name: np.array(values) for name, values in table.items()}

    @property
    def labels(self):
        with rasterio.open(self.root / "labels" / "a.png") as file:
            return file.read(1)

    @property
    def settings(self):
        return json.loads((self.root / "run.json").read_text())["settings"]["source"]

    def has(self, pattern):
        return any(self.root.glob(pattern))


def reasons(run: Outcome) -> str:
    return " ".join(read_table(run.root / "journal" / "plan.parquet")["reason"].to_pylist())


@dataclass(frozen=True)
class Effect:
    given: tuple[str, ...]
    shows: Callable[[Outcome, Outcome], bool]  # of the runs with it and without
    archive: str = "whole"
    code: int = 0


def other_labels(given: Outcome, plain: Outcome) -> bool:
    return given.labels.shape == plain.labels.shape and (given.labels != plain.labels).any()


EFFECTS = {
    "device": Effect(("--device", "cuda:99"), lambda g, p: "cuda:99" in g.said, code=2),
    "workers": Effect(
        ("--workers", "2"), lambda g, p: (g.workers, p.workers) == (2, 0) and g.batches
    ),
    # What it does on a cluster that answers: tests/trainer/predict/test_predict_workers.py.
    "ray_cluster": Effect(
        ("--cluster", "ray://127.0.0.1:1"), lambda g, p: "no Ray cluster answers" in g.said, code=2
    ),
    "worker_cores": Effect(
        ("--worker-cores", "2"), lambda g, p: "goes with --cluster" in g.said, code=2
    ),
    "max_failed": Effect(
        ("--max-failed", "0.01"), lambda g, p: "--max-failed 0.01" in g.said, "broken", 3
    ),
    "update": Effect(("--update",), other_labels, "changed"),
    "retry_failed": Effect(
        ("--retry-failed",), lambda g, p: len(g.tiles["x"]) > len(p.tiles["x"]), "mended"
    ),
    "metrics": Effect(
        # An address of nobody's machine, kept for documentation.
        ("--metrics", "192.0.2.1:9100"),
        lambda g, p: "cannot listen there" in g.said,
        code=2,
    ),
    "share": Effect(
        ("--shard", "1/2"),
        lambda g, p: (
            "other machines" in g.said and g.has("predicted/*") and not p.has("predicted/*")
        ),
    ),
    "tile": Effect(("--tile", "64"), lambda g, p: set(g.tiles["width"]) == {64}),
    "overlap": Effect(("--overlap", "0"), lambda g, p: len(g.tiles["x"]) < len(p.tiles["x"])),
    "bands": Effect(("--bands", "1"), other_labels),
    "alpha": Effect(("--alpha", "ignore"), lambda g, p: g.settings["alpha"] == "ignore"),
    "nodata": Effect(
        ("--nodata", "7"), lambda g, p: (g.labels == 255).any() and (p.labels < 255).all()
    ),
    "stretch": Effect(("--stretch", "90,120"), lambda g, p: g.settings["stretch"] == "90,120"),
    "allow_remote": Effect(
        ("--allow-remote",), lambda g, p: "--allow-remote" not in reasons(g), "naming"
    ),
    "allow_vrt_outside": Effect(
        ("--allow-vrt-outside",), lambda g, p: len(g.tiles["x"]) > len(p.tiles["x"]), "naming"
    ),
    "asset": Effect(
        ("--asset", "other"), lambda g, p: "it has no asset 'other'" in g.said, "items.json", 2
    ),
    "confidence": Effect(
        ("--confidence",), lambda g, p: g.has("confidence/*") and not p.has("confidence")
    ),
    "probabilities": Effect(
        ("--probabilities",), lambda g, p: g.has("probabilities/*") and not p.has("probabilities")
    ),
    "batch": Effect(("--batch", "2"), lambda g, p: max(g.batches) == 2 < max(p.batches)),
    "precision": Effect(
        ("--precision", "bfloat16"), lambda g, p: g.precision == ["bfloat16"] != p.precision
    ),
}


def test_every_option_is_in_the_table():
    options = {p.name for p in predict.params if isinstance(p, click.Option)}
    # What has an effect with OUT in a store alone: tests/engine/stores.
    assert options - {"scratch"} == set(EFFECTS)


@pytest.fixture(scope="module")
def bench(tmp_path_factory, checkpoint):
    """A function that runs the command on one of three small archives, each only once."""
    root, runs = tmp_path_factory.mktemp("bench"), {}
    pixels = blobs(3, (80, 60)).copy()
    pixels[:9, :9] = 7
    for name in ("whole", "broken", "naming", "changed", "mended"):
        (root / name).mkdir()
        Image.fromarray(pixels).save(root / name / "a.png")
    content = (root / "whole" / "a.png").read_bytes()
    asset = {"href": "whole/a.png", "type": "image/png", "roles": ["data"]}
    items = {"type": "Feature", "stac_version": "1.1.0", "id": "a", "assets": {"image": asset}}
    (root / "items.json").write_text(json.dumps(items))
    (root / "broken" / "b.png").write_bytes(content[: len(content) // 2])
    for name, address in (("far", "http://127.0.0.1:9/a.tif"), ("near", root / "whole/a.png")):
        (root / "naming" / f"{name}.vrt").write_text(MOSAIC.format(address))

    def run(given, archive):
        if (given, archive) in runs:
            return runs[given, archive]
        out, batches, precision = root / f"out{len(runs)}", [], []
        words = [str(checkpoint), str(root / archive), str(out), "--device", "cpu"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 4)
            real = shards.probabilities, models.autocast_for
            patch.setattr(
                shards,
                "probabilities",
                lambda m, some, *rest: [batches.append(len(some)), real[0](m, some, *rest)][1],
            )
            patch.setattr(
                models, "autocast_for", lambda d, p: [precision.append(p), real[1](d, p)][1]
            )
            crew = CrewHere()
            patch.setattr("alps.engine.stages.tiles.crew.LocalCrew", crew.of)
            if archive == "changed":
                CliRunner().invoke(predict, [*words, "--max-failed", "1"])
                Image.fromarray(pixels[::-1]).save(root / archive / "a.png")
                precision.clear()
            if archive == "mended":
                (root / archive / "b.png").write_bytes(b"junk")
                CliRunner().invoke(predict, [*words, "--max-failed", "1"])
                (root / archive / "b.png").write_bytes(content)
            done = CliRunner().invoke(predict, [*words, "--max-failed", "1", *given])
            if archive == "changed":
                Image.fromarray(pixels).save(root / archive / "a.png")
        said = f"{done.output} {done.exception}"
        code = getattr(done.exception, "exit_code", done.exit_code)
        runs[given, archive] = Outcome(code, said, out, batches, precision, crew.size)
        return runs[given, archive]

    return run


@pytest.mark.parametrize("name", EFFECTS)
def test_an_option_has_its_effect(bench, name):
    effect = EFFECTS[name]
    given, plain = bench(effect.given, effect.archive), bench((), effect.archive)
    assert plain.code == 0 and given.code == effect.code, given.said
    assert effect.shows(given, plain)
