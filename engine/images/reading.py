"""How the sources of a run are read: settings, and a stretch that files of one product share."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

from alps.engine.images.facts.description import HeaderFacts
from alps.engine.images.facts.said import NOTHING, Said, SaidTable
from alps.engine.images.references import Access
from alps.engine.images.sources import root_of
from alps.engine.images.stretching import Limits
from alps.engine.settings import ReadSettings, SourceSettings


@dataclass(frozen=True)
class Reading:
    """What is believed of files, and the limits of stretches that several share.

    shared: by the name of what the files have in common.
    access: what they may open beside themselves.
    said: what a catalogue says of them.
    """

    settings: ReadSettings = field(default_factory=ReadSettings)
    shared: Mapping[str, Limits] = field(default_factory=dict)
    access: Access = field(default_factory=Access)
    said: SaidTable | None = None

    @classmethod
    def of_run(cls, run: Mapping[str, Any], said: SaidTable | None) -> Self:
        """That of a run folder, out of its run.json.

        said: its table, as of ``run_folder.items``.
        """
        source = run.get("settings", {}).get("source", {})
        names = ("bands", "nodata")
        given = {
            name: tuple(source[name]) if source.get(name) is not None else None for name in names
        }
        # Runs of before read each file by itself, and alpha as a mask whatever its values.
        settings = ReadSettings(
            bands=given["bands"],
            nodata=given["nodata"],
            alpha=source.get("alpha", "use"),
            stretch=source.get("stretch", "scene"),
        )
        access = Access(
            root_of(run["source"]) if isinstance(run.get("source"), str) else None,
            source.get("allow_remote", False),
            source.get("allow_vrt_outside", False),
        )
        return cls(settings, limits_from(run.get("stretches", {})), access, said)

    @classmethod
    def of_archive(cls, src: str | Path, settings: SourceSettings) -> Self:
        """Of the images at ``src``, before anything is known of them."""
        access = Access(root_of(src), settings.allow_remote, settings.allow_vrt_outside)
        return cls(settings, {}, access)

    def said_of(self, path: str | Path) -> Said:
        """What a catalogue says of a file."""
        return NOTHING if self.said is None else self.said.of(path)

    def limits_of(
        self, path: str | Path, header: HeaderFacts, resolution: tuple[float, float]
    ) -> Limits | None:
        """The limits that a file shares with others; None where it has its own."""
        if not self.shared:
            return None
        return self.shared.get(shares_with(self.settings, path, header, resolution))


def shares_with(
    settings: ReadSettings, path: str | Path, header: HeaderFacts, resolution: tuple[float, float]
) -> str:
    """A name for what a file's stretch may be shared by: files with another name differ.

    With ``archive`` files of one type and the same bands; with ``auto`` these only where they lie
    in one folder, have names that differ by numbers alone, one CRS and one size of pixels.
    """
    kind = f"{header.dtype} {','.join(map(str, header.bands))}/{header.band_count}"
    if settings.stretch == "archive":
        return kind
    size = " x ".join(f"{side:.6g}" for side in resolution)
    return f"{product_of(path)} {kind} {header.place} {size}"


def product_of(path: str | Path) -> str:
    """What a file's folder and name have in common with those of other pieces of one product."""
    place = PurePosixPath(str(path))
    name = re.sub(r"\d+", "#", place.name)
    return f"{place.parent}/{name}"


def limits_from(plain: Mapping[str, Any]) -> dict[str, Limits]:
    """Limits out of JSON."""
    return {
        name: Limits(tuple(limits["low"]), tuple(limits["high"])) for name, limits in plain.items()
    }
