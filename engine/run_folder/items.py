"""What a catalogue said of a run's images: kept beside the plan, so that it stays the same."""

from collections.abc import Mapping
from typing import Any

from alps.engine.base.errors import RunFolderError
from alps.engine.images.facts.said import SaidTable
from alps.engine.images.reading import Reading
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.sums import refuse_damaged

ITEMS = "items"  # a key of run.json, of runs whose SRC is STAC: the number of images


def said_of(folder: RunFolder, run: Mapping[str, Any]) -> SaidTable | None:
    """Its table; None for a run of plain files. ``run``: the content of run.json.

    Raises RunFolderError where it is not there any more, or is not what was written.
    """
    if ITEMS not in run:
        return None
    if not folder.items.exists():
        raise RunFolderError(
            f"{folder.items} is missing, which has what the STAC items at {run.get('source')} said "
            "of the images; put back a copy, or give another OUT"
        )
    refuse_damaged(folder.items)
    return SaidTable(folder.items)


def reading_of(folder: RunFolder, run: Mapping[str, Any]) -> Reading:
    """How the images of a run are read. Raises RunFolderError as ``said_of``."""
    return Reading.of_run(run, said_of(folder, run))
