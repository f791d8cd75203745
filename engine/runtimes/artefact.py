"""An exported model on disk: a folder with its graphs or engines, and a manifest that vouches.

    manifest.json      what it is, of which checkpoint, for which machine, how it was verified
    encoder.onnx …     or encoder.engine …; weights of 2 GB and more lie in encoder.onnx.data

A folder is written as a whole or not at all (``alps.export.folder``), so whatever has a manifest
is complete. Everything that could make it compute something else is checked when it is opened.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePath
from typing import Any, Literal, Self

from alps.engine.base.digests import file_sha256
from alps.engine.base.errors import ArtefactError, ModelError
from alps.engine.base.records import (
    BadRecordError,
    Count,
    Name,
    Sha256,
    Side,
    as_record,
    parse_record,
    read_small,
)
from alps.engine.sam.config import ModelInfo, NetworkConfig
from alps.engine.sam2 import config_of

MANIFEST = "manifest.json"
FORMAT = 1  # of the manifest and of the graphs' inputs and outputs
ENCODER, DECODER = ("encoder",), ("share", "transform", "masks")
PARTS = ENCODER + DECODER
KINDS = ("onnx", "tensorrt")
FloatType = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class StoredFile:
    """A file of an artefact."""

    name: Name
    bytes: Count
    sha256: Sha256


@dataclass(frozen=True)
class Port:
    """An input or output of a graph."""

    name: str
    dtype: FloatType
    shape: tuple[Side | str, ...]  # a name where the axis is dynamic


@dataclass(frozen=True)
class StoredGraph:
    """One graph or engine of an artefact."""

    file: Name
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    # The most of each dynamic axis that it was built for; an axis that is not named knows no bound.
    at_most: Mapping[str, Side] = field(default_factory=dict)

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
    config: Mapping[str, Any]  # NetworkConfig
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
    def from_json(cls, text: str | bytes) -> Self:
        """Read what ``to_json`` wrote. Raises BadRecordError where it is something else."""
        values = parse_record(text, dict[str, Any])
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise BadRecordError(f"unknown: {', '.join(sorted(unknown))}")
        manifest = as_record(values, cls)
        known = {stored.name for stored in manifest.files}
        for name in (*known, *(graph.file for graph in manifest.graphs.values())):
            # A file of the folder itself; a graph that is not vouched for could be any.
            if PurePath(name).name != name or "\\" in name or name not in known:
                raise BadRecordError(f"it vouches for no file {name} of its folder")
        for name in ("pixel_mean", "pixel_std"):
            if len(getattr(manifest, name)) != 3:
                raise BadRecordError(f"{name} has no value for each of red, green and blue")
        if min(manifest.pixel_std) <= 0:
            raise BadRecordError("pixel_std is not above 0")
        config_of(dict(manifest.config))
        return manifest


@dataclass(frozen=True)
class Artefact:
    """An artefact whose manifest was read."""

    folder: Path
    manifest: Manifest

    def path(self, part: str) -> Path:
        """The file of a graph."""
        return self.folder / self.manifest.graphs[part].file

    @property
    def config(self) -> NetworkConfig:
        """Dimensions of the network."""
        return config_of(dict(self.manifest.config))

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
        if self.config != info.config:
            raise ArtefactError(
                f"{self.folder}: its manifest tells of other dimensions than {info.name} has; "
                f"rebuild it: {self.command()}"
            )

    def check_files(self, parts: Sequence[str] = PARTS) -> None:
        """Refuse files that are not those the manifest was written for."""
        wanted = [self.manifest.graphs[part].file for part in parts]
        known = {stored.name for stored in self.manifest.files}
        for name in (f"{name}.data" for name in wanted):
            if name not in known and (self.folder / name).exists():
                raise ArtefactError(
                    f"{self.folder / name}: the manifest does not vouch for it; rebuild it: "
                    f"{self.command()}"
                )
        for stored in self.manifest.files:
            if not any(stored.name == name or stored.name == f"{name}.data" for name in wanted):
                continue
            path = self.folder / stored.name
            try:
                whole = path.stat().st_size == stored.bytes and file_sha256(path) == stored.sha256
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
        manifest = Manifest.from_json(read_small(path))
    except OSError as error:
        raise ArtefactError(
            f"{folder}: no exported model ({MANIFEST}: {error.strerror}); make one: alps export"
        ) from error
    except (BadRecordError, ModelError) as error:
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
