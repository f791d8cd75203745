"""OUT of a training: one process at a time, one training ever, and files that are whole."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock, Timeout

from alps.engine.base.atomic import write_text
from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import RunFolderError
from alps.engine.base.records import BadRecordError, as_record, parse_record, read_small
from alps.engine.run_folder.run_record import refuse_wrong_sum, with_sum
from alps.trainer.loop.lines import read_lines
from alps.trainer.processes import Processes


@dataclass(frozen=True)
class WorkRecord:
    """Keys that every record has."""

    config_hash: str
    settings: dict[str, Any]
    result: dict[str, Any] | None = None


@dataclass(frozen=True)
class WorkFolder:
    """Paths inside OUT that every kind of training has; each kind adds its own."""

    root: Path

    KIND: ClassVar[str] = "training"  # what the folder holds, in messages
    RECORD: ClassVar[str] = "training.json"
    # What one that was killed before it wrote its record leaves.
    EARLY: ClassVar[tuple[str, ...]] = ("lock", ".training.json.part")
    # What it means where a setting that nobody gives is another one.
    MEANS: ClassVar[dict[str, str]] = {}

    @property
    def run_json(self) -> Path:
        """Settings; in the end the result."""
        return self.root / self.RECORD

    @property
    def log(self) -> Path:
        """A JSON line a step."""
        return self.root / "log.jsonl"

    @property
    def checkpoint(self) -> Path:
        """All that training needs to go on."""
        return self.root / "checkpoint.pt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the kernel lets go of it when the process dies."""
        self._refuse_foreign()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / "lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(
                f"another {self.KIND} is writing to {self.root}; wait for it, or give another OUT"
            ) from None
        except OSError as error:
            raise RunFolderError(
                f"cannot write to {self.root}: {error.strerror or error}; check the path, its "
                "permissions and the space left"
            ) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def held(self, group: Processes) -> Iterator[None]:
        """Let the first process hold OUT for all of them."""
        with ExitStack() as stack:
            group.on_first(lambda: stack.enter_context(self.locked()))
            yield

    def begin(self, decides: dict[str, Any]) -> None:
        """Note what all depends on, in a folder that holds nothing yet."""
        self.update(config_hash=fingerprint(decides), settings=decides)

    def read(self) -> dict[str, Any]:
        """The content of the record."""
        try:
            run = parse_record(read_small(self.run_json), dict[str, Any])
            refuse_wrong_sum(run)
            as_record(run, WorkRecord)
            return run
        except (OSError, BadRecordError) as error:
            raise self.unreadable(error) from error

    def unreadable(self, error: Exception) -> RunFolderError:
        """What is said of a record that cannot be relied on."""
        return RunFolderError(
            f"cannot read {self.run_json}: {error}; put back a copy, or give another OUT"
        )

    def update(self, **values: Any) -> None:
        """Set keys of the record."""
        run = with_sum((self.read() if self.run_json.exists() else {}) | values)
        write_text(self.run_json, json.dumps(run, indent=2) + "\n")

    def log_lines(self) -> list[dict[str, Any]]:
        """What the log says of each step; a last line that was cut short is left out."""
        return read_lines(self.log)

    def refuse_other(self, decides: dict[str, Any]) -> None:
        """Raise RunFolderError where the folder was begun with other settings."""
        run = self.read()
        if run["config_hash"] == fingerprint(decides):
            return
        was = run["settings"]
        differing = [
            self.MEANS.get(name) or f"{name} {was.get(name)} there, {value} now"
            for name, value in decides.items()
            if was.get(name) != value
        ]
        raise RunFolderError(
            f"{self.root} holds a {self.KIND} with other settings "
            f"({'; '.join(differing) or 'written by another version'}); give another OUT, or the "
            f"settings in its {self.RECORD}"
        )

    def _refuse_foreign(self) -> None:
        """Do not write into a folder that holds something else."""
        if self.run_json.exists() or not self.root.exists():
            return
        if not self.root.is_dir():
            raise RunFolderError(f"{self.root} is a file; give a new or empty folder as OUT")
        others = sorted(path.name for path in self.root.iterdir() if path.name not in self.EARLY)
        if others:
            raise RunFolderError(
                f"{self.root} is not empty and holds no {self.KIND} (but {others[0]}); "
                "give a new or empty folder as OUT"
            )
