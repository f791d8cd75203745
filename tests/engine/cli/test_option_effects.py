"""Each option of the commands that label, given on the command line, has its effect.

The table says what shows in the run folder where an option is given and not where it is not. An
option without an entry fails the test, so none can lose its wire on the way to the code.
"""

import functools
import itertools
import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from click.testing import CliRunner
from crews import CrewHere
from PIL import Image
from rasterio.transform import from_origin
from rasters import save_raster
from speck import save_speck

from alps.engine.cli import commands as cli
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.runtimes.pytorch import TorchRuntime

COMMANDS = {"label": cli.label, "segment": cli.segment, "cluster": cli.cluster, "paint": cli.paint,
            "fit-clusters": cli.fit_clusters}  # fmt: skip
WIDTH, HEIGHT = 200, 120  # two windows of 128 pixels

MOSAIC = (
    f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}"><VRTRasterBand dataType="Byte" '
    'band="1"><SimpleSource><SourceFilename relativeToVRT="0">{}</SourceFilename><SourceBand>1'
    "</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
)

pytestmark = pytest.mark.usefixtures("one_thread", "without_reports")


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    said: str
    file: Path  # that fit-clusters was to write
    root: Path  # the run folder
    points_per_batch: set[int]  # that the runtime was asked for
    workers: int  # that were asked for

    @functools.cached_property
    def tiles(self) -> dict[str, np.ndarray]:
        return _columns(self.root / "tiles.parquet")

    @functools.cached_property
    def segments(self) -> dict[str, np.ndarray]:
        return _columns(self.root / "segments")

    @property
    def masks(self) -> np.ndarray:
        """Whether segments are of a mask, and not of what lies under none."""
        return self.segments["mask"] >= 0

    @functools.cached_property
    def clusters(self) -> dict[str, np.ndarray]:
        with np.load(self.root / "clusters.npz") as content:
            return dict(content)

    @property
    def labels(self) -> np.ndarray:
        with Image.open(self.root / "labels" / "a.png") as image:
            return np.asarray(image)

    @property
    def shards(self) -> list[str]:
        return sorted(path.name for path in (self.root / "segments").glob("part-*.parquet"))


def as_of_another_device(run_json: Path) -> None:
    """Let a run look as if a GPU had begun it."""
    run = json.loads(run_json.read_text())
    run["computed_on"]["device"] = "a card"
    del run["sum"]  # edited on purpose
    run_json.write_text(json.dumps(run))


def _columns(path: Path) -> dict[str, np.ndarray]:
    return {name: np.array(v) for name, v in pq.read_table(path).to_pydict().items()}


@dataclass(frozen=True)
class Effect:
    """What an option does."""

    given: tuple[str, ...]  # arguments; {other} and {empty} are a checkpoint and a folder
    shows: Callable[[Outcome, Outcome], bool]  # of the runs with it and without
    beside: tuple[str, ...] = ()  # arguments of both
    # What of: one image; "broken", "naming": with others; after a first run: "changed": replaced,
    # "mended": one more that could not be opened then; "elsewhere": which another device began.
    archive: str = "whole"
    code: int = 0  # the exit code with it
    plain_code: int = 0  # and without


# --- what shows


def box_overlaps(run: Outcome) -> float:
    """The largest IoU of the boxes of two masks of one window."""
    s = run.segments
    low = np.stack([s["x"], s["y"]], 1)
    high = low + np.stack([s["width"], s["height"]], 1) - 1  # stock SAM's boxes end so
    both = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    shared = both.clip(0).prod(-1)
    area = (high - low).prod(-1)
    iou = shared / np.maximum(area[:, None] + area - shared, 1)
    others = (s["tile_id"][:, None] == s["tile_id"]) & ~np.eye(len(iou), dtype=bool)
    return float((iou * others).max())


def regions_of(run: Outcome) -> int:
    """How many regions a run was cut into."""
    return sum(pq.read_metadata(p).num_rows for p in (run.root / "regions").glob("part-*.parquet"))


def source_setting(run: Outcome, name: str) -> object:
    return json.loads((run.root / "run.json").read_text())["settings"]["source"][name]


def reasons(run: Outcome) -> str:
    """Why sources could not be opened."""
    return " ".join(_columns(run.root / "journal" / "plan.parquet")["reason"])


def unlike_colours(given: Outcome, plain: Outcome) -> bool:
    """Whether lightness varies more inside segments, as contrast does."""
    varies = [run.segments["colour"][:, 3].astype(float).mean() for run in (given, plain)]
    return varies[0] > 1.3 * varies[1]


def is_cog(run):
    with rasterio.open(run.root / "labels" / "a.tif") as map_:
        return map_.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"


def has_objects(run: Outcome) -> bool:
    return any((run.root / "objects").glob("**/*.tif"))


def most_of_neighbours(run: Outcome) -> float:
    return float(run.clusters["feature_most_of_neighbours"])


def share_of_window(run: Outcome) -> np.ndarray:
    tile = run.segments["tile_id"]
    return run.segments["area"] / (run.tiles["width"] * run.tiles["height"])[tile]


def without_hue(run: Outcome) -> bool:
    """Whether all colours are greys: mean and deviation of a* and b* are small."""
    return np.abs(run.segments["colour"][:, [1, 2, 4, 5]]).max() < 2


def unlike(name: str) -> Callable[[Outcome, Outcome], bool]:
    """Of the same segments or clusters, other values."""

    def shows(given: Outcome, plain: Outcome) -> bool:
        one, other = ((r.clusters if name in r.clusters else r.segments)[name]
                      for r in (given, plain))  # fmt: skip
        return one.shape == other.shape and not np.array_equal(one, other)

    return shows


def unlike_embeddings(given: Outcome, plain: Outcome) -> bool:
    one, other = given.segments["embedding"], plain.segments["embedding"]
    return one.shape != other.shape or not np.array_equal(one, other)


def of_masks(run: Outcome, name: str) -> np.ndarray:
    """A column of the segments that are masks, not what lies under none."""
    return run.segments[name][run.masks]


def masks_of_at_least(name: str, least: float) -> Callable[[Outcome, Outcome], bool]:
    """Masks that are below in a column are there without the option alone."""

    def shows(given: Outcome, plain: Outcome) -> bool:
        return of_masks(given, name).min() >= least > of_masks(plain, name).min()

    return shows


def lower_stability(given: Outcome, plain: Outcome) -> bool:
    means = [run.segments["stability_score"][run.masks].mean() for run in (given, plain)]
    return means[0] < means[1] - 0.01


SEGMENT = {
    "tile": Effect(("--tile", "64"), lambda g, p: set(g.tiles["width"]) == {64}),
    "overlap": Effect(("--overlap", "60"), lambda g, p: np.diff(g.tiles["x"])[0] <= 68 < 72),
    "bands": Effect(("--bands", "1"), lambda g, p: without_hue(g) and not without_hue(p)),
    "alpha": Effect(("--alpha", "ignore"), lambda g, p: source_setting(g, "alpha") == "ignore"),
    "nodata": Effect(
        ("--nodata", "100", "--nodata", "101"),
        lambda g, p: g.tiles["valid_pixels"].sum() < p.tiles["valid_pixels"].sum(),
        beside=("--bands", "1"),
    ),
    "stretch": Effect(("--stretch", "90,120"), lambda g, p: unlike_colours(g, p)),
    "allow_remote": Effect(
        ("--allow-remote",),
        lambda g, p: (
            source_setting(g, "allow_remote") and "--allow-remote" not in reasons(g)
        ),
        archive="naming",
    ),
    "allow_vrt_outside": Effect(
        ("--allow-vrt-outside",),
        lambda g, p: len(g.tiles["x"]) > len(p.tiles["x"]),
        archive="naming",
    ),
    "asset": Effect(
        ("--asset", "grey"),
        lambda g, p: without_hue(g) and not without_hue(p),
        archive="items.json",
    ),
    "points_per_side": Effect(
        ("--points-per-side", "3"), lambda g, p: (g.tiles["points"] == 9).all()
    ),
    "points_per_batch": Effect(("--points-per-batch", "7"), lambda g, p: g.points_per_batch == {7}),
    "pred_iou_thresh": Effect(
        ("--pred-iou-thresh", "0.1"), masks_of_at_least("predicted_iou", 0.1)
    ),
    "stability_score_thresh": Effect(
        ("--stability-score-thresh", "0.3"), masks_of_at_least("stability_score", 0.3)
    ),
    "stability_score_offset": Effect(("--stability-score-offset", "3"), lower_stability),
    "box_nms_thresh": Effect(
        ("--box-nms-thresh", "0.5"),
        lambda g, p: box_overlaps(g) <= 0.5 < box_overlaps(p),
    ),
    "max_area": Effect(
        ("--max-area", "0.4"),
        lambda g, p: (
            0.2 < share_of_window(g)[g.masks].max() <= 0.4 < share_of_window(p)[p.masks].max()
        ),
    ),
    "min_area": Effect(
        ("--min-area", "1000"),
        lambda g, p: of_masks(g, "area").min() >= 1000 > of_masks(p, "area").min(),
    ),
    "superpixels": Effect(
        ("--superpixels", "20000"), lambda g, p: regions_of(g) > 2 * regions_of(p) > 0
    ),
    "precision": Effect(("--precision", "bf16"), unlike_embeddings),
    "coarse_to_fine": Effect(
        ("--coarse-to-fine",), lambda g, p: (g.tiles["points"] < p.tiles["points"]).any()
    ),
    "runtime": Effect(("--runtime", "onnxruntime"), lambda g, p: "onnxruntime" in g.said, code=1),
    "artefacts": Effect(
        ("--artefacts", "{empty}", "--runtime", "onnxruntime"),
        lambda g, p: "empty" in g.said.replace("\n", ""),
        code=1,
    ),
    "model": Effect(("--model", "{other}"), unlike_embeddings),
    "device": Effect(("--device", "cuda:99"), lambda g, p: "cuda:99" in g.said, code=2),
}  # fmt: skip

CLUSTER = {
    "clusters": Effect(("--clusters", "7"), lambda g, p: len(g.clusters["centroids"]) == 7),
    "remove_position": Effect(
        ("--no-remove-position",),
        lambda g, p: "feature_position" not in g.clusters and "feature_position" in p.clusters,
    ),
    "centre_sources": Effect(
        ("--centre-sources",),
        lambda g, p: g.clusters["feature_centred"] and not p.clusters["feature_centred"],
    ),
    "normalise": Effect(
        ("--no-normalise",),
        lambda g, p: not g.clusters["feature_normalised"] and p.clusters["feature_normalised"],
    ),
    "components": Effect(
        ("--components", "3"), lambda g, p: g.clusters["feature_axes"].shape[1] == 3
    ),
    "colour_weight": Effect(
        ("--colour-weight", "1.2"),
        lambda g, p: np.allclose(
            g.clusters["feature_colour_scale"], 2 * p.clusters["feature_colour_scale"]
        ),
    ),
    "neighbours": Effect(
        ("--neighbours", "0"),
        lambda g, p: most_of_neighbours(g) == 0 < most_of_neighbours(p),
    ),
    "weight_by_area": Effect(("--no-weight-by-area",), unlike("centroids")),
    "passes": Effect(("--passes", "1"), unlike("centroids")),
    "seed": Effect(("--seed", "3"), lambda g, p: int(g.clusters["seed"]) == 3),
}

PAINT = {
    "min_patch": Effect(
        ("--min-patch", "1000000"), lambda g, p: (g.labels == 255).all() and (p.labels < 255).any()
    ),
    "agreement": Effect(
        ("--agreement", "30"), lambda g, p: len(np.unique(g.labels)) == 1 < len(np.unique(p.labels))
    ),
    "objects": Effect(("--objects",), lambda g, p: has_objects(g) and not has_objects(p)),
    "min_margin": Effect(
        ("--min-margin", "1"),
        lambda g, p: (g.labels == 255).mean() > 0.9 > 0.2 > (p.labels == 255).mean(),
    ),
    "cog": Effect(("--cog",), lambda g, p: is_cog(g) and not is_cog(p), archive="placed"),
}
# With OUT in a store alone: tests/engine/stores give it.
ELSEWHERE = {"scratch"}

MAX_FAILED = {
    "max_failed": Effect(
        ("--max-failed", "0.3"), lambda g, p: "0.3" in g.said, archive="broken", code=3
    )
}

WORKERS = {
    "workers": Effect(
        ("--workers", "2"),
        lambda g, p: (g.workers, p.workers) == (2, 0) and g.shards,
    ),
    # What it does on a cluster that answers: tests/engine/workers.
    "ray_cluster": Effect(
        ("--cluster", "ray://127.0.0.1:1"),
        lambda g, p: "no Ray cluster answers" in g.said,
        code=2,
    ),
    "worker_cores": Effect(
        ("--worker-cores", "2"),
        lambda g, p: "goes with --cluster" in g.said,
        code=2,
    ),
}

ANY_DEVICE = {
    "any_device": Effect(
        ("--any-device",),
        lambda g, p: "begun on a card" in p.said and g.shards,
        archive="elsewhere",
        plain_code=1,
    )
}

UPDATE = {
    "update": Effect(("--update",), unlike_embeddings, archive="changed"),
    "retry_failed": Effect(
        ("--retry-failed",), lambda g, p: len(g.tiles["x"]) > len(p.tiles["x"]), archive="mended"
    ),
}

METRICS = {
    "metrics": Effect(
        ("--metrics", "{taken}"), lambda g, p: "cannot listen there" in g.said, code=2
    )
}

EFFECTS = {
    "label": SEGMENT | CLUSTER | PAINT | MAX_FAILED | WORKERS | ANY_DEVICE | UPDATE | METRICS | {
        "clusters_from": Effect(
            ("--clusters-from", "{clusters}"),
            lambda g, p: not g.shards and len(g.clusters["centroids"]) == 6,
        ),
        "keep_segments": Effect(
            ("--keep-segments",), lambda g, p: g.shards and not p.shards,
            ("--clusters-from", "{clusters}"),
        ),
    },
    "segment": SEGMENT | MAX_FAILED | WORKERS | ANY_DEVICE | UPDATE | METRICS | {
        "share": Effect(
            ("--shard", "2/2"), lambda g, p: g.shards == p.shards[1:] != p.shards
        ),
    },
    "cluster": CLUSTER | WORKERS | {
        "device": Effect(
            ("--clusters", "4", "--device", "cuda:99"), SEGMENT["device"].shows, code=2
        ),
    },
    "paint": PAINT | WORKERS | MAX_FAILED,
    "fit-clusters": SEGMENT | CLUSTER | MAX_FAILED | WORKERS | ANY_DEVICE | {
        "sample": Effect(
            ("--sample", "1"), lambda g, p: len(g.tiles["x"]) == 1 < len(p.tiles["x"])
        ),
        "work": Effect(("--work", "{work}"), lambda g, p: g.shards and g.file.is_file()),
    },
}  # fmt: skip
# These take the options of `label` from the same dataclasses.
ALIKE = ("segment", "fit-clusters")
CASES = [
    pytest.param(command, name, marks=[pytest.mark.slow] if command in ALIKE else [])
    for command, effects in EFFECTS.items()
    for name in effects
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_the_table(command):
    options = {p.name for p in COMMANDS[command].params if isinstance(p, click.Option)}
    assert options - ELSEWHERE == set(EFFECTS[command])


# --- runs


class Bench:
    """Runs commands on two small archives, each only once; folders that they need are made."""

    def __init__(self, root: Path, speck: Path) -> None:
        self.root, self.speck = root, speck
        self._runs: dict[tuple, Outcome] = {}
        self._numbers = itertools.count()
        self._taken = socket.create_server(("127.0.0.1", 0))  # a port that nobody else can have
        image = make_scene(3, SceneSettings(size=WIDTH)).image[:HEIGHT]
        for name in ("whole", "broken", "naming", "elsewhere", "mended"):
            (root / name).mkdir()
            Image.fromarray(image).save(root / name / "a.png")
        cut = (root / "whole" / "a.png").read_bytes()
        (root / "broken" / "b.png").write_bytes(cut[: len(cut) // 2])
        for name, address in (("far", "http://127.0.0.1:9/a.tif"), ("near", root / "whole/a.png")):
            (root / "naming" / f"{name}.vrt").write_text(MOSAIC.format(address))
        Image.fromarray(image).convert("L").save(root / "grey.png")
        roles = {"whole/a.png": "data", "grey.png": "overview"}
        assets = {
            Path(href).stem: {"href": href, "type": "image/png", "roles": [role]}
            for href, role in roles.items()
        }
        item = {"type": "Feature", "id": "a", "stac_version": "1.1.0", "assets": assets}
        (root / "items.json").write_text(json.dumps(item))
        place = {"crs": "EPSG:32631", "transform": from_origin(500_000, 4_000_000, 0.5, 0.5)}
        save_raster(root / "placed" / "a.tif", image.transpose(2, 0, 1), **place)
        (root / "empty").mkdir()
        self.names = {
            "other": save_speck(root / "other.safetensors", seed=6),
            "empty": root / "empty",
            "clusters": root / "six.npz",
            "taken": self._taken.getsockname()[1],
        }

    def run(self, command: str, arguments: tuple[str, ...], archive: str = "whole") -> Outcome:
        key = command, arguments, archive
        if key not in self._runs:
            out = self.root / f"run-{next(self._numbers)}"
            self._runs[key] = self._run(command, arguments, out, archive)
        return self._runs[key]

    def _run(self, command: str, arguments: tuple[str, ...], out: Path, archive: str) -> Outcome:
        file = self.root / f"{out.name}-clusters.npz"
        common = ["--model", str(self.speck), "--device", "cpu", "--runtime", "torch"]
        if command in ("label", "fit-clusters", "segment"):
            common += ["--max-failed", "1"]
        if command in ("label", "fit-clusters"):
            common += self._clusters(arguments)
        if command in ("cluster", "paint"):
            shutil.copytree(self.run("label", (), archive).root, out)
            common = {"cluster": ["--clusters", "2"], "paint": ["--max-failed", "1"]}[command]
        places = {
            "label": [str(self.root / archive), str(out)],
            "segment": [str(self.root / archive), str(out)],
            "fit-clusters": [str(self.root / archive), str(file), "--work", str(out)],
        }.get(command, [str(out)])
        names = self.names | {"work": out}
        given = [argument.format(**names) for argument in arguments]
        asked: set[int] = set()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("alps.engine.run_folder.plan.SHARD_TILES", 1)
            real = TorchRuntime.decode

            def decode(runtime, embedding, points, least, batch):
                asked.add(batch)
                return real(runtime, embedding, points, least, batch)

            patch.setattr(TorchRuntime, "decode", decode)
            crew = CrewHere()
            patch.setattr("alps.engine.stages.tiles.crew.LocalCrew", crew.of)
            if archive == "changed":
                self._draw(3)
                CliRunner().invoke(COMMANDS[command], [*places, *common])
                self._draw(4)
            if archive == "mended":
                (self.root / "mended" / "b.png").write_bytes(b"junk")
                CliRunner().invoke(COMMANDS[command], [*places, *common])
                shutil.copy(self.root / "mended" / "a.png", self.root / "mended" / "b.png")
            if archive == "elsewhere":
                CliRunner().invoke(COMMANDS[command], [*places, *common])
                as_of_another_device(out / "run.json")
            done = CliRunner().invoke(COMMANDS[command], [*places, *common, *given])
        code, said = done.exit_code, done.output
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            code, said = getattr(done.exception, "exit_code", -1), said + str(done.exception)
        return Outcome(code, said, file, out, asked, crew.size)

    def _draw(self, seed: int) -> None:
        """Save an image as the archive that changes."""
        (self.root / "changed").mkdir(exist_ok=True)
        image = make_scene(seed, SceneSettings(size=WIDTH)).image[:HEIGHT]
        Image.fromarray(image).save(self.root / "changed" / "a.png")

    def _clusters(self, arguments: tuple[str, ...]) -> list[str]:
        if "--clusters-from" not in arguments:
            return ["--clusters", "2"]
        if not self.names["clusters"].exists():
            six = self.run("fit-clusters", ("--clusters", "6"))
            shutil.copy(six.file, self.names["clusters"])
        return []


@pytest.fixture(scope="module")
def bench(tmp_path_factory, speck, one_thread):
    return Bench(tmp_path_factory.mktemp("effects"), speck)


@pytest.mark.parametrize(("command", "name"), CASES)
def test_an_option_has_its_effect(bench, command, name):
    effect = EFFECTS[command][name]
    plain = bench.run(command, effect.beside, effect.archive)
    given = bench.run(command, (*effect.beside, *effect.given), effect.archive)
    assert plain.code == effect.plain_code, plain.said
    assert given.code == effect.code, given.said
    assert effect.shows(given, plain)
