"""ALPS labels remote-sensing archives without human annotation.

    import alps

    alps.label_archive("tiles", "out")

Names are loaded when they are first used: `import alps` brings neither torch nor compiled kernels.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors read; _HOMES below is what Python does
    from alps.engine.base.errors import (
        AlpsError,
        ArtefactError,
        FetchError,
        ModelError,
        OutOfMemoryError,
        RunFolderError,
        SettingsError,
        SourceError,
        TooManyFailuresError,
    )
    from alps.engine.datasets.export import Exported, export_labels
    from alps.engine.datasets.settings import ExportSettings
    from alps.engine.masks.generator import MaskGenerator, Segments
    from alps.engine.models.load import load_model
    from alps.engine.quality.measure import Quality
    from alps.engine.quality.settings import QualitySettings
    from alps.engine.run_folder.folder import RunFolder
    from alps.engine.settings import (
        ClusterSettings,
        PaintSettings,
        RunSettings,
        SegmentSettings,
        SourceSettings,
    )
    from alps.engine.stages.fit_clusters import fit_clusters
    from alps.engine.stages.label import RunSummary, label_archive
    from alps.engine.stages.one_pass import OnePass
    from alps.engine.stages.opening import RunOptions
    from alps.engine.stages.single import cluster, paint, segment
    from alps.engine.views.maps import LabelMap
    from alps.engine.views.run import Run, open_run

_HOMES = {
    "engine.base.errors": (
        "AlpsError",
        "ArtefactError",
        "FetchError",
        "ModelError",
        "OutOfMemoryError",
        "RunFolderError",
        "SettingsError",
        "SourceError",
        "TooManyFailuresError",
    ),
    "engine.datasets.export": ("Exported", "export_labels"),
    "engine.datasets.settings": ("ExportSettings",),
    "engine.masks.generator": ("MaskGenerator", "Segments"),
    "engine.models.load": ("load_model",),
    "engine.quality.measure": ("Quality",),
    "engine.quality.settings": ("QualitySettings",),
    "engine.run_folder.folder": ("RunFolder",),
    "engine.settings": (
        "ClusterSettings",
        "PaintSettings",
        "RunSettings",
        "SegmentSettings",
        "SourceSettings",
    ),
    "engine.stages.fit_clusters": ("fit_clusters",),
    "engine.stages.label": ("RunSummary", "label_archive"),
    "engine.stages.one_pass": ("OnePass",),
    "engine.stages.opening": ("RunOptions",),
    "engine.stages.single": ("cluster", "paint", "segment"),
    "engine.views.maps": ("LabelMap",),
    "engine.views.run": ("Run", "open_run"),
}
_HOME_OF = {name: f"alps.{home}" for home, names in _HOMES.items() for name in names}

__all__ = [
    "AlpsError",
    "ArtefactError",
    "ClusterSettings",
    "ExportSettings",
    "Exported",
    "FetchError",
    "LabelMap",
    "MaskGenerator",
    "ModelError",
    "OnePass",
    "OutOfMemoryError",
    "PaintSettings",
    "Quality",
    "QualitySettings",
    "Run",
    "RunFolder",
    "RunFolderError",
    "RunOptions",
    "RunSettings",
    "RunSummary",
    "SegmentSettings",
    "Segments",
    "SettingsError",
    "SourceError",
    "SourceSettings",
    "TooManyFailuresError",
    "__version__",
    "cluster",
    "export_labels",
    "fit_clusters",
    "label_archive",
    "load_model",
    "open_run",
    "paint",
    "segment",
]

try:
    __version__ = version("alps-engine")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'alps' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
