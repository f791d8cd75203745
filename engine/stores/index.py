"""What of a mirrored folder is in the store, and as what: a small database beside the folder.

It may be lost, or deleted: everything is fetched again then.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

_TABLE = """create table if not exists files (
    name text primary key, etag text, bytes integer, changed_ns integer, seen integer default 0
) without rowid"""


class Index:
    """Files by their names below the folder. Several threads, and several processes, may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._database = self._opened()
        except sqlite3.DatabaseError:  # torn by a power cut
            path.unlink()
            self._database = self._opened()

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self._path, timeout=60, isolation_level=None, check_same_thread=False
        )
        database.execute("pragma synchronous = off")  # what is lost is fetched again
        database.execute(_TABLE)
        return database

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    def note_as(self, name: str, etag: str, size: int, changed_ns: int) -> None:
        """Note that a file of this size and time of change is in the store under a tag."""
        self._do("replace into files values (?, ?, ?, ?, 0)", name, etag, size, changed_ns)

    def forget(self, name: str) -> None:
        """Note that a file is in the store no more."""
        self._do("delete from files where name = ?", name)

    def has(self, name: str) -> bool:
        """Whether a file is in the store, as it is or was."""
        with self._lock, closing(self._database.cursor()) as cursor:
            query = "select 1 from files where name = ?"
            return cursor.execute(query, (name,)).fetchone() is not None

    def etag(self, name: str, path: Path) -> str | None:
        """The tag under which a file is in the store; None where it is not, or has changed."""
        with self._lock, closing(self._database.cursor()) as cursor:
            query = "select etag, bytes, changed_ns from files where name = ?"
            row = cursor.execute(query, (name,)).fetchone()
        if row is None:
            return None
        try:
            status = path.stat()
        except OSError:
            return None
        return str(row[0]) if (status.st_size, status.st_mtime_ns) == row[1:] else None

    def names_below(self, folder: str) -> list[str]:
        """Files that are in the store below a folder."""
        with self._lock, closing(self._database.cursor()) as cursor:
            query = "select name from files where name >= ? and name < ? order by name"
            return [row[0] for row in cursor.execute(query, (f"{folder}/", f"{folder}0"))]

    def mark_seen(self, name: str, mark: int) -> None:
        """Note that a listing, of which ``mark`` is the number, has a file."""
        self._do("update files set seen = ? where name = ?", mark, name)

    def next_mark(self) -> int:
        """A number for a listing."""
        with self._lock, closing(self._database.cursor()) as cursor:
            found = cursor.execute("select coalesce(max(seen), 0) + 1 from files").fetchone()
            return int(found[0])

    def is_seen(self, name: str, mark: int) -> bool:
        """Whether a listing has a file."""
        with self._lock, closing(self._database.cursor()) as cursor:
            query = "select 1 from files where name = ? and seen = ?"
            return cursor.execute(query, (name, mark)).fetchone() is not None

    def forget_unseen(self, mark: int) -> None:
        """Forget all files that a listing has not."""
        self._do("delete from files where seen != ?", mark)

    def names(self) -> Iterator[str]:
        """All files, in order."""
        last = ""
        while True:
            with self._lock, closing(self._database.cursor()) as cursor:
                query = "select name from files where name > ? order by name limit 1000"
                page = [row[0] for row in cursor.execute(query, (last,))]
            if not page:
                return
            yield from page
            last = page[-1]

    def _do(self, statement: str, *values: object) -> None:
        with self._lock:
            self._database.execute(statement, values)
