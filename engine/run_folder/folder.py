"""The run folder: where everything lies, in which format, and how it survives being killed.

A shard of tiles is committed by its journal file, which is written last; a shard without one is
done again. Whatever has a name is whole: files are written beside it, synced and renamed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alps.engine.base.atomic import write_text
from alps.engine.base.errors import RunFolderError, SettingsError, printable
from alps.engine.base.records import BadRecordError, read_record, read_small
from alps.engine.run_folder.inside import path_inside
from alps.engine.run_folder.run_record import LABEL, PREDICT, check_run, with_sum
from alps.engine.stores.address import HANDLERS, is_address

# The beginnings of an address that was made a path of.
LOST_SLASH = tuple((f"{scheme}:",) for scheme in HANDLERS)


@dataclass(frozen=True)
class RunFolder:
    """Paths inside OUT; ``root`` may be given as text.

    Those by a name that a file says raise RunFolderError where it leads out of OUT.
    """

    root: Path

    def __init__(self, root: str | Path) -> None:
        try:
            os.fspath(root).encode()
        except UnicodeEncodeError:
            raise SettingsError(
                f"OUT {printable(root)} has bytes that are no UTF-8, which tables and images "
                "cannot be written to; give another name"
            ) from None
        if is_address(root) or Path(root).parts[:1] in LOST_SLASH:
            raise SettingsError(
                f"{root} lies in a store; open it with alps.engine.stores.out.opened first"
            )
        object.__setattr__(self, "root", Path(root))

    @property
    def run_json(self) -> Path:
        """Settings, model, versions, progress of the stages."""
        return self.root / "run.json"

    @property
    def journal(self) -> Path:
        """What is planned and what is done."""
        return self.root / "journal"

    @property
    def plan(self) -> Path:
        """All tiles of the run, fixed before the first one is read."""
        return self.journal / "plan.parquet"

    @property
    def items(self) -> Path:
        """What a catalogue said of the images, where SRC is one."""
        return self.journal / "items.parquet"

    @property
    def tiles(self) -> Path:
        """What became of every tile."""
        return self.root / "tiles.parquet"

    @property
    def clusters(self) -> Path:
        """Centroids."""
        return self.root / "clusters.npz"

    @property
    def classes(self) -> Path:
        """Names, colours and sizes of the classes."""
        return self.root / "classes.json"

    @property
    def names(self) -> Path:
        """What people said about classes: names, merges, splits, colours."""
        return self.root / "names.json"

    @property
    def painted(self) -> Path:
        """A line a finished label map."""
        return self.journal / "painted.jsonl"

    def label(self, name: str) -> Path:
        """The label map of a source, by the ``label`` column of its tiles."""
        return path_inside(self.root, "labels", name)

    def segments(self, shard: int) -> Path:
        """The segments of one shard of tiles."""
        return self.root / "segments" / f"part-{shard:05d}.parquet"

    def regions(self, group: int) -> Path:
        """The regions of a group of sources; there once the group is cut."""
        return self.root / "regions" / f"part-{group:05d}.parquet"

    def borders(self, group: int) -> Path:
        """Which regions of a group's sources touch."""
        return self.root / "regions" / f"borders-{group:05d}.parquet"

    def objects(self, group: int) -> Path:
        """The object of each segment of a group's sources."""
        return self.root / "regions" / f"objects-{group:05d}.parquet"

    def region_raster(self, label: str) -> Path:
        """The number of each pixel's region, by the ``label`` column of a source's tiles."""
        return path_inside(self.root, "regions/rasters", f"{label}.tif")

    def region_classes(self, group: int) -> Path:
        """Cluster and margin of each row of a group's regions."""
        return self.root / "clusters" / f"part-{group:05d}.parquet"

    def region_vectors(self, group: int) -> Path:
        """The vector of each row of a group's regions, that its class was found by."""
        return self.root / "vectors" / f"part-{group:05d}.npy"

    def object_map(self, label: str) -> Path:
        """The number of each pixel's object, where asked for."""
        return path_inside(self.root, "objects", f"{label}.tif")

    def predicted(self, shard: int) -> Path:
        """Lines of pixels that a model predicted, until their label maps are written."""
        return self.root / "predicted" / f"part-{shard:05d}.parquet"

    def confidence(self, label: str) -> Path:
        """How sure a model is of each pixel, where asked for."""
        return path_inside(self.root, "confidence", f"{label}.tif")

    def probabilities(self, label: str) -> Path:
        """A band a class, where asked for."""
        return path_inside(self.root, "probabilities", f"{label}.tif")

    def shard_tiles(self, shard: int) -> Path:
        """The rows of one shard of tiles; there once the shard is done."""
        return self.journal / f"tiles-{shard:05d}.parquet"

    def kept_tiles(self, shard: int) -> Path:
        """Rows of a shard's first tiles, while it is made again with those that came later."""
        return self.journal / f"kept-{shard:05d}.parquet"

    def sums(self, number: int | None) -> Path:
        """Checksums of the files of a shard and of the group that begins in it; None: of others."""
        return self.journal / ("sums.jsonl" if number is None else f"sums-{number:05d}.jsonl")

    def read_run(self) -> dict[str, Any]:
        """The content of run.json."""
        mend = "put back a copy, or give another OUT"
        try:
            run = read_record(self.run_json, dict[str, Any], RunFolderError, mend)
            check_run(run)
            return run
        except FileNotFoundError:
            raise RunFolderError(
                f"{self.root} is not a run folder: it has no run.json; "
                "make one with: alps label SRC OUT"
            ) from None
        except BadRecordError as error:
            raise RunFolderError(f"cannot read {self.run_json}: {error}; {mend}") from error

    def read_planned(self, kind: str | None = LABEL) -> dict[str, Any]:
        """run.json with all that the stages need, of a run of ``kind``; None: of any.

        Raises RunFolderError where it lacks something, or is of another kind.
        """
        run = self.read_run()
        if kind is not None:
            self.refuse_kind(kind, run)
        needed = {"config_hash", "settings", "done", "stages", "model", "source"}
        if lacking := sorted(needed - run.keys()):
            raise RunFolderError(
                f"{self.run_json} is damaged: it lacks {', '.join(lacking)}; put back a copy, or "
                "give another OUT"
            )
        return run

    def refuse_dropped(self, run: Mapping[str, Any]) -> None:
        """Raise RunFolderError where a run's segments were not kept, but are needed."""
        if not run.get("also", {}).get("keep_segments", True):
            raise RunFolderError(
                f"{self.root} was labelled in one pass and its segments were not kept; label into "
                "another OUT with --keep-segments to cluster or paint them again"
            )

    def refuse_kind(self, wanted: str, run: Mapping[str, Any]) -> None:
        """Raise RunFolderError where ``run``, the content of run.json, is not of ``wanted``."""
        kind = run.get("kind", LABEL)
        if kind == wanted:
            return
        known = f"alps {kind}" if kind in (LABEL, PREDICT) else "another version"
        raise RunFolderError(
            f"{self.root} is a run of {known}, and this command is for those of alps "
            f"{wanted}; give another OUT"
        )

    def damaged(self, path: Path, why: str) -> RunFolderError:
        """The error that says how a damaged file is made again."""
        return RunFolderError(f"{path} is damaged: {why}; {self.how_made_again(path)}")

    def how_made_again(self, path: Path) -> str:
        """What to do about a damaged file, as the end of a sentence."""
        if path in (self.plan, self.tiles):  # made of others, and others of them
            return f"alps verify {self.root} --repair makes it again"
        return "remove it, it is made again by the command that made it"

    def refuse_unpainted(self) -> None:
        """Raise RunFolderError where label maps are of older clusters than the segments."""
        if not self.run_json.exists():  # a folder of somebody's label maps
            return
        run = self.read_run()
        done = run.get("done", {})
        if run.get("kind") == PREDICT:
            if "paint" not in done:
                raise RunFolderError(
                    f"not all label maps of {self.root} are predicted yet; give its `alps predict` "
                    "again"
                )
            return
        if done.get("paint") != done.get("cluster"):
            older = "clusters"
        elif self.names_digest() != run.get("names", ""):
            older = "names of classes"
        else:
            return
        raise RunFolderError(
            f"the label maps of {self.root} are older than its {older}; run: alps paint {self.root}"
        )

    def names_digest(self) -> str:
        """Of names.json as it is; empty where nobody gave names."""
        try:
            return hashlib.sha256(read_small(self.names)).hexdigest()
        except FileNotFoundError:
            return ""
        except (OSError, BadRecordError) as error:
            raise RunFolderError(f"cannot read {self.names}: {error}; mend or remove it") from error

    def update_run(self, **values: Any) -> dict[str, Any]:
        """Set keys of run.json and return its new content."""
        run = with_sum((self.read_run() if self.run_json.exists() else {}) | values)
        write_text(self.run_json, json.dumps(run, indent=2) + "\n")
        return run
