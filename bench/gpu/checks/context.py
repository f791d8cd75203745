"""What steps share: where they run, how large, what they found, and a clock for either device."""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from alps.bench.proofs.faults.smallest import CONFIG, DEFAULTS
from alps.engine.base.atomic import write_text

SCENES = 20  # seeds of scenes begin here


class Skipped(Exception):
    """A step has nothing to do here; the text says why."""


@dataclass
class Context:
    """Of one step.

    Args:
        out: the folder of the run; the step's rows are ``out/STEP.json``.
        step: its name.
        kind: cuda; cpu, where the same code runs and nothing is measured that means anything; or
            fake, a card that computes nothing (``alps.bench.gpu.fake_card``), on which what is a
            GPU's alone can be tried.
        small: tiny shapes.
    """

    out: Path
    step: str
    kind: str  # cuda, cpu or fake
    small: bool
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def device(self) -> str:
        """As PyTorch calls it."""
        return "cpu" if self.kind == "cpu" else "cuda"

    @property
    def on_gpu(self) -> bool:
        """Whether there is one, or what stands in for it."""
        return self.kind != "cpu"

    @property
    def work(self) -> Path:
        """A folder for what the step writes beside its rows."""
        folder = self.out / "work" / self.step
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def add(self, what: str, value: Any, unit: str = "", note: str = "") -> None:
        """A row; kept at once, so that a step that is ended has what it had found."""
        if isinstance(value, float):
            value = float(f"{value:.5g}") if math.isfinite(value) else str(value)
        self.rows.append({"what": what, "value": value, "unit": unit, "note": note})
        self.write("unfinished")

    def write(self, status: str, reason: str = "", seconds: float = 0.0) -> None:
        """Write what there is."""
        kept = {
            "step": self.step,
            "status": status,
            "reason": reason,
            "seconds": round(seconds, 2),
            "device": self.kind,
            "small": self.small,
            "rows": self.rows,
        }
        write_text(self.out / f"{self.step}.json", json.dumps(kept, indent=1) + "\n")

    def need_gpu(self) -> None:
        """Raise Skipped where there is none."""
        if not self.on_gpu:
            raise Skipped("needs a GPU")

    def need_values(self) -> None:
        """Raise Skipped where nothing is computed."""
        if self.kind == "fake":
            raise Skipped("needs a device that computes")

    def tried(self, what: str, call: Callable[[], None]) -> None:
        """Go on where one part of a step fails: its row says why."""
        import torch

        try:
            call()
        except Skipped as error:
            self.add(what, "skipped", note=str(error))
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            self.add(what, "failed", note=f"{type(error).__name__}: {text}")
        if self.on_gpu:  # one that has failed may have left much
            torch.cuda.empty_cache()

    def milliseconds(self, call: Callable[[], Any], times: int = 10) -> float:
        """Median of some calls, after one that compiles; on a GPU by its own clock."""
        import torch

        call()
        taken = []
        for _ in range(2 if self.small else times):
            if self.on_gpu:
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                torch.cuda.synchronize()
                first.record()
                call()
                last.record()
                last.synchronize()
                taken.append(first.elapsed_time(last))
            else:
                began = time.perf_counter()
                call()
                taken.append(1e3 * (time.perf_counter() - began))
        return median(taken)

    @property
    def model(self) -> str:
        """What ``--model`` takes: ``tiny``, or a network of a few thousand random weights."""
        if not self.small:
            return "tiny"
        path = self.work / "smallest.safetensors"
        if not path.exists():
            save_smallest(path)
        return str(path)

    def sam(self, name: str) -> Any:
        """A network on the device: ``tiny`` as shipped, others with random weights."""
        import torch

        from alps.engine.models.load import load_model
        from alps.engine.sam import OFFICIAL, Sam

        if self.kind == "fake":
            from alps.engine.sam.empty import empty_sam

            return empty_sam(OFFICIAL.get(name, CONFIG)).eval()
        if name == "tiny" or self.small:
            return load_model(self.model, self.device)[0]
        torch.manual_seed(0)
        with torch.device(self.device):
            sam = Sam(OFFICIAL[name])
        with torch.no_grad():
            for parameter in sam.parameters():
                if parameter.abs().max() == 0:  # positions begin at 0
                    parameter.normal_(std=0.02)
        return sam.eval().requires_grad_(False)

    def scene(self, size: int, number: int = 0) -> np.ndarray:
        """A generated scene (size, size, 3) uint8."""
        from alps.engine.demo.scenes import SceneSettings, make_scene

        return make_scene(SCENES + number, SceneSettings(size=size)).image

    def in_full_float32(self) -> Any:
        """Without TF32, where there is a GPU."""
        from alps.engine.runtimes.full_float32 import full_float32

        return full_float32() if self.on_gpu else nullcontext()


def save_smallest(path: Path) -> None:
    """Write a checkpoint of the smallest network, with random weights."""
    import torch

    from alps.engine.models.checkpoints import save_sam
    from alps.engine.sam import Sam

    torch.manual_seed(5)
    save_sam(Sam(CONFIG), path, DEFAULTS, metadata={})


def largest_error(found: Any, exact: Any) -> float:
    """Root mean square of what two tensors differ by, over the second's own; infinite for NaN."""
    off = (found.detach().cpu().double() - exact.detach().cpu().double()).flatten()
    if not off.isfinite().all():
        return math.inf
    return float(off.square().mean().sqrt() / exact.double().square().mean().sqrt())
