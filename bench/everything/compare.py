"""Everything mode side by side: what `alps bench everything` prepares, runs and prints.

``Setup`` is what all sides share; ``run_rows`` runs each in a fresh process; ``Comparison`` holds
what came out, as tables and as JSON.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from alps.bench import machine
from alps.bench.everything.flops import FORMS
from alps.bench.everything.matching import LEVELS, Agreement, agreement
from alps.bench.everything.options import EverythingOptions
from alps.bench.everything.sides import (
    STAGES,
    Job,
    SideResult,
    read_tile,
    run_in_fresh_process,
)
from alps.bench.everything.stages import stage_rows
from alps.bench.everything.stock import require_original
from alps.engine.base.device import choose_device
from alps.engine.base.digests import file_sha256
from alps.engine.base.errors import AlpsError, SettingsError
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.images.raster import RasterReader
from alps.engine.images.sources import find_sources
from alps.engine.images.windows import Window, plan_windows
from alps.engine.masks.settings import EverythingSettings
from alps.engine.models.checkpoints import load_network
from alps.engine.models.registry import MODELS, find_model
from alps.engine.sam import OFFICIAL
from alps.engine.sam.config import VIT_T, MobileSamConfig, NetworkConfig, SamConfig
from alps.engine.sam2 import OFFICIAL as OFFICIAL_SAM2
from alps.engine.sam2 import SAM2_DEFAULTS, Sam2Config

STOCK, OURS = "stock AMG", "ours"
STOCK_BUILDER, OUR_BUILDER = "alps.bench.everything.stock:build", "alps.bench.everything.ours:build"

# Of models whose weights need not be here to be timed.
SIZES: dict[str, NetworkConfig] = {**OFFICIAL, "vit_t": VIT_T, **OFFICIAL_SAM2}
SAM2_STOCK_BUILDER = "alps.bench.everything.stock_sam2:build"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Setup:
    """What all sides of a comparison share."""

    model: str
    checkpoint: str
    config: NetworkConfig
    tiles: tuple[tuple[str, int, int, int, int], ...]  # as in Job
    settings: dict[str, Any]  # of SamAutomaticMaskGenerator
    threads: int
    device: str
    repeat: int = 1

    def job(self, label: str, builder: str, form: str = "", **options: Any) -> Job:
        """A side's work; form and options are Job's."""
        return Job(
            label=label,
            builder=builder,
            checkpoint=self.checkpoint,
            tiles=self.tiles,
            settings=self.settings,
            options=options,
            threads=self.threads,
            device=self.device,
            repeat=self.repeat,
            decoder_form=form,
        )

    def stock(self) -> Job:
        """The original's work, the first row of every table."""
        if isinstance(self.config, Sam2Config):
            return self.job(STOCK, SAM2_STOCK_BUILDER, "stock")
        return self.job(STOCK, STOCK_BUILDER, "stock")

    def described(self) -> dict[str, Any]:
        """What must be the same for two results to be compared; no paths of this machine."""
        return {
            "model": self.model,
            "weights": file_sha256(Path(self.checkpoint)),
            "tiles": [[Path(path).name, *window] for path, *window in self.tiles],
            "settings": self.settings,
            "threads": self.threads,
            "device": self.device,
        }


@dataclass
class Comparison:
    """What the sides came to; the first is the one that others are held against."""

    setup: Setup
    machine: str
    gemm_flops: float
    copy_bytes: float | None = None  # a second, both ways counted; None: not measured
    results: list[SideResult] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The tables."""
        settings = ", ".join(f"{name} {_short(v)}" for name, v in self.setup.settings.items())
        yield self.machine
        yield f"{self.setup.model}, {len(self.setup.tiles)} tiles; {settings}"
        yield ""
        yield from columns([TIME_HEADINGS, *map(self._time_row, self.results)])
        if len(self.results) > 1:
            yield ""
            yield from columns([MATCH_HEADINGS, *map(self._match_row, self.results[1:])])
            yield (
                f"found: share of the masks of {self.results[0].label} with a mask of the side at "
                "that IoU or more; own: share of the side's masks with one of those"
            )
        yield from self._stage_lines()

    def _stage_lines(self) -> Iterator[str]:
        """How near stages come to the machine's product and copy; nothing where not known."""
        config, counted = self.setup.config, self.results[0].tiles
        if self.copy_bytes is None or not isinstance(config, SamConfig):
            return
        if not counted or any(tile.prompts_left is None for tile in counted):
            return
        yield ""
        yield from columns(
            stage_rows(config, self.results, counted, self.gemm_flops, self.copy_bytes)
        )
        yield f"memory copy {self.copy_bytes / 1e9:.1f} GB/s; bytes: the least that a stage moves"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with every mask."""
        return {
            "machine": self.machine,
            "gemm_flops": self.gemm_flops,
            "copy_bytes": self.copy_bytes,
            "setup": self.setup.described(),
            "results": [
                result.to_dict() | {"decoder_flops": self.decoder_flops(result)}
                for result in self.results
            ],
        }

    def decoder_flops(self, result: SideResult) -> float | None:
        """FLOP a second of a side's decoder; None where the work is not known.

        Stock's side counted the prompts and masks past the predicted IoU, the same for every side
        that asks the same points.
        """
        stock = self.results[0]
        if not result.tiles or not result.seconds("decode"):
            return None
        if isinstance(self.setup.config, Sam2Config):  # its multiply-adds are not counted
            return None
        if result.decoder_form == "stock":
            counted = result.tiles
        elif (
            result.decoder_form not in FORMS
            or not stock.tiles
            or any(
                mine.prompted != theirs.prompted or theirs.prompts_left is None
                for mine, theirs in zip(result.tiles, stock.tiles, strict=True)
            )
        ):
            return None
        else:
            counted = stock.tiles
        macs = FORMS[result.decoder_form](self.setup.config)
        work = [macs.of(t.prompted, t.prompts_left or 0, t.masks_left or 0) for t in counted]
        return 2 * sum(work) / len(work) / result.seconds("decode")

    def _time_row(self, result: SideResult) -> tuple[str, ...]:
        if result.failure:
            return (result.label, f"failed: {result.failure}")
        first = self.results[0]
        ratio = f"{first.total / result.total:.1f} x" if first.tiles else ""
        rate = self.decoder_flops(result)
        memory = [result.loaded_bytes, result.peak_bytes]
        if self.setup.device != "cpu":
            memory[1] = result.gpu_peak_bytes or 0
        return (
            result.label,
            *(f"{result.seconds(stage):.2f}" for stage in STAGES),
            f"{result.total:.2f}",
            f"{result.cpu_seconds:.2f}",
            ratio,
            "" if rate is None else f"{rate / 1e9:.0f} ({rate / self.gemm_flops:.0%})",
            *(f"{n_bytes / 1e6:.0f}" for n_bytes in memory),
            str(result.masks),
        )

    def _match_row(self, result: SideResult) -> tuple[str, ...]:
        first = self.results[0]
        if not result.tiles or not first.tiles:
            return (result.label, "nothing to compare")
        found, own = self.agreements(result)
        return (
            result.label,
            *(_share(found.shares[level]) for level in LEVELS),
            f"{found.mean_iou:.4f}",
            *(_share(own.shares[level]) for level in LEVELS),
        )

    def agreements(self, result: SideResult) -> tuple[Agreement, Agreement]:
        """How well stock's masks are found among a side's, and the side's among stock's."""
        stock, own = ([tile.counts for tile in side.tiles] for side in (self.results[0], result))
        sizes = [tile.size for tile in result.tiles]
        return agreement(stock, own, sizes), agreement(own, stock, sizes)


TIME_HEADINGS = (
    "seconds a tile", *STAGES, "total", "CPU s", "ratio", "decoder GFLOP/s", "MB loaded", "MB peak",
    "masks",
)  # fmt: skip
MATCH_HEADINGS = (
    "masks in common", *(f"found ≥ {level}" for level in LEVELS), "mean IoU",
    *(f"own ≥ {level}" for level in LEVELS),
)  # fmt: skip


def compare(
    images: Sequence[str],
    options: EverythingOptions,
    *,
    variants: Sequence[dict[str, Any]] = (),
    stock_from: Path | None = None,
    target: Path | None = None,
    say: Say = print,
) -> Comparison:
    """Run stock, ours, and ours with each of ``variants``; print the tables.

    Raises:
        AlpsError: a side failed; the tables are printed nevertheless.
    """
    with prepared(images, options, say) as setup:
        form = "compiled" if setup.device == "cpu" else "absorbed"
        rows = [setup.stock(), setup.job(OURS, OUR_BUILDER, form)]
        for variant in variants:
            label = ", ".join([OURS, *(f"{name}={value}" for name, value in variant.items())])
            rows.append(setup.job(label, OUR_BUILDER, form, **variant))
        return run_rows(setup, rows, stock_from=stock_from, target=target, say=say)


def run_rows(
    setup: Setup,
    jobs: Sequence[Job],
    *,
    stock_from: Path | None = None,
    target: Path | None = None,
    say: Say = print,
) -> Comparison:
    """Run each job in a fresh process, the first of them stock's; print the tables, write JSON."""
    is_mobile = isinstance(setup.config, MobileSamConfig)  # whose original is another package
    if stock_from is None and not is_mobile and any(j.builder == STOCK_BUILDER for j in jobs):
        require_original()  # before anything is timed
    with torch_threads(setup.threads):
        gemm = machine.gemm_rate(setup.device)
        copy = machine.copy_bandwidth() if setup.device == "cpu" else None
        comparison = Comparison(setup, machine.describe(setup.device, gemm), gemm, copy)
    for job in jobs:
        if stock_from is not None and job.builder in (STOCK_BUILDER, SAM2_STOCK_BUILDER):
            result = stock_of(stock_from, setup)
        else:
            say(f"{job.label}: running on {len(job.tiles)} tiles")
            result = run_in_fresh_process(job)
        comparison.results.append(result)
    for line in comparison.lines():
        say(line)
    if target is not None:
        target.write_text(json.dumps(comparison.to_dict(), indent=1) + "\n", encoding="utf-8")
    failed = [
        f"{result.label}: {result.failure}" for result in comparison.results if result.failure
    ]
    if failed:
        raise AlpsError(f"{len(failed)} of {len(jobs)} sides failed; {'; '.join(failed)}")
    return comparison


def stock_of(path: Path, setup: Setup) -> SideResult:
    """Stock's row of an earlier comparison.

    Raises:
        SettingsError: it was made on other tiles, weights or settings, or has no such row.
    """
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        was, plain = earlier["setup"], earlier["results"][0]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise SettingsError(f"{path}: not what --json writes; leave out --stock-from") from error
    now = setup.described()
    differing = [name for name in now if was.get(name) != json.loads(json.dumps(now[name]))]
    if differing:
        raise SettingsError(
            f"{path}: stock ran with other {', '.join(differing)} there; leave out --stock-from"
        )
    plain.pop("decoder_flops", None)
    return SideResult.from_dict(plain)


@contextmanager
def prepared(
    images: Sequence[str], options: EverythingOptions, say: Say = print
) -> Iterator[Setup]:
    """Weights, tiles and thresholds of a comparison; temporary files live as long as it does."""
    with tempfile.TemporaryDirectory(prefix="alps-bench-") as name:
        folder = Path(name)
        config: NetworkConfig
        official = SIZES.get(options.model) if options.random_weights else None
        settings: dict[str, Any]
        if official is not None:  # its weights need not be on this machine
            config, settings, checkpoint = official, {}, folder / "random.pth"
            if isinstance(config, Sam2Config):
                settings = _settings_in(SAM2_DEFAULTS.given())
        else:
            checkpoint = find_model(options.model)
            _, info = load_network(checkpoint)
            config, settings = info.config, _settings_in(info.defaults.given())
        if options.points_per_side is not None:
            settings["points_per_side"] = options.points_per_side
        tiles = tuple(find_tiles(images, options, config.image_size, folder))
        model = options.model if options.model in MODELS else Path(options.model).name
        setup = Setup(
            model=model,
            checkpoint=str(checkpoint),
            config=config,
            tiles=tiles,
            settings=_stock_defaults() | settings,
            threads=options.thread_count,
            device=str(choose_device(options.device)),
            repeat=options.repeat,
        )
        if options.random_weights:
            setup = _with_random_weights(setup, folder / "random.pth", options.seed, say)
        yield setup


def find_tiles(
    images: Sequence[str], options: EverythingOptions, scene_side: int, folder: Path
) -> list[tuple[str, int, int, int, int]]:
    """The tiles of all images, or of a generated scene of ``scene_side`` pixels without any."""
    if images:
        paths = [str(source.path) for image in images for source in find_sources(image)]
    else:
        side = min(max(scene_side, 32), 4096)
        scene = folder / f"scene{options.seed}.png"
        Image.fromarray(make_scene(options.seed, SceneSettings(size=side)).image).save(scene)
        paths = [str(scene)]
    tiles = []
    for path in paths[: options.limit]:
        with RasterReader(path) as reader:
            windows = [Window(0, 0, reader.width, reader.height)]
            if options.tile is not None:
                windows = plan_windows(reader.width, reader.height, options.tile, 0)
        tiles += [(path, w.x, w.y, w.width, w.height) for w in windows]
    return tiles[: options.limit]


def _with_random_weights(setup: Setup, path: Path, seed: int, say: Say) -> Setup:
    from alps.bench.everything.random_weights import save_random_sam, save_random_sam2
    from alps.bench.everything.thresholds import keep_all, thresholds_of
    from alps.engine.masks.generator import MaskGenerator

    if not isinstance(setup.config, SamConfig | MobileSamConfig | Sam2Config):
        raise SettingsError("--random-weights is for SAM, MobileSAM and SAM 2; give a checkpoint")
    say("random weights: looking for thresholds on the first tile")
    with torch_threads(setup.threads):
        image = read_tile(*setup.tiles[0])
        if isinstance(setup.config, Sam2Config):
            save_random_sam2(setup.config, path, image, seed)
        else:
            save_random_sam(setup.config, path, image, seed)
        sam, _ = load_network(path)
        masks = MaskGenerator(sam, **keep_all(setup.settings)).segment(image)
    return replace(
        setup,
        model=f"{setup.model} with random weights",
        checkpoint=str(path),
        settings=setup.settings | thresholds_of(masks),
    )


def _stock_defaults() -> dict[str, Any]:
    """Of what tables should name; the rest is stock's default on either side."""
    chosen = ("points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh",
              "stability_score_offset", "box_nms_thresh")  # fmt: skip
    return {f.name: f.default for f in fields(EverythingSettings) if f.name in chosen}


def _settings_in(defaults: dict[str, Any]) -> dict[str, Any]:
    """Those of a model's own defaults that SamAutomaticMaskGenerator has as well."""
    known = {f.name for f in fields(EverythingSettings)}
    return {name: value for name, value in defaults.items() if name in known}


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """PyTorch with so many threads, here only: what is measured runs in other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table: the first column to the left, all others to the right.

    A row shorter than the first is a remark behind its label.
    """
    full = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    widths[0] = max(len(row[0]) for row in rows)
    for row in rows:
        label = f"{row[0]:<{widths[0]}}"
        if len(row) < len(widths):
            yield f"{label}  {' '.join(row[1:])}"
            continue
        yield label + "".join(f"  {c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _share(value: float) -> str:
    return "-" if value != value else f"{value:.2%}"
