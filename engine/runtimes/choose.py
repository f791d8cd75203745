"""Which runtime runs a model here: what was asked for, or the fastest that proves itself.

    torch               PyTorch
    onnxruntime         ONNX graphs that `alps export` wrote
    tensorrt            engines that `alps export --format tensorrt` wrote
    onnxruntime+torch   the encoder by the one, the decoder by the other
    auto                the fastest encoder and the fastest decoder of those that are installed,
                        work here and agree with PyTorch; PyTorch where nothing was exported

Which is the fastest is measured once a machine and model, on a small picture, and kept.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from alps.engine.base.atomic import write_text
from alps.engine.base.device import require_gpu_kernels
from alps.engine.base.digests import file_sha256, fingerprint
from alps.engine.base.errors import AlpsError, ArtefactError, RunFolderError, SettingsError
from alps.engine.base.records import BadRecordError, parse_record, read_small
from alps.engine.models.registry import artefact_folder
from alps.engine.runtimes.artefact import (
    DECODER,
    ENCODER,
    MANIFEST,
    PARTS,
    Artefact,
    find_artefacts,
)
from alps.engine.runtimes.onnxruntime import OnnxRuntime
from alps.engine.runtimes.protocol import Runtime, TwoRuntimes
from alps.engine.runtimes.pytorch import TorchRuntime
from alps.engine.runtimes.tensorrt import TensorRTRuntime, gpu_capability
from alps.engine.sam import ModelInfo
from alps.engine.sam.model import Network
from alps.kernels.base.threads import threads

_log = logging.getLogger(__name__)

NAMES = ("torch", "onnxruntime", "tensorrt")
_KIND_OF = {"onnxruntime": "onnx", "tensorrt": "tensorrt"}
POINTS = 16  # of a self-check
TRIES = 3  # of which the fastest counts
# Relative error, root mean square, that a self-check forgives: what precision costs, and no more.
_FORGIVEN = {"fp32": 1e-3, "fp16": 5e-2, "bf16": 1e-1, "int8": 3e-1}
# Another runtime must be so much faster to take PyTorch's place: less is noise.
_WORTH_IT = 0.95


@dataclass(frozen=True)
class Choice:
    """A runtime for each half, and why."""

    encoder: str
    decoder: str
    why: str

    @property
    def name(self) -> str:
        """As ``--runtime`` takes it."""
        return self.encoder if self.encoder == self.decoder else f"{self.encoder}+{self.decoder}"


@dataclass(frozen=True)
class Model:
    """What is to be run, and where."""

    sam: Network
    info: ModelInfo
    precision: str
    artefacts: Path | None = None  # a folder, or one that holds some; None: the default place

    @property
    def device(self) -> torch.device:
        """Where the network lies, and where exports are to run."""
        return self.sam.device


def check_name(name: str) -> None:
    """Refuse what ``--runtime`` does not know.

    Raises:
        SettingsError: says what it knows.
    """
    halves = name.split("+")
    if name != "auto" and (len(halves) > 2 or any(half not in NAMES for half in halves)):
        raise SettingsError(
            f"--runtime {name}: give auto, {', '.join(NAMES)}, or two of them, encoder+decoder"
        )


def open_runtime(model: Model, name: str) -> Runtime:
    """The runtime of a name other than auto.

    Raises:
        SettingsError: no such runtime, it cannot have this precision, or a package is missing.
        ArtefactError: nothing was exported for it, or it does not work here.
    """
    check_name(name)
    require_gpu_kernels(model.device)
    encoder, _, decoder = name.partition("+")
    if not decoder or decoder == encoder:
        return _proved(model, encoder, _open(model, encoder, PARTS))
    return TwoRuntimes(
        _proved(model, encoder, _open(model, encoder, ENCODER), ENCODER),
        _proved(model, decoder, _open(model, decoder, DECODER), DECODER),
    )


def _proved(model: Model, name: str, runtime: Runtime, parts: Sequence[str] = PARTS) -> Runtime:
    """A runtime that was held against PyTorch where that was not done when it was exported.

    Exports are verified on a CPU; on a GPU other code runs them, of whatever driver is there now.
    """
    if name == "torch" or model.device.type == "cpu":
        return runtime
    try:
        Reference.of(model).check(runtime, parts)
    except ArtefactError as error:
        where = model.artefacts or artefact_folder(model.info.sha256)
        raise ArtefactError(
            f"{name} does not compute here what PyTorch does: {error} ({where}); export the model "
            "again on this machine, or give --runtime torch"
        ) from error
    return runtime


def choose(model: Model, say: Callable[[str], None] = _log.info) -> Choice:
    """The fastest runtime that proves itself here; see the module.

    say: told once what was chosen and why.
    """
    candidates = _candidates(model)
    if not candidates and model.precision == "int8":  # which PyTorch has not: say what to export
        return Choice("onnxruntime", "onnxruntime", "int8 was asked for")
    if not candidates:
        return Choice("torch", "torch", "nothing was exported from this model for here")
    kept = _notebook(model, candidates)
    try:
        choice = parse_record(read_small(kept), Choice)
        check_name(choice.name)
        say(f"runtime {choice.name}: {choice.why} (measured earlier, {kept})")
        return choice
    except (OSError, BadRecordError, SettingsError):
        choice = _measure(model, candidates)
    say(f"runtime {choice.name}: {choice.why}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(asdict(choice)))
    except (OSError, RunFolderError) as error:  # it will be measured again
        _log.info("cannot keep the choice of runtime: %s", error)
    return choice


def _open(model: Model, name: str, parts: Sequence[str]) -> Runtime:
    if name == "torch":
        if model.precision == "int8" and parts == DECODER:  # of int8 exports too it is in float32
            return TorchRuntime(model.sam)
        if model.precision == "int8":
            raise SettingsError(
                "--precision int8 runs in ONNX Runtime only; export it (alps export "
                f"{model.info.name} --precision int8) and give --runtime onnxruntime"
            )
        return TorchRuntime(model.sam, precision=model.precision)
    artefact = _artefact(model, name)
    if artefact is None:
        where = model.artefacts or artefact_folder(model.info.sha256)
        raise ArtefactError(
            f"nothing to run in {name}: no {_KIND_OF[name]} export of {model.info.name} in "
            f"{model.precision} in {where}; make one: alps export {model.info.name} "
            f"--format {_KIND_OF[name]} --precision {model.precision}"
        )
    if name == "tensorrt":
        return TensorRTRuntime(artefact, model.device, parts=parts)
    return OnnxRuntime(artefact, model.device, parts=parts)


def _artefact(model: Model, name: str) -> Artefact | None:
    """The export for a runtime; of engines those of this GPU first."""
    where = model.artefacts or artefact_folder(model.info.sha256)
    found = [
        artefact
        for artefact in find_artefacts(where, model.info)
        if artefact.manifest.kind == _KIND_OF[name]
        and artefact.manifest.precision == model.precision
    ]
    if name == "tensorrt" and model.device.type == "cuda":
        here = gpu_capability(model.device)
        found.sort(key=lambda artefact: artefact.manifest.compute_capability != here)
    return found[0] if found else None


def _candidates(model: Model) -> dict[str, Artefact]:
    """Runtimes other than PyTorch that have something to run here."""
    names = [name for name in NAMES[1:] if name != "tensorrt" or model.device.type == "cuda"]
    found = {name: _artefact(model, name) for name in names}
    return {name: artefact for name, artefact in found.items() if artefact is not None}


def _notebook(model: Model, candidates: dict[str, Artefact]) -> Path:
    """Where the choice for this machine, model and exports is kept."""
    import os
    import platform

    where = str(model.device)
    if model.device.type == "cuda":
        where = torch.cuda.get_device_name(model.device)
    manifests = {name: file_sha256(one.folder / MANIFEST) for name, one in candidates.items()}
    machine = [platform.node(), platform.machine(), os.cpu_count(), threads(), where]
    mark = fingerprint(machine, torch.__version__, model.info.sha256, model.precision, manifests)
    return artefact_folder(model.info.sha256) / f"choice-{mark}.json"


def _measure(model: Model, candidates: dict[str, Artefact]) -> Choice:
    """Run every candidate beside PyTorch."""
    reference = Reference.of(model)
    eight_bits = model.precision == "int8"  # which PyTorch's encoder has not
    ours = reference.runtime if eight_bits else TorchRuntime(model.sam, precision=model.precision)
    pixels, points, embedding = reference.pixels, reference.points, reference.embedding
    seconds = {
        "torch": [
            math.inf if eight_bits else _fastest(lambda: ours.encode(pixels), model.device),
            _fastest(lambda: _decoded(ours, embedding, points), model.device),
        ]
    }
    refused = []
    for name in candidates:
        try:
            runtime = _open(model, name, PARTS)
            reference.check(runtime)
            seconds[name] = [
                _fastest(lambda: runtime.encode(pixels), model.device),  # noqa: B023
                _fastest(lambda: _decoded(runtime, embedding, points), model.device),  # noqa: B023
            ]
        except AlpsError as error:
            refused.append(f"{name} was left out: {error}")
    times = "; ".join(
        f"{half} {', '.join(f'{name} {found[index]:.3g} s' for name, found in seconds.items())}"
        for index, half in enumerate(("encoder", f"decoder of {POINTS} points"))
    )
    return Choice(_fastest_of(seconds, 0), _fastest_of(seconds, 1), "; ".join([times, *refused]))


def _fastest_of(seconds: dict[str, list[float]], half: int) -> str:
    best = min(seconds, key=lambda name: seconds[name][half])
    return best if seconds[best][half] < _WORTH_IT * seconds["torch"][half] else "torch"


@dataclass(frozen=True)
class Reference:
    """A picture with something on it, points there, and what PyTorch makes of them."""

    runtime: Runtime
    precision: str  # of what is held against it
    pixels: Tensor  # (1, 3, S, S)
    points: Tensor  # (N, 2)
    embedding: Tensor  # (C, h, w)
    decoded: list[Tensor]  # predicted IoU and logits

    @classmethod
    @torch.inference_mode()
    def of(cls, model: Model) -> Self:
        """Compute it, in float32."""
        runtime = TorchRuntime(model.sam)
        size = model.info.config.image_size
        rng = np.random.default_rng(0)
        coarse = torch.from_numpy(rng.normal(size=(1, 3, 16, 16)).astype(np.float32))
        fine = torch.from_numpy(rng.normal(size=(1, 3, size, size)).astype(np.float32))
        pixels = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear") + 0.3 * fine
        points = torch.from_numpy(rng.uniform(0, size, (POINTS, 2)).astype(np.float32))
        embedding = runtime.encode(pixels)[0]
        decoded = _decoded(runtime, embedding, points)
        return cls(runtime, model.precision, pixels, points, embedding, decoded)

    @torch.inference_mode()
    def check(self, runtime: Runtime, parts: Sequence[str] = PARTS) -> None:
        """Hold the parts that a runtime has against it.

        Raises ArtefactError where they are off by more than their precision excuses.
        """
        names, found, wanted = [], [], []
        if set(ENCODER) <= set(parts):
            names.append("embedding")
            found.append(runtime.encode(self.pixels)[0])
            wanted.append(self.embedding)
        if set(DECODER) <= set(parts):
            names += ["predicted IoU", "logits"]
            found += _decoded(runtime, self.embedding, self.points)
            wanted += self.decoded
        for what, mine, exact in zip(names, found, wanted, strict=True):
            off = _relative(mine, exact)
            if not off <= _FORGIVEN[self.precision]:
                raise ArtefactError(f"its {what} is off by {off:.1e}")


def _decoded(runtime: Runtime, embedding: Tensor, points: Tensor) -> list[Tensor]:
    parts = list(runtime.decode(embedding, points, 0.0, len(points)))
    return [
        torch.cat([getattr(part, name) for part in parts]) for name in ("predicted_iou", "logits")
    ]


def _relative(found: Tensor, wanted: Tensor) -> float:
    found, wanted = found.cpu(), wanted.cpu()  # they may lie on two devices
    off = (found.double() - wanted.double()).square().mean().sqrt()
    return float(off / wanted.double().square().mean().sqrt().clamp(min=1e-30))


def _fastest(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of some calls; the runtime has been called before."""
    found = []
    for _ in range(TRIES):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - started)
    return min(found)
