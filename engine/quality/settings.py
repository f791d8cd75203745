"""What ``alps quality`` can be told."""

from dataclasses import dataclass

IGNORE = 255  # what most tools write for "no class"


@dataclass(frozen=True)
class QualitySettings:
    """What counts as truth, and which images are scored.

    A glob holds where it matches an image's path in its folder, or its name, with or without
    suffix (`tile7*`, `north/*`).
    """

    # Truth classes left out, named after the threshold; None: 255, and a GeoTIFF's nodata value.
    truth_ignore: tuple[int, ...] | None = None
    truth_threshold: float | None = None  # values above it are class 1, others class 0
    only: str | None = None  # score images that match this glob; None: all but those of fit_only
    fit_only: str | None = None  # learn the mapping on these images; None: on those scored
    folds: int | None = None  # learn the mapping of each part of the scored images on the others
    seed: int = 0  # decides which image lies in which part
    boundary_tolerance: float = 3.0  # pixels within which outlines agree
    class_names: tuple[str, ...] = ()  # name of truth class 0, 1, 2, …

    @property
    def ignored(self) -> tuple[int, ...]:
        """Truth classes that are left out by their number."""
        return (IGNORE,) if self.truth_ignore is None else self.truth_ignore
