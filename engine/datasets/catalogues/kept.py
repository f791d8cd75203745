"""OUT/stac: items of the label maps of a run whose images came as items."""

import sys
from pathlib import Path

from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import SettingsError, SourceError
from alps.engine.datasets.settings import ExportSettings
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.items import ITEMS

MARK = "stac"  # a key of run.json: which label maps the items are of


def catalogue_of(folder: RunFolder) -> Path:
    """Where the items are."""
    return folder.root / "stac"


def write_catalogue(folder: RunFolder) -> None:
    """Write the items anew, where label maps or names of classes are not those that they are of.

    Of a run over plain files nothing is written. What stands there and is no such export is left
    alone, with a warning. Raises RunFolderError.
    """
    run = folder.read_run()
    if ITEMS not in run or not folder.painted.exists():
        return
    painted = folder.painted.stat()
    now = fingerprint(painted.st_size, painted.st_mtime_ns, run.get("names"), run["config_hash"])
    target = catalogue_of(folder)
    if run.get(MARK) == now and target.is_dir():
        return
    from alps.engine.datasets.export import export_labels  # for runs over STAC alone

    try:
        export_labels(folder.root, target, ExportSettings("stac"), overwrite=True)
    except (SettingsError, SourceError) as error:
        print(f"warning: no STAC items of the label maps: {error}", file=sys.stderr)
        return
    folder.update_run(**{MARK: now})
