"""DIR while it is written: a folder beside it, which gets the name once all of it is there.

Files with a line or an element an image grow in it; how far they have come is noted now and then,
and an export that was killed goes on from there. Memory does not grow with images.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Self

from filelock import FileLock, Timeout

from alps.engine.base.atomic import clear, place_folder, publish, spare_name, write_text
from alps.engine.base.errors import RunFolderError, SettingsError, printable
from alps.engine.base.lines import append_line, open_journal, read_lines
from alps.engine.base.records import Count

ABOUT = "export.json"  # how an export is known, and what it says of itself
JOURNAL = ".journal"
LOCK = ".lock"
LEFT_OUT = "left_out.jsonl"
SECONDS_BETWEEN_NOTES = 5.0


@dataclass(frozen=True)
class Done:
    """How far an export has come."""

    of: str = ""  # fingerprint of all that decides it
    sources: Count = 0  # of the plan, that were looked at
    images: Count = 0
    annotations: Count = 0
    patched: Count = 0  # images whose run knew of no objects
    left_out: Count = 0
    missing: Count = 0  # images that are named and are not where they were read
    sizes: Mapping[str, Count] = field(default_factory=dict)  # bytes of files that grow


class Stream:
    """A file that grows by elements; what a killed process wrote after its last note is cut off."""

    def __init__(self, path: Path, size: int, head: str, between: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab")  # noqa: SIM115 - closed by the draft
        self._file.truncate(size)
        self._empty = len(head.encode())
        self._between = between
        if not size:
            self._file.write(head.encode())

    def add(self, element: str) -> None:
        """Append an element, ``between`` before it where it is not the first."""
        if self.size > self._empty:
            self._file.write(self._between.encode())
        self._file.write(element.encode())

    def end(self, text: str, inlet: Path | None = None) -> None:
        """Append the last words; before them all of another file."""
        if inlet is not None:
            with open(inlet, "rb") as file:
                shutil.copyfileobj(file, self._file)
        self._file.write(text.encode())

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.tell()

    def sync(self) -> None:
        """Bring it to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Draft:
    """A context manager; left without ``publish``, it keeps what was noted for the same command.

    Raises SettingsError where DIR may not be written to, RunFolderError where it cannot be.
    """

    def __init__(self, target: str | Path, of: str, *, overwrite: bool = False) -> None:
        """Prepare to write.

        Args:
            target: DIR.
            of: a fingerprint of all that decides what is written.
            overwrite: take the place of an export that is there.
        """
        self.target = Path(os.path.abspath(target))
        _refuse_others(self.target, overwrite)
        self.root = self.target.with_name(f".{self.target.name}.part")
        self.done = Done(of)
        self._streams: dict[str, Stream] = {}
        self._journal: IO[bytes] | None = None
        self._noted = time.monotonic()

    def __enter__(self) -> Self:
        with self.writing():
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.root / LOCK)
            try:
                self._lock.acquire(timeout=0.5)
            except Timeout:
                raise RunFolderError(
                    f"another export is writing {self.target}; wait for it, or give another DIR"
                ) from None
            try:
                self._go_on()
                self._journal = open_journal(self.root / JOURNAL)
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for stream in self._streams.values():
            with suppress(OSError):
                stream.close()
        if self._journal is not None:
            self._journal.close()
        self._lock.release()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say in a line what went wrong with the disk."""
        try:
            yield
        except OSError as error:
            where = error.filename or self.target
            raise RunFolderError(
                f"cannot write {where}: {error.strerror or error}; check permissions and the space "
                "left, then run the same command again"
            ) from error

    def stream(self, name: str, head: str = "", between: str = "\n") -> Stream:
        """A file below DIR that grows; the same name gives the same one."""
        if name not in self._streams:
            size = self.done.sizes.get(name, 0)
            self._streams[name] = Stream(self.root / name, size, head, between)
        return self._streams[name]

    def leave_out(self, image: str, reason: str) -> None:
        """A row for a source that the data set is without."""
        row = {"image": image, "reason": printable(reason)}
        self.stream(LEFT_OUT).add(json.dumps(row, ensure_ascii=False))

    def path(self, name: str) -> Path:
        """Where a file of its own goes that is to lie at ``name`` below DIR; its folder is made."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def take(self, file: Path, name: str, *, copy: bool) -> None:
        """A link to a file, or a copy of it, at ``name`` below DIR."""
        path = self.path(name)
        part = path.with_name(f".{path.name}.part")
        clear(part)
        if copy:
            shutil.copyfile(file, part)
            publish(part, path)
        else:
            try:
                part.symlink_to(file)
            except OSError as error:  # Windows lets only some people make one
                raise SettingsError(
                    f"{path} cannot be a link to {file}: {error.strerror or error}; give --copy"
                ) from error
            os.replace(part, path)

    def note(self, done: Done) -> None:
        """Keep how far it has come; on the disk now and then."""
        self.done = done
        if time.monotonic() - self._noted < SECONDS_BETWEEN_NOTES:
            return
        for stream in self._streams.values():
            stream.sync()
        assert self._journal is not None  # notes are of an open draft
        sizes = {name: stream.size for name, stream in self._streams.items()}
        append_line(self._journal, asdict(replace(done, sizes={**done.sizes, **sizes})))
        os.fsync(self._journal.fileno())
        self._noted = time.monotonic()

    def publish(self, about: Mapping[str, Any]) -> None:
        """Give it its name; an older export makes room."""
        for stream in self._streams.values():
            stream.sync()
            stream.close()
        write_text(self.root / ABOUT, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
        for name in os.listdir(self.root):
            if name.startswith(".") and name != LOCK:
                (self.root / name).unlink()
        (self.root / LOCK).unlink()
        place_folder(self.root, self.target)

    def _go_on(self) -> None:
        """Take up what the last note says, where it is of the same export; else begin anew."""
        shutil.rmtree(spare_name(self.target), ignore_errors=True)
        last = None
        for line in read_lines(self.root / JOURNAL, Done):
            last = line or last
        if last is not None and last.of == self.done.of and self._holds(last):
            self.done = last
            if LEFT_OUT not in last.sizes:  # rows after the last note; they may not come again
                (self.root / LEFT_OUT).unlink(missing_ok=True)
            return
        for name in os.listdir(self.root):
            path = self.root / name
            if name == LOCK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _holds(self, done: Done) -> bool:
        sizes = {name: self.root / name for name in done.sizes}
        return all(
            path.is_file() and path.stat().st_size >= done.sizes[name]
            for name, path in sizes.items()
        )


def _refuse_others(target: Path, overwrite: bool) -> None:
    """Raise SettingsError where something stands at DIR that is not to be replaced."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise SettingsError(f"{target} is no folder, or a link to one; give another DIR")
    if not any(target.iterdir()):
        return
    if not (target / ABOUT).is_file():
        raise SettingsError(
            f"{target} is not empty and holds no export (it has no {ABOUT}); give a new or empty "
            "folder as DIR"
        )
    if not overwrite:
        raise SettingsError(
            f"{target} holds an export already; give another DIR, or --overwrite to replace it"
        )
