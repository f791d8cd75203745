"""An exported model on disk: a folder with its graphs or engines, and a manifest that vouches.

    manifest.json      what it is, of which checkpoint, for which machine, how it was verified
    encoder.onnx …     or encoder.engine …; weights of 2 GB and more lie in encoder.onnx.data

A folder is written as a whole or not at all (``alps.export.folder``), so whatever has a manifest
is complete. Everything that could make it compute something else is checked when it is opened.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from alps.engine.base.errors import ArtefactError
from alps.engine.sam.config import ModelInfo, SamConfig

MANIFEST = "manifest.json"
FORMAT = 1  # of the manifest and of the graphs' inputs and outputs
ENCODER, DECODER = ("encoder",), ("share", "transform", "masks")
PARTS = ENCODER + DECODER
KINDS = ("onnx", "tensorrt")


@dataclass(frozen=True)
class StoredFile:
    """A file of an artefact."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Port:
    """An input or output of a graph."""

    name: str
    dtype: str  # float32, float16 or bfloat16
    shape: tuple[int | str, ...]  # a name where the axis is dynamic

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Of an entry in a manifest."""
        return cls(stored["name"], stored["dtype"], tuple(stored["shape"]))


@dataclass(frozen=True)
class StoredGraph:
    """One graph or engine of an artefact."""

    file: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    # The most of each dynamic axis that it was built for; an axis that is not named knows no bound.
    at_most: Mapping[str, int] = field(default_factory=dict)

    def limit(self) -> int | None:
        """The most images, points or prompts in one call; None: any number."""
        return min(self.at_most.values(), default=None)


@dataclass(frozen=True)
class Manifest:
    """What an artefact says of itself."""

    format: int
    kind: str  # onnx or tensorrt
    model: str
    sha256: str  # of the checkpoint
    precision: str  # fp32, bf16, fp16 or int8
    config: Mapping[str, Any]  # SamConfig
    graphs: Mapping[str, StoredGraph]
    files: tuple[StoredFile, ...]
    # Pixels are RGB in 0…255, less the mean, over the deviation; then padded with zeros.
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    opset: int
    versions: Mapping[str, str]  # packages that made it
    # Of GPUs it runs on: 8.6, or none where any machine will do.
    compute_capability: str | None = None
    builder: str | None = None  # tensorrt or tensorrt_rtx
    verified: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tile(self) -> int:
        """Side of the network's input in pixels."""
        return int(self.config["image_size"])

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        values = json.loads(text)
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        graphs = {
            part: StoredGraph(
                graph["file"],
                tuple(Port.from_json(port) for port in graph["inputs"]),
                tuple(Port.from_json(port) for port in graph["outputs"]),
                graph["at_most"],
            )
            for part, graph in values["graphs"].items()
        }
        files = tuple(StoredFile(**file) for file in values["files"])
        pixels = {name: tuple(values[name]) for name in ("pixel_mean", "pixel_std")}
        return cls(**values | {"graphs": graphs, "files": files} | pixels)


@dataclass(frozen=True)
class Artefact:
    """An artefact whose manifest was read."""

    folder: Path
    manifest: Manifest

    def path(self, part: str) -> Path:
        """The file of a graph."""
        return self.folder / self.manifest.graphs[part].file

    @property
    def config(self) -> SamConfig:
        """Dimensions of the network."""
        return SamConfig.from_dict(dict(self.manifest.config))

    def command(self) -> str:
        """What makes it again."""
        made = self.manifest
        return f"alps export {made.model} --format {made.kind} --precision {made.precision}"

    def check_model(self, info: ModelInfo) -> None:
        """Refuse an artefact of another checkpoint."""
        if self.manifest.sha256 != info.sha256:
            raise ArtefactError(
                f"{self.folder}: exported from {self.manifest.model}, SHA-256 "
                f"{self.manifest.sha256[:12]}…, and the model here is {info.name}, "
                f"{info.sha256[:12]}…; rebuild it: alps export {info.name} "
                f"--format {self.manifest.kind} --precision {self.manifest.precision}"
            )

    def check_files(self, parts: Sequence[str] = PARTS) -> None:
        """Refuse files that are not those the manifest was written for."""
        wanted = [self.manifest.graphs[part].file for part in parts]
        for stored in self.manifest.files:
            if not any(stored.name == name or stored.name == f"{name}.data" for name in wanted):
                continue
            path = self.folder / stored.name
            try:
                whole = path.stat().st_size == stored.bytes and digest(path) == stored.sha256
            except OSError as error:
                raise ArtefactError(
                    f"{path}: cannot be read ({error.strerror}); rebuild it: {self.command()}"
                ) from error
            if not whole:
                raise ArtefactError(
                    f"{path}: changed or cut short since it was exported; rebuild it: "
                    f"{self.command()}"
                )


def open_artefact(folder: Path, info: ModelInfo | None = None) -> Artefact:
    """Read a folder's manifest.

    Args:
        folder: what ``alps export`` wrote.
        info: the model that it must have been exported from; None: any.

    Raises:
        ArtefactError: it is no such folder, of another version, or of another model.
    """
    path = folder / MANIFEST
    try:
        manifest = Manifest.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtefactError(
            f"{folder}: no exported model ({MANIFEST}: {error.strerror}); make one: alps export"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(
            f"{path}: not written by this version ({error}); export the model again"
        ) from error
    if manifest.format != FORMAT or set(manifest.graphs) != set(PARTS):
        raise ArtefactError(
            f"{path}: of format {manifest.format}, this version reads {FORMAT}; rebuild it: "
            f"{Artefact(folder, manifest).command()}"
        )
    artefact = Artefact(folder, manifest)
    if info is not None:
        artefact.check_model(info)
    return artefact


def find_artefacts(folder: Path, info: ModelInfo) -> Iterator[Artefact]:
    """Artefacts of a model in a folder, or the folder itself; those of other models are left out.

    Raises:
        ArtefactError: the folder is itself an artefact, and not of this model.
    """
    if (folder / MANIFEST).is_file():
        yield open_artefact(folder, info)
        return
    for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
        if manifest.parent.name.startswith("."):  # not finished
            continue
        try:
            yield open_artefact(manifest.parent, info)
        except ArtefactError:  # of another model or version; whoever names it hears why
            continue


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
