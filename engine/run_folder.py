"""The run folder: where everything lies, in which format, and how it survives being killed.

A shard of tiles is committed by its journal file, which is written last; a shard without one is
done again. Whatever has a name is whole: files are written beside it, synced and renamed.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from alps.engine.errors import RunFolderError

# One row a window of a source; a source that cannot be opened has one row without pixels.
PLAN_SCHEMA = pa.schema(
    [
        ("tile_id", pa.int64()),
        ("source_index", pa.int32()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("label", pa.string()),
        ("source_width", pa.int32()),
        ("source_height", pa.int32()),
        ("x", pa.int32()),
        ("y", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("reason", pa.string()),
    ]
)
# How long one machine waits for another to plan the run, which opens every source once.
MOMENT_SECONDS = 3600
COLOUR_VALUES = 6  # of a segment's column ``colour``
STAGES = ("read", "encode", "decode", "filter", "pool", "write")
TILE_SCHEMA = pa.schema(
    [
        *[field for field in PLAN_SCHEMA if field.name != "reason"],
        ("status", pa.string()),
        ("reason", pa.string()),
        ("segments", pa.int32()),
        ("points", pa.int32()),
        ("valid_pixels", pa.int64()),
        ("covered_pixels", pa.int64()),
        *[(f"{stage}_seconds", pa.float32()) for stage in STAGES],
    ]
)


def segment_schema(channels: int) -> pa.Schema:
    """One row a segment, its embedding of ``channels`` values."""
    return pa.schema(
        [
            ("tile_id", pa.int64()),
            ("segment_id", pa.int32()),
            # Of its tile; parts of one mask share it. -1: what lies under no mask.
            ("mask", pa.int32()),
            ("x", pa.int32()),
            ("y", pa.int32()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("area", pa.int32()),
            ("predicted_iou", pa.float32()),
            ("stability_score", pa.float32()),
            ("point_x", pa.float32()),
            ("point_y", pa.float32()),
            # Middle of the box of what its embedding was averaged over, in pixels of the tile.
            ("centre_x", pa.float32()),
            ("centre_y", pa.float32()),
            ("counts", pa.binary()),
            ("embedding", pa.list_(pa.float16(), channels)),
            # Mean, then standard deviation, of L*, a* and b* over the mask.
            ("colour", pa.list_(pa.float16(), COLOUR_VALUES)),
            ("cluster", pa.int32()),
            ("margin", pa.float32()),
        ]
    )


@dataclass(frozen=True)
class RunFolder:
    """Paths inside OUT."""

    root: Path

    @property
    def run_json(self) -> Path:
        """Settings, model, versions, progress of the stages."""
        return self.root / "run.json"

    @property
    def plan(self) -> Path:
        """All tiles of the run, fixed before the first one is read."""
        return self.root / "journal" / "plan.parquet"

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
    def painted(self) -> Path:
        """A line a finished label map."""
        return self.root / "journal" / "painted.jsonl"

    def label(self, name: str) -> Path:
        """The label map of a source, by the ``label`` column of its tiles."""
        return self.root / "labels" / name

    def segments(self, shard: int) -> Path:
        """The segments of one shard of tiles."""
        return self.root / "segments" / f"part-{shard:05d}.parquet"

    def shard_tiles(self, shard: int) -> Path:
        """The rows of one shard of tiles; there once the shard is done."""
        return self.root / "journal" / f"tiles-{shard:05d}.parquet"

    def read_run(self) -> dict[str, Any]:
        """The content of run.json."""
        try:
            run = json.loads(self.run_json.read_text(encoding="utf-8"))
            if not isinstance(run, dict):
                raise ValueError("it holds no object")
            return run
        except FileNotFoundError:
            raise RunFolderError(
                f"{self.root} is not a run folder: it has no run.json; "
                "make one with: alps label SRC OUT"
            ) from None
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"cannot read {self.run_json}: {error}; put back a copy, or give another OUT"
            ) from error

    def refuse_unpainted(self) -> None:
        """Raise RunFolderError where label maps are of older clusters than the segments."""
        if not self.run_json.exists():  # a folder of somebody's label maps
            return
        done = self.read_run().get("done", {})
        if done.get("paint") != done.get("cluster"):
            raise RunFolderError(
                f"the label maps of {self.root} are older than its clusters; "
                f"run: alps paint {self.root}"
            )

    def update_run(self, **values: Any) -> dict[str, Any]:
        """Set keys of run.json and return its new content."""
        run = (self.read_run() if self.run_json.exists() else {}) | values
        write_text(self.run_json, json.dumps(run, indent=2) + "\n")
        return run

    @contextmanager
    def locked(self, part: tuple[int, int] = (0, 1)) -> Iterator[None]:
        """Hold the folder for this process; the kernel lets go of it when the process dies.

        part: (i, n), this machine's share of the shards. With n > 1 only that share is held, so
        that other machines can work on theirs; files that all share are written ``alone``.
        """
        self._make()
        try:
            with self._hold("lock" if part[1] == 1 else f"lock-{part[0] + 1}-of-{part[1]}"):
                if part[1] == 1:
                    for other in sorted((self.root / "journal").glob("lock-*-of-*")):
                        with self._hold(other.name):
                            pass
                yield
        except Timeout:
            raise RunFolderError(
                f"another run is writing to {self.root}; wait for it, or give another OUT"
            ) from None

    def _make(self) -> None:
        try:
            (self.root / "journal").mkdir(parents=True, exist_ok=True)
            (self.root / "segments").mkdir(exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"cannot write to {self.root}: {error.strerror or error}; "
            "check the path, its permissions and the space left"
        )

    @contextmanager
    def alone(self, part: tuple[int, int]) -> Iterator[None]:
        """Hold the whole folder for a moment, waiting for other machines' moments."""
        if part[1] == 1:  # held anyway
            yield
            return
        try:
            with self._hold("lock", wait=MOMENT_SECONDS):
                yield
        except Timeout:
            raise RunFolderError(
                f"another run holds {self.root} as a whole; wait for it, or give another OUT"
            ) from None

    @contextmanager
    def _hold(self, name: str, wait: float = 0) -> Iterator[None]:
        lock = FileLock(self.root / "journal" / name)
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            raise
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what was written there gets its name when all went well."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}; "
            "check permissions and the space left, then run the same command again"
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; some file systems know no such thing."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file whole or not at all; the same table gives the same bytes."""
    with whole(path) as part:
        pq.write_table(table, part, compression="zstd")


@contextmanager
def open_table(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file of the run folder, to be read in parts; memory is what is asked for."""
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            yield file
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file of the run folder."""
    try:
        # One file is one table; partitioning="hive" would read names of folders as columns.
        return pq.read_table(path, columns=columns, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> RunFolderError:
    return RunFolderError(
        f"cannot read {path}: {error}; if it is one of segments/, delete it and give the "
        "command that made it again: its tiles are segmented anew"
    )
