"""Which models have a name, and where their files are on this machine. Imports no torch."""

import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from alps.engine.base.errors import ModelError
from alps.engine.models.folder import is_model_folder
from alps.engine.models.hub import PREFIX, fetch_from_hub

OFFICIAL = "https://dl.fbaipublicfiles.com/segment_anything/"
OFFICIAL_SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"


@dataclass(frozen=True)
class ModelEntry:
    """A model that has a name.

    A model without `url` is shipped inside the package; its size is then that of the file. Of one
    without `sha256` its authors publish none: what is fetched is judged by the shapes in it.
    """

    name: str
    filename: str
    url: str | None
    sha256: str | None
    size_bytes: int | None
    licence: str
    description: str
    parameters: int | None = None

    @property
    def is_shipped(self) -> bool:
        """Whether it comes with the package and is never fetched."""
        return self.url is None


def _sam(letter: str, md5_head: str, sha256: str, size_bytes: int, parameters: int) -> ModelEntry:
    # The official file names end in the first six digits of the MD5, not of the SHA-256.
    filename = f"sam_vit_{letter}_{md5_head}.pth"
    return ModelEntry(
        name=f"vit_{letter}",
        filename=filename,
        url=OFFICIAL + filename,
        sha256=sha256,
        size_bytes=size_bytes,
        licence="Apache-2.0",
        description=f"Segment Anything ViT-{letter.upper()}, the official checkpoint",
        parameters=parameters,
    )


def _sam2(size: str, parameters: int) -> ModelEntry:
    name = f"sam2.1_hiera_{size}"
    return ModelEntry(
        name=name,
        filename=f"{name}.pt",
        url=f"{OFFICIAL_SAM2}{name}.pt",
        sha256=None,
        size_bytes=None,
        licence="Apache-2.0",
        description=f"SAM 2.1 Hiera {size.replace('_', ' ')}, the official checkpoint; images only",
        parameters=parameters,
    )


MODELS: Mapping[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            name="tiny",
            filename="tiny.safetensors",
            url=None,
            sha256=None,
            size_bytes=None,
            licence="Apache-2.0",
            description="small SAM trained by this project; runs on a CPU",
        ),
        _sam(
            "b",
            "01ec64",
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            size_bytes=375_042_383,
            parameters=93_735_472,
        ),
        _sam(
            "l",
            "0b3195",
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
            size_bytes=1_249_524_607,
            parameters=312_342_832,
        ),
        _sam(
            "h",
            "4b8939",
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            size_bytes=2_564_550_879,
            parameters=641_090_608,
        ),
        # Parameters of the image part, which is all that is loaded.
        _sam2("tiny", 31_440_721),
        _sam2("small", 38_538_577),
        _sam2("base_plus", 73_328_401),
        _sam2("large", 216_924_865),
    )
}


def find_model(name_or_path: str | Path) -> Path:
    """Return the checkpoint that a model name or a path stands for: a file, or a folder of one.

    ``hf:owner/name`` is fetched from a hub (``alps.engine.models.hub``). A known name always means
    that model, even where a file of that name lies in the working folder; write ``./tiny`` for the
    file.

    Raises:
        ModelError: the name's file is not on this machine yet, or there is neither such a name
            nor such a file. The text says which, and what to do.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, str) and text in MODELS:
        return _file_of(MODELS[text])
    if text.startswith(PREFIX):
        return fetch_from_hub(text)
    path = Path(text).expanduser()
    if path.is_file():
        return path
    names = ", ".join(MODELS)
    if path.is_dir():
        if is_model_folder(path):
            return path
        raise ModelError(f"{text}: a folder; name the checkpoint file in it, or one of {names}")
    near = difflib.get_close_matches(text.lower(), MODELS, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ModelError(f"{text!r}: no such model or checkpoint file. Models: {names}.{hint}")


def given_name(name_or_path: str | Path) -> str | None:
    """What a model was asked for by, where that is a name and no path."""
    text = str(name_or_path)
    return text if text in MODELS or text.startswith(PREFIX) else None


def model_file(entry: ModelEntry) -> Path:
    """Return where a model's file belongs on this machine, whether it is there or not."""
    if entry.is_shipped:
        return Path(str(files("alps.engine.models"))) / "weights" / entry.filename
    return model_folder() / entry.filename


def model_folder() -> Path:
    """Return the folder of fetched models; it need not exist yet.

    ``$ALPS_HOME/models`` where ALPS_HOME is set, else ``alps/models`` in the user's cache folder.

    Raises:
        ModelError: the user has no home folder and ALPS_HOME is not set.
    """
    if home := os.environ.get("ALPS_HOME"):
        return Path(home).expanduser().absolute() / "models"
    return _cache_folder() / "alps" / "models"


def artefact_folder(sha256: str) -> Path:
    """Return the folder of what was exported from a checkpoint; it need not exist yet.

    ``$ALPS_HOME/artefacts/…`` where ALPS_HOME is set, else beside the folder of fetched models.

    Raises:
        ModelError: as for ``model_folder``.
    """
    return model_folder().parent / "artefacts" / sha256[:16]


def _file_of(entry: ModelEntry) -> Path:
    path = model_file(entry)
    if path.is_file():
        return path
    if entry.is_shipped:
        raise ModelError(
            f"{entry.name}: {path} is missing, though it belongs to the package; install ALPS "
            "again, or name a checkpoint file"
        )
    raise ModelError(
        f"{entry.name}: not fetched yet (looked for {path}); run `alps models fetch {entry.name}`"
    )


def _cache_folder() -> Path:
    """Return the platform's folder for what a program can get again."""
    try:
        home = Path.home()
    except RuntimeError as error:
        raise ModelError(
            "no home folder to keep models in; set ALPS_HOME to a folder you may write to"
        ) from error
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    named = os.environ.get(variable, "")
    # The XDG base directory specification: relative paths are to be ignored.
    return Path(named) if os.path.isabs(named) else home / ".cache"
