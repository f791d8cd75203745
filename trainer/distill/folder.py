"""OUT of a distillation: what lies where, and that only one distillation ever writes there."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from alps.engine.base.errors import SourceError
from alps.engine.images.archive import Survey
from alps.engine.images.facts.said import SaidTable
from alps.engine.images.reading import Reading
from alps.engine.planning.make import make_plan
from alps.engine.run_folder.tables import read_table, write_table
from alps.engine.settings import FilledSourceSettings
from alps.engine.stac.archive import open_archive
from alps.trainer.work_folder import WorkFolder


@dataclass(frozen=True)
class DistillFolder(WorkFolder):
    """Paths inside OUT."""

    KIND: ClassVar[str] = "distillation"
    RECORD: ClassVar[str] = "distill.json"
    EARLY: ClassVar[tuple[str, ...]] = (
        "lock",
        "items.parquet",
        ".items.parquet.part",
        ".items.parquet.index",
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

    @property
    def items(self) -> Path:
        """What STAC items say of the images, where SRC is such."""
        return self.root / "items.parquet"

    def reading(self, src: str | Path, source: FilledSourceSettings) -> Reading:
        """How the images of ``src`` are read, stretches that they share aside."""
        said = SaidTable(self.items) if self.items.exists() else None
        return replace(Reading.of_archive(src, source), said=said)

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
        with open_archive(decides["SRC"], source, self.items, self.root) as archive:
            plan = make_plan(archive.sources, source, Survey(archive.reading))
        reasons = plan.column("reason").to_pylist()
        if all(reasons):
            raise SourceError(
                f"none of the images at {decides['SRC']} can be opened; the first: {reasons[0]}"
            )
        write_table(plan, self.plan)
        # Written after the plan: a folder with a distill.json has a plan.
        self.begin(decides)
        return plan
