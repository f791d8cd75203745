"""OUT of a distillation: what lies where, and that only one distillation ever writes there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from alps.engine.base.errors import SourceError
from alps.engine.images.archive import Survey
from alps.engine.images.reading import Reading
from alps.engine.images.sources import find_sources
from alps.engine.planning.make import make_plan
from alps.engine.run_folder.tables import read_table, write_table
from alps.engine.settings import FilledSourceSettings
from alps.trainer.work_folder import WorkFolder


@dataclass(frozen=True)
class DistillFolder(WorkFolder):
    """Paths inside OUT."""

    KIND: ClassVar[str] = "distillation"
    RECORD: ClassVar[str] = "distill.json"
    EARLY: ClassVar[tuple[str, ...]] = (
        "lock",
        "plan.parquet",
        ".plan.parquet.part",
        ".distill.json.part",
    )

    @property
    def plan(self) -> Path:
        """All windows of SRC, fixed before the first one is read."""
        return self.root / "plan.parquet"

    @property
    def cache(self) -> Path:
        """The teacher's embeddings, where they are kept."""
        return self.root / "cache"

    @property
    def student(self) -> Path:
        """The result, a checkpoint like any other."""
        return self.root / "student.safetensors"

    def open(self, decides: dict[str, Any], source: FilledSourceSettings) -> pa.Table:
        """Go on with the distillation that is here, or begin one; returns its plan.

        Args:
            decides: all that the student's weights depend on, by the names users know.
            source: how images are cut; filled in for the teacher.

        Raises:
            RunFolderError: the folder holds a distillation with other settings.
            SourceError: no image of SRC can be opened.
        """
        if self.run_json.exists():
            self.refuse_other(decides)
            return read_table(self.plan)
        survey = Survey(Reading.of_archive(decides["SRC"], source))
        plan = make_plan(find_sources(decides["SRC"], exclude=self.root), source, survey)
        reasons = plan.column("reason").to_pylist()
        if all(reasons):
            raise SourceError(
                f"none of the images at {decides['SRC']} can be opened; the first: {reasons[0]}"
            )
        write_table(plan, self.plan)
        # Written after the plan: a folder with a distill.json has a plan.
        self.begin(decides)
        return plan
