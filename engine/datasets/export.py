"""Writes the label maps of a finished run as a data set that tools and trainers import."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from alps.engine.base.digests import fingerprint
from alps.engine.base.errors import RunFolderError, SettingsError, SourceError
from alps.engine.base.progress import Progress
from alps.engine.datasets.catalogues.stac import StacFormat
from alps.engine.datasets.coco import CocoFormat
from alps.engine.datasets.cvat import CvatFormat
from alps.engine.datasets.draft import LEFT_OUT, Done, Draft
from alps.engine.datasets.images import LabelledImage, LabelledRun, LeftOut
from alps.engine.datasets.labelstudio import LabelStudioFormat
from alps.engine.datasets.mmseg import MmsegFormat
from alps.engine.datasets.settings import LOCAL_FILES, ExportSettings, Splits
from alps.engine.datasets.yolo import YoloFormat
from alps.engine.run_folder.folder import RunFolder

LAYOUT = 1  # of what is written; another one is not gone on with


class Format(Protocol):
    """A data set as it is written."""

    def add(self, image: LabelledImage, number: int) -> int:
        """Write an image and its annotations; ``number``: of annotations before it.

        Returns how many there were. Raises SourceError for an image that it cannot hold.
        """
        ...

    def finish(self, done: Done) -> None:
        """Write what comes last."""
        ...


@dataclass(frozen=True)
class Kind:
    """A format, and what it can be asked for."""

    make: Callable[[LabelledRun, Draft, ExportSettings], Format]
    splits: bool = False  # has a part for training and one for validation
    objects: bool = True  # tells objects of a class apart
    files: bool = False  # holds the images
    urls: bool = False  # names files by address
    images: bool = True  # names them, so that it matters where they are
    shows: tuple[str, ...] = ()  # GDAL's names of formats that its tool opens; (): whichever


BROWSERS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
KINDS: Mapping[str, Kind] = {
    "coco": Kind(CocoFormat, splits=True),
    "yolo": Kind(YoloFormat, splits=True, files=True, shows=(*BROWSERS, "GTiff", "JP2OpenJPEG")),
    "mmseg": Kind(MmsegFormat, splits=True, objects=False, files=True),
    "labelstudio": Kind(LabelStudioFormat, objects=False, urls=True, shows=BROWSERS),
    "cvat": Kind(CvatFormat, shows=(*BROWSERS, "GTiff")),
    "stac": Kind(StacFormat, objects=False, urls=True, images=False),
}
SHOWN_BANDS = (1, 3, 4)


@dataclass(frozen=True)
class Exported:
    """What was written."""

    root: Path
    format: str
    images: int
    annotations: int
    patched: int  # images whose instances are patches, for want of objects
    missing: int  # images that are named, and are not where they were read
    left_out: int
    classes: int
    doubts: tuple[str, ...]  # about images that the format's tool will not show

    def about(self) -> dict[str, Any]:
        """Plain values for export.json."""
        return {name: value for name, value in asdict(self).items() if name != "root"}


def export_labels(
    run_folder: str | Path, target: str | Path, settings: ExportSettings, overwrite: bool = False
) -> Exported:
    """Write the label maps of a run into ``target``, a folder that appears whole or not at all.

    Killed and given again, it goes on. Sources without a label map, and images that the format
    cannot hold, are rows of left_out.jsonl. overwrite: an export that is there makes room.

    Raises:
        SettingsError: ``target`` holds something, or settings cannot work.
        RunFolderError: the run is not finished, or damaged; the disk is full.
        SourceError: no image is left to write.
    """
    if settings.format not in KINDS:
        raise SettingsError(f"format {settings.format!r}: give one of {', '.join(KINDS)}")
    if not 0 <= settings.val < 1:
        raise SettingsError(f"val {settings.val:g}: give a share from 0 up to 1, 0.2 say")
    _refuse_idle(settings)
    run = LabelledRun(RunFolder(run_folder), settings.splits)
    with Draft(target, _fingerprint(run, settings), overwrite=overwrite) as draft, draft.writing():
        reason = _write(run, draft, settings)
        done = draft.done
        if not done.images:
            raise SourceError(f"none of {len(run)} images can be written: {reason}")
        _refuse_changed(run)
        found = Exported(
            draft.target, settings.format, done.images, done.annotations, done.patched,
            done.missing, done.left_out, len(run.categories.items), tuple(_doubts(run, settings)),
        )  # fmt: skip
        draft.publish({"run": str(run.folder.root.absolute()), **found.about()})
        return found


def _write(run: LabelledRun, draft: Draft, settings: ExportSettings) -> str:
    """All images; why the last one was left out, where one was."""
    kind, reason = KINDS[settings.format], ""
    format = kind.make(run, draft, settings)
    with Progress(len(run), "images", "exporting", initial=draft.done.sources) as progress:
        for source in run.sources(draft.done.sources):
            done = replace(draft.done, sources=draft.done.sources + 1)
            try:
                if isinstance(source, LeftOut):
                    raise SourceError(source.reason)
                count = format.add(source, done.annotations)
                done = replace(
                    done,
                    images=done.images + 1,
                    annotations=done.annotations + count,
                    patched=done.patched + (kind.objects and not run.has_objects(source)),
                    missing=done.missing + (kind.images and source.file is None),
                )
            except SourceError as error:
                reason = str(error)
                name = source.image if isinstance(source, LeftOut) else source.name
                draft.leave_out(name, reason)
                done = replace(done, left_out=done.left_out + 1)
            draft.note(done)
            progress.advance()
    if draft.done.images:
        format.finish(draft.done)
    return reason or f"see {draft.root / LEFT_OUT}"


def _refuse_idle(settings: ExportSettings) -> None:
    """Raise SettingsError for what would have no effect."""
    kind = KINDS[settings.format]
    idle = {
        "--val, --seed and --scene have": settings.splits != Splits() and not kind.splits,
        "--seed and --scene have": settings.splits != Splits() and not settings.splits.val,
        "--copy has": settings.copy and not kind.files,
        "--url has": settings.url != LOCAL_FILES and not kind.urls,
    }
    for options, is_idle in idle.items():
        if is_idle:
            without = "" if not kind.splits or "seed" not in options else " and no --val"
            raise SettingsError(f"{options} no effect with --format {settings.format}{without}")


def _doubts(run: LabelledRun, settings: ExportSettings) -> Iterator[str]:
    """Images that the format's tool does not show, by what run.json says of their headers."""
    shows = KINDS[settings.format].shows
    kinds = run.run.get("read")
    for kind in kinds if shows and isinstance(kinds, list) else ():
        driver, dtype, bands = (kind.get(name) for name in ("driver", "dtype", "band_count"))
        if driver not in shows or dtype != "uint8" or bands not in SHOWN_BANDS:
            yield (
                f"{kind.get('sources')} images are {driver}, {dtype}, {bands} bands "
                f"({kind.get('first')}, say), which {settings.format} does not show: give it 8-bit "
                "PNG or JPEG copies of the same size"
            )


def _fingerprint(run: LabelledRun, settings: ExportSettings) -> str:
    items = [asdict(item) for item in run.categories.items]
    decides = {"layout": LAYOUT, "run": run.run.get("config_hash"), "painted": run.painted}
    return fingerprint(decides | {"settings": asdict(settings), "classes": items})


def _refuse_changed(run: LabelledRun) -> None:
    now = LabelledRun(run.folder, Splits())
    if (now.painted, now.categories) != (run.painted, run.categories):
        raise RunFolderError(
            f"{run.folder.root} was painted anew meanwhile; run the same command again"
        )
