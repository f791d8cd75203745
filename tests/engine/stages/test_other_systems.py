"""A run without what only POSIX has: as on Windows, as far as that can be had here."""

import errno
import importlib
import os
import pkgutil
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import save_archive

import alps.kernels
from alps.engine.base import atomic
from alps.engine.base.errors import SettingsError
from alps.engine.base.stopping import Stopping
from alps.engine.datasets.draft import Draft
from alps.engine.settings import ClusterSettings, RunSettings, SegmentSettings
from alps.engine.stages.label import RunOptions, label_archive
from alps.engine.telemetry import heartbeat

# What Windows' Python lacks of what anybody might call (docs.python.org, "Availability").
LACKS = {
    os: (
        "O_NONBLOCK", "O_DIRECTORY", "O_NOFOLLOW", "fork", "forkpty", "getpgid", "getpgrp",
        "getuid", "geteuid", "getloadavg", "killpg", "mkfifo", "nice", "pread", "pwrite",
        "sched_getaffinity", "setsid", "statvfs", "sync", "sysconf", "uname", "wait3", "fchmod",
        "chown", "posix_fadvise", "posix_fallocate",
    ),
    signal: (
        "SIGKILL", "SIGHUP", "SIGUSR1", "SIGCHLD", "SIGALRM", "pthread_sigmask", "pthread_kill",
        "setitimer", "sigwait",
    ),
    socket: ("AF_UNIX",),
}  # fmt: skip
MODULES = ("fcntl", "grp", "pwd", "resource", "termios")


class Lacking:
    """A module of Python's without some of what it has here."""

    def __init__(self, module, **instead):
        self._module, self._instead = module, instead

    def __getattr__(self, name):
        if name in LACKS.get(self._module, ()):
            raise AttributeError(f"module {self._module.__name__!r} has no attribute {name!r}")
        return self._instead.get(name) or getattr(self._module, name)


@pytest.fixture
def as_on_windows(monkeypatch):
    """No such calls and modules in our code, folders cannot be opened, links not made.

    Libraries have their own ways on each system, which are not those of this one.
    """
    for found in pkgutil.walk_packages(alps.kernels.__path__, "alps.kernels."):
        if not found.name.endswith("gpu"):
            importlib.import_module(found.name)

    def open_file(path, flags, *more):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return os.open(path, flags, *more)

    def link(*_, **__):
        raise OSError(errno.EPERM, "A required privilege is not held by the client")

    theirs = {
        "os": Lacking(os, open=open_file),
        "signal": Lacking(signal),
        "socket": Lacking(socket),
        "sys": Lacking(sys, platform="win32"),
    }
    for name, module in list(sys.modules.items()):
        if name.startswith(("alps.engine.", "alps.kernels.")):
            for known, instead in theirs.items():
                if getattr(module, known, None) is sys.modules[known]:
                    monkeypatch.setattr(module, known, instead)
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(Path, "symlink_to", link)


@pytest.mark.usefixtures("one_thread", "without_reports", "as_on_windows")
def test_an_archive_is_labelled(speck, tmp_path):
    settings = RunSettings(
        segment=SegmentSettings(points_per_side=2), cluster=ClusterSettings(clusters=2)
    )
    out = tmp_path / "run"
    options = RunOptions(model=str(speck), device="cpu")
    source = str(save_archive(tmp_path / "archive") / "north")
    assert label_archive(source, out, settings, options).tiles["ok"] >= 1
    assert (out / "labels" / "e.tif").exists()
    with pytest.raises(SettingsError, match="--workers 2: Windows hands no pipe on"):
        label_archive(source, tmp_path / "2", settings, replace(options, workers=2))


@pytest.mark.usefixtures("as_on_windows")
def test_a_file_gets_its_name(tmp_path):
    atomic.write_text(tmp_path / "a", "b")
    assert (tmp_path / "a").read_text() == "b"


@pytest.mark.usefixtures("as_on_windows")
def test_no_process_is_sent_a_signal_to_see_whether_it_lives(monkeypatch):
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("Windows ends what it is sent to"))
    assert heartbeat._place() == "" and heartbeat._born(os.getpid()) == ""
    stopping = Stopping([])
    stopping.received = signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        stopping._send_again()


@pytest.mark.usefixtures("as_on_windows")
def test_where_no_link_can_be_made_a_copy_is_named(tmp_path):
    (tmp_path / "image.png").write_bytes(b"")
    draft = Draft.__new__(Draft)
    draft.path = lambda name: tmp_path / name
    with pytest.raises(SettingsError, match="privilege is not held by the client; give --copy"):
        draft.take(tmp_path / "image.png", "link.png", copy=False)
    assert not Path(tmp_path / "link.png").exists()
