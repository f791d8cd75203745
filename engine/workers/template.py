"""A process that imports what workers need, and then forks one after the other.

A worker that is a Python of its own imports for seconds before it can do anything; a fork of one
that has done so is there at once, and shares the memory of what was imported. The template itself
never computes, opens no file and starts no thread, so that there is nothing which a fork would
break. It is a child of the process that asked for it, and ends with it; so its forks report their
end to it, and it tells.
"""

import gc
import importlib
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from alps.engine.base.stopping import children_without_ctrl_c
from alps.engine.workers.place import Place
from alps.engine.workers.process import Beginning, main

WAITED_SECONDS = 0.05  # between two looks whether a fork has ended
UNKNOWN = -signal.SIGKILL  # how a fork ended whose template is gone too


def can_fork(place: Place) -> bool:
    """Whether workers of a place may be forks: CUDA, and libraries of macOS, would be broken."""
    return sys.platform == "linux" and place.gpu is None


class Forked:
    """A fork of a template, seen from the process that asked for it; as ``subprocess.Popen``."""

    def __init__(self, template: "Template", stderr: IO[str]) -> None:
        self.stderr: IO[str] | None = stderr
        self.pid: int | None = None  # not known before the template has made it
        self._template = template
        self._code: int | None = None

    def ended(self, code: int) -> None:
        """Told by the template."""
        self._code = code

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or minus the signal that ended it. Raises subprocess.TimeoutExpired."""
        until = None if timeout is None else time.monotonic() + timeout
        while self._code is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("a worker", timeout or 0)
            if not self._template.listen(WAITED_SECONDS):
                self._code = self._code_of_an_orphan()
        return self._code

    def kill(self) -> None:
        """End it at once."""
        while self.pid is None and self._template.listen(WAITED_SECONDS):
            pass
        if self.pid is not None and self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _code_of_an_orphan(self) -> int | None:
        """Of one whose template is gone: None while it is there and may be waited for."""
        if self.pid is None:
            return UNKNOWN  # it was never made
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text("ascii", "replace").rpartition(")")[2]
        except (FileNotFoundError, ProcessLookupError):
            return UNKNOWN
        if state.split()[0] in "ZX":  # ended, where the first process of a container reaps nobody
            return UNKNOWN
        time.sleep(WAITED_SECONDS)
        return None


class Template:
    """The parent's side of a template.

    Args:
        place: of all of its forks.
        modules: that it imports at once.
    """

    def __init__(self, place: Place, modules: Sequence[str]) -> None:
        self.place = place
        self._asked: deque[Forked] = deque()  # forks that are not made yet
        self._made: dict[int, Forked] = {}
        self._is_there = True
        ours, theirs = socket.socketpair()
        code = (
            f"import sys; sys.path[:] = {sys.path!r}\n"
            "from alps.engine.workers.template import run\n"
            f"run({theirs.fileno()}, {list(modules)!r})\n"
        )
        with children_without_ctrl_c(), theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                env=os.environ | place.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # a fresh worker says the same
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours
        self._connection = Connection(os.dup(ours.fileno()))

    def fork(self, begin: Beginning) -> Forked | None:
        """A worker, which is there when all is imported; None where the template is gone.

        ``begin.handle`` may be closed afterwards.
        """
        self.listen(0)
        if not self._is_there:
            return None
        reading, writing = os.pipe()
        forked = Forked(self, os.fdopen(reading, "r", errors="backslashreplace"))
        try:
            self._connection.send_bytes(pickle.dumps(begin))
            fds = array("i", [begin.handle, writing])
            self._socket.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        except OSError:
            self._is_there = False
            assert forked.stderr is not None
            forked.stderr.close()
            return None
        finally:
            os.close(writing)
        self._asked.append(forked)
        return forked

    def listen(self, timeout: float) -> bool:
        """Take in what the template tells; False where it is gone and nothing more will come."""
        try:
            while self._is_there and self._connection.poll(timeout):
                pid, code = self._connection.recv()
                if code is None:
                    forked = self._asked.popleft()
                    forked.pid, self._made[pid] = pid, forked
                else:
                    self._made.pop(pid).ended(code)
                timeout = 0
        except (EOFError, OSError):
            self._is_there = False
        return self._is_there

    def close(self) -> None:
        """End the template; its forks have ended, or are left to themselves."""
        self._is_there = False
        self._connection.close()
        self._socket.close()
        self._process.kill()
        self._process.wait()


_early: tuple[Template, tuple[str, ...]] | None = None


def begin_early(place: Place, modules: Sequence[str]) -> None:
    """Start a template that will be wanted, while this process has imports of its own to do."""
    global _early
    if _early is None and can_fork(place):
        _early = Template(place, modules), tuple(modules)


def forget_early() -> None:
    """End a template that was begun early, where nobody took it."""
    global _early
    early, _early = _early, None
    if early is not None:
        early[0].close()


def template_for(place: Place, modules: Sequence[str]) -> Template:
    """The template that was begun early, where it is one of this kind, or a new one."""
    global _early
    if _early is not None and (_early[0].place, _early[1]) == (place, tuple(modules)):
        found, _early = _early[0], None
        return found
    forget_early()
    return Template(place, modules)


def run(handle: int, modules: Sequence[str]) -> None:
    """Be a template, over the socket ``handle``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    gc.disable()  # what is imported stays
    for name in modules:
        importlib.import_module(name)
    gc.freeze()  # so that forks do not write to it
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    woken.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    ours = socket.socket(fileno=handle)
    connection = Connection(os.dup(handle))
    with selectors.DefaultSelector() as ready:
        ready.register(ours, selectors.EVENT_READ)
        ready.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj is woken:
                    woken.recv(1024)
                    _tell_ends(connection)
                    continue
                try:
                    begin: Beginning = pickle.loads(connection.recv_bytes())
                    _, fds, _, _ = socket.recv_fds(ours, 1, 2)
                except (EOFError, OSError):
                    os._exit(0)  # nobody is there any more; forks notice it themselves
                pid = os.fork()
                if pid == 0:
                    gc.enable()
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for one in (ready, connection, ours, woken, wake):
                        one.close()
                    _be_worker(begin, *fds)
                for fd in fds:
                    os.close(fd)
                connection.send((pid, None))


def _tell_ends(connection: Connection) -> None:
    """Reap forks that have ended."""
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = found
            with suppress(OSError):
                connection.send((pid, os.waitstatus_to_exitcode(status)))


def _be_worker(begin: Beginning, handle: int, stderr: int) -> None:
    """What a fork does; it does not return."""
    code = 1
    try:
        os.dup2(stderr, 2)
        os.close(stderr)
        main(replace(begin, handle=handle))
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)
