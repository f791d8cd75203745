"""OUT of a training: what lies where."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, ClassVar

from alps.engine.base.atomic import publish_folder
from alps.engine.base.digests import FileDigest
from alps.engine.base.errors import ModelError, RunFolderError
from alps.engine.base.records import Name, read_record
from alps.trainer.work_folder import WorkFolder


@dataclass(frozen=True)
class TrainingFolder(WorkFolder):
    """Paths inside OUT.

    OUT/training.json     settings; in the end the result
    OUT/log.jsonl         loss, rate, images a second
    OUT/model/            the result, as transformers opens it
    OUT/checkpoint.pt     all that is needed to go on
    OUT/cache/            decoded images; may be removed afterwards
    OUT/data_report.txt   what is wrong with the data, where something is
    """

    KIND: ClassVar[str] = "training"
    RECORD: ClassVar[str] = "training.json"
    EARLY: ClassVar[tuple[str, ...]] = ("lock", ".training.json.part", "cache", "data_report.txt")
    MEANS: ClassVar[dict[str, str]] = {
        "decoded": "images or labels are others now, by their sizes or times of change, or are "
        "read otherwise",
        "unlabelled_decoded": "what is unlabelled, or its label maps, changed since",
    }

    @property
    def model(self) -> Path:
        """The result, as transformers opens it."""
        return self.root / "model"

    @property
    def data_report(self) -> Path:
        """All that is wrong with the data."""
        return self.root / "data_report.txt"

    @property
    def tensorboard(self) -> Path:
        """The same as the log, for TensorBoard."""
        return self.root / "tensorboard"

    def open(self, decides: dict[str, Any]) -> None:
        """Go on with the training that is here, or begin one.

        decides: all that the weights depend on, by the names users know.
        Raises RunFolderError where the folder holds a training with other settings.
        """
        if self.run_json.exists():
            self.refuse_other(decides)
        else:
            self.begin(decides)

    def put_model(self, write: Callable[[Path], None]) -> None:
        """Let ``write`` fill a new folder that becomes the model when it is complete."""
        part = self.root / ".model.part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir()
            write(part)
            files = {path.name: vars(FileDigest.of(path)) for path in sorted(part.iterdir())}
            publish_folder(part, self.model)
            self.update(model_files=files)
        except OSError as error:
            raise RunFolderError(
                f"cannot write {self.model}: {error.strerror or error}; check permissions and the "
                "space left, then run the same command again"
            ) from error


@dataclass(frozen=True)
class ModelFiles:
    """What training.json says of OUT/model."""

    model_files: dict[Name, FileDigest] = field(default_factory=dict)


def refuse_changed_model(where: Path) -> None:
    """Raise ModelError where a model of ours, OUT or OUT/model, is not what was written."""
    out = where.parent if where.name == "model" else where
    try:
        mend = "put back a copy, or name another checkpoint"
        known = read_record(out / TrainingFolder.RECORD, ModelFiles, ModelError, mend)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, was in known.model_files.items():
        path = out / "model" / PurePath(name).name
        try:
            same = was.is_of(path)
        except OSError:
            same = False
        if not same:
            raise ModelError(
                f"{path} is damaged: it is not what was written; remove {path.parent} and give the "
                "command that made it again, or name another checkpoint"
            )
