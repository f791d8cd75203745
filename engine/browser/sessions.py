"""Which of the browsers that have the page open may change names: one at a time."""

import secrets
import threading
import time
from collections.abc import Callable

from alps.engine.base.errors import AlpsError

SILENT_SECONDS = 8.0  # a page that asked for nothing this long is closed


class NotYoursError(AlpsError):
    """Another browser changes the names now."""


class Sessions:
    """The page's sessions; may be asked from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._seen = 0.0  # when the owner was heard of

    def open(self) -> int:
        """A new session."""
        return secrets.randbelow(1 << 31)

    def is_owner(self, session: int) -> bool:
        """Whether a session may change names, as it may from now on where no other is open."""
        with self._lock:
            is_free = self._owner is None or self._clock() - self._seen > SILENT_SECONDS
            if is_free or session == self._owner:
                self._own(session)
            return session == self._owner

    def refuse_others(self, session: int) -> None:
        """Raise NotYoursError where another session may change names."""
        if not self.is_owner(session):
            raise NotYoursError("another browser names these classes now; take over to go on here")

    def take(self, session: int) -> None:
        """Let this session change names from now on, and no other."""
        with self._lock:
            self._own(session)

    def leave(self, session: int) -> None:
        """A page was closed."""
        with self._lock:
            if session == self._owner:
                self._owner = None

    def _own(self, session: int) -> None:
        self._owner, self._seen = session, self._clock()
