"""What is attacked: a small archive, a finished run over it, and what undisturbed commands give."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin

from alps.bench.proofs.faults.child import Ended, Limits, run_alps
from alps.bench.proofs.faults.smallest import CONFIG, DEFAULTS
from alps.engine.cli.main import commands
from alps.engine.demo.scenes import SceneSettings, make_scene
from alps.engine.models.checkpoints import save_sam
from alps.engine.run_folder import plan
from alps.engine.sam import Sam
from alps.kernels.base.threads import set_threads

SIDE = 160  # pixels; four windows of the model's
SHARD = 4  # tiles; a source has a shard of its own


@dataclass(frozen=True)
class Ground:
    """Folders of an attack; all of them lie below ``work``."""

    work: Path

    @property
    def model(self) -> Path:
        """A checkpoint, made anew where an attack changed it."""
        return self.round / "model.safetensors"

    @property
    def base(self) -> Path:
        """Everything as it was before the first attack."""
        return self.work / "base"

    @property
    def round(self) -> Path:
        """Where one attack takes place; restored before the next one."""
        return self.work / "round"

    @property
    def archive(self) -> Path:
        """SRC."""
        return self.round / "archive"

    @property
    def out(self) -> Path:
        """OUT."""
        return self.round / "out"

    @property
    def victim(self) -> Path:
        """A file outside OUT that nothing may touch."""
        return self.round / "outside" / "victim.png"

    @property
    def clusters(self) -> Path:
        """Those of the finished run, for one pass."""
        return self.base / "out" / "clusters.npz"

    def restore(self, *, finished: bool = True) -> None:
        """Put archive and model back, and the finished run where it is wanted."""
        shutil.rmtree(self.round, ignore_errors=True)
        shutil.copytree(self.base, self.round, symlinks=True)
        if not finished:
            shutil.rmtree(self.out)

    def alps(self, *arguments: str | Path, limits: Limits | None = None) -> Ended:
        """Run a command of ALPS, in a process of its own."""
        return run_alps(arguments, self.work / "log", limits)

    def label_command(self) -> list[str | Path]:
        """How the finished run was made."""
        return [
            "label", self.archive, self.out, "--model", self.model, "--device", "cpu",
            "--clusters", "4", "--max-failed", "1",
        ]  # fmt: skip

    def one_pass_command(self, clusters: Path) -> list[str | Path]:
        """How the archive is labelled with clusters that are there already."""
        return [
            "label", self.archive, self.out, "--model", self.model, "--device", "cpu",
            "--clusters-from", clusters,
        ]  # fmt: skip

    def again(self) -> list[list[str | Path]]:
        """Commands that give the finished run other label maps."""
        return [["cluster", self.out, "--clusters", "3"], ["paint", self.out]]


def make_ground(work: Path) -> Ground:
    """Make archive and model, and the finished run. ``work`` must be new."""
    ground = Ground(work)
    # One thread here, so that none is lost in a fork; what is compiled is loaded for all children.
    torch.set_num_threads(1)
    set_threads(1)
    cv2.setNumThreads(1)
    pa.set_cpu_count(1)
    plan.SHARD_TILES = SHARD
    work.mkdir(parents=True)
    ground.round.mkdir()
    _write_archive(ground.archive)
    _write_model(ground.model)
    ground.victim.parent.mkdir()
    ground.victim.write_bytes(b"not to be touched")
    arguments = [str(part) for part in ground.label_command()]
    commands.main(arguments, prog_name="alps", standalone_mode=False)
    shutil.copytree(ground.round, ground.base)
    return ground


def label_maps(out: Path) -> dict[str, bytes]:
    """What a person takes away from a run."""
    files = [*out.glob("labels/**/*"), out / "classes.json"]
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(files)
        if path.is_file() and path.name[0] != "."
    }


def around(ground: Ground) -> dict[str, str]:
    """Digests of all that lies in a round outside OUT; of links, where they lead."""
    return {
        path.relative_to(ground.round).as_posix(): _digest(path)
        for path in sorted(ground.round.rglob("*"))
        if ground.out not in (path, *path.parents)
    }


def _digest(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return f"link to {path.readlink()}" if path.is_symlink() else "no file"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_archive(folder: Path) -> None:
    (folder / "north").mkdir(parents=True)
    scenes: Sequence[np.ndarray] = [
        make_scene(seed, SceneSettings(size=SIDE)).image for seed in range(4)
    ]
    Image.fromarray(scenes[0]).save(folder / "a.png")
    Image.fromarray(scenes[1]).save(folder / "b.jpg")
    place = {"crs": "EPSG:32631", "transform": from_origin(500_000, 4_000_000, 0.5, 0.5)}
    shape = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 3}
    with rasterio.open(
        folder / "north" / "c.tif", "w", dtype="uint8", nodata=0, **shape, **place
    ) as file:
        file.write(scenes[2].transpose(2, 0, 1))
    with rasterio.open(
        folder / "north" / "d.tif", "w", dtype="uint16", compress="deflate", **shape, **place
    ) as file:
        file.write(scenes[3].transpose(2, 0, 1).astype(np.uint16) * 40)


def _write_model(path: Path) -> None:
    torch.manual_seed(5)
    model = Sam(CONFIG)
    with torch.no_grad():
        # Logits are large, so that masks differ from point to point.
        model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(2)
        for mlp in model.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.mul_(100)
    save_sam(model, path, DEFAULTS, metadata={})
