"""Both pipelines one after the other: what `alps bench pipeline` prepares, runs and prints."""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from alps.bench import machine
from alps.bench.everything.compare import Say, Setup, columns, prepared, torch_threads
from alps.bench.everything.sides import read_tile
from alps.bench.everything.stock import require_original
from alps.bench.pipeline.options import PipelineOptions
from alps.bench.pipeline.published import MAX_AREA
from alps.bench.pipeline.sides import OURS, PUBLISHED, SideJob, SideRun, run_side
from alps.engine.base.errors import AlpsError

ONE = f"{OURS}, one tile"  # what starting costs, and compiling where that was not done before
HEADINGS = ("whole job", "s", "s a tile", "CPU s", "ratio", "MB peak", "masks", "files", "MB files")


@dataclass
class PipelineComparison:
    """What both sides took."""

    setup: Setup
    clusters: int
    machine: str
    runs: list[SideRun] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Seconds of the published code's whole job over ours."""
        by_label = {run.label: run for run in self.runs}
        return by_label[PUBLISHED].total / by_label[OURS].total

    def lines(self) -> Iterator[str]:
        """The tables."""
        settings = ", ".join(f"{name} {value}" for name, value in self.setup.settings.items())
        sizes = sorted({(width, height) for *_, width, height in self.setup.tiles})
        yield self.machine
        yield (
            f"{self.setup.model}, {len(self.setup.tiles)} tiles of {sizes[0][0]} x {sizes[0][1]} "
            f"to {sizes[-1][0]} x {sizes[-1][1]} px, K {self.clusters}; {settings}"
        )
        yield ""
        yield from columns([HEADINGS, *map(self._row, self.runs)])
        for run in self.runs:
            if run.failure:
                continue
            rest = run.total - sum(run.seconds.values())
            stages = run.seconds | {"start, imports and all else": rest}
            yield ""
            yield f"{run.label}, seconds of all tiles: " + "; ".join(
                f"{stage} {seconds:.1f}" for stage, seconds in stages.items()
            )

    def _row(self, run: SideRun) -> tuple[str, ...]:
        if run.failure:
            return (run.label, f"failed: {run.failure}")
        tiles = 1 if run.label == ONE else len(self.setup.tiles)
        ratio = f"{self.ratio:.1f} x" if run.label == OURS and not self.runs[0].failure else ""
        return (
            run.label,
            f"{run.total:.1f}",
            f"{run.total / tiles:.2f}",
            f"{run.cpu_seconds:.1f}",
            ratio,
            f"{run.peak_bytes / 1e6:.0f}",
            str(run.masks),
            str(run.files),
            f"{run.file_bytes / 1e6:.1f}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "machine": self.machine,
            "setup": self.setup.described() | {"clusters": self.clusters, "max_area": MAX_AREA},
            "runs": [asdict(run) for run in self.runs],
        }


def compare_pipelines(
    images: Sequence[str],
    options: PipelineOptions,
    *,
    target: Path | None = None,
    say: Say = print,
) -> PipelineComparison:
    """Run the published pipeline and ``alps label`` on the same tiles; print the tables.

    Before both, `alps label` runs on the first tile alone: what a start costs, and nobody's
    clock holds the compilation that only the first run on a machine has.

    Raises:
        AlpsError: a side failed; the tables are printed nevertheless.
        SettingsError: the original is not installed.
    """
    require_original()
    with (
        prepared(images, options.as_everything(), say) as setup,
        tempfile.TemporaryDirectory(prefix="alps-bench-") as name,
    ):
        work = Path(name)
        with torch_threads(setup.threads):
            gemm = machine.gemm_rate(setup.device)
            load = os.getloadavg()[0]
            about = f"{machine.describe(setup.device, gemm)}; load {load:.1f} before the start"
        comparison = PipelineComparison(setup, options.clusters, about)
        write_tiles(setup, work / "tiles")
        write_tiles(setup, work / "first", 1)
        for label, tiles in ((ONE, "first"), (PUBLISHED, "tiles"), (OURS, "tiles")):
            say(f"{label}: running")
            comparison.runs.append(run_side(job_of(label, work / tiles, setup, options)))
    for line in comparison.lines():
        say(line)
    if target is not None:
        target.write_text(json.dumps(comparison.to_dict(), indent=1) + "\n", encoding="utf-8")
    failed = [f"{run.label}: {run.failure}" for run in comparison.runs if run.failure]
    if failed:
        raise AlpsError(
            f"{len(failed)} of {len(comparison.runs)} sides failed; {'; '.join(failed)}"
        )
    return comparison


def job_of(label: str, tiles: Path, setup: Setup, options: PipelineOptions) -> SideJob:
    """A side's work on a folder of tiles; what it writes comes beside that folder."""
    return SideJob(
        label=label,
        tiles=str(tiles),
        out=str(tiles.parent / label.replace(",", "").replace(" ", "-")),
        checkpoint=setup.checkpoint,
        settings=setup.settings,
        clusters=options.clusters,
        tile=max(max(width, height) for *_, width, height in setup.tiles),
        threads=setup.threads,
        device=setup.device,
        seed=options.seed,
        max_area=MAX_AREA,
    )


def write_tiles(setup: Setup, folder: Path, count: int | None = None) -> None:
    """The first tiles, or all, as RGB PNG files: both sides read the same pixels."""
    folder.mkdir()
    for index, tile in enumerate(setup.tiles[:count]):
        Image.fromarray(read_tile(*tile)).save(folder / f"{index:03}.png")
