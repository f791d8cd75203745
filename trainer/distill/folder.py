"""OUT of a distillation: what lies where, and that only one distillation ever writes there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from alps.engine.errors import RunFolderError, SourceError
from alps.engine.plan import make_plan
from alps.engine.run_folder import read_table, write_table, write_text
from alps.engine.settings import SourceSettings, fingerprint
from alps.engine.sources import find_sources

# What a distillation that was killed while it looked at its sources leaves.
EARLY = ("lock", "plan.parquet", ".plan.parquet.part", ".distill.json.part")


@dataclass(frozen=True)
class DistillFolder:
    """Paths inside OUT."""

    root: Path

    @property
    def run_json(self) -> Path:
        """Settings, teacher, student; in the end the result."""
        return self.root / "distill.json"

    @property
    def plan(self) -> Path:
        """All windows of SRC, fixed before the first one is read."""
        return self.root / "plan.parquet"

    @property
    def log(self) -> Path:
        """A JSON line a step."""
        return self.root / "log.jsonl"

    @property
    def checkpoint(self) -> Path:
        """All that training needs to go on."""
        return self.root / "checkpoint.pt"

    @property
    def cache(self) -> Path:
        """The teacher's embeddings, where they are kept."""
        return self.root / "cache"

    @property
    def student(self) -> Path:
        """The result, a checkpoint like any other."""
        return self.root / "student.safetensors"

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
                f"another distillation is writing to {self.root}; wait for it, or give another OUT"
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

    def open(self, decides: dict[str, Any], source: SourceSettings) -> pa.Table:
        """Go on with the distillation that is here, or begin one; returns its plan.

        Args:
            decides: all that the student's weights depend on, by the names users know.
            source: how images are cut; filled in for the teacher.

        Raises:
            RunFolderError: the folder holds a distillation with other settings.
            SourceError: no image of SRC can be opened.
        """
        if self.run_json.exists():
            self._refuse_other(decides)
            return read_table(self.plan)
        plan = make_plan(find_sources(decides["SRC"], exclude=self.root), source)
        reasons = plan.column("reason").to_pylist()
        if all(reasons):
            raise SourceError(
                f"none of the images at {decides['SRC']} can be opened; the first: {reasons[0]}"
            )
        write_table(plan, self.plan)
        # Written after the plan: a folder with a distill.json has a plan.
        self.update(config_hash=fingerprint(decides), settings=decides)
        return plan

    def read(self) -> dict[str, Any]:
        """The content of distill.json."""
        try:
            run = json.loads(self.run_json.read_text(encoding="utf-8"))
            if not isinstance(run, dict) or not {"config_hash", "settings"} <= run.keys():
                raise ValueError("it lacks config_hash or settings")
            return run
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"cannot read {self.run_json}: {error}; put back a copy, or give another OUT"
            ) from error

    def update(self, **values: Any) -> None:
        """Set keys of distill.json."""
        run = (self.read() if self.run_json.exists() else {}) | values
        write_text(self.run_json, json.dumps(run, indent=2) + "\n")

    def keep_log_until(self, step: int) -> None:
        """Drop the lines of steps that are done again, and one that was cut short."""
        if not self.log.exists():
            return
        kept = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] < step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue
        write_text(self.log, "".join(kept))

    def log_lines(self) -> list[dict[str, Any]]:
        """What the log says of each step."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def _refuse_foreign(self) -> None:
        """Do not put a student into a folder that holds something else."""
        if self.run_json.exists() or not self.root.exists():
            return
        if not self.root.is_dir():
            raise RunFolderError(f"{self.root} is a file; give a new or empty folder as OUT")
        others = sorted(path.name for path in self.root.iterdir() if path.name not in EARLY)
        if others:
            raise RunFolderError(
                f"{self.root} is not empty and holds no distillation (but {others[0]}); "
                "give a new or empty folder as OUT"
            )

    def _refuse_other(self, decides: dict[str, Any]) -> None:
        run = self.read()
        if run["config_hash"] == fingerprint(decides):
            return
        was = run["settings"]
        differing = [
            f"{name} {was.get(name)} there, {value} now"
            for name, value in decides.items()
            if was.get(name) != value
        ]
        raise RunFolderError(
            f"{self.root} holds a distillation with other settings "
            f"({'; '.join(differing) or 'written by another version'}); give another OUT, or the "
            "settings in its distill.json"
        )
