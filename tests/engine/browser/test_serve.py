"""How the page is started and ended."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from alps.engine import browser
from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.run_folder.folder import RunFolder
from alps.engine.run_folder.locks import alone_naming, locked

MOST_SECONDS = 120


def test_a_second_page_of_one_run_is_refused(run):
    with (
        alone_naming(run),
        pytest.raises(RunFolderError, match=f"is open already: process {os.getpid()} on"),
    ):
        browser.serve(run, 0, False)
    with alone_naming(run), locked(run):  # names may be changed meanwhile
        pass


def test_a_port_that_is_taken_is_said(run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SettingsError, match=r"cannot use port \d+ .*give another --port"):
            browser.serve(run, other.getsockname()[1], False)


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_what_is_not_installed_is_said(run, monkeypatch, package):
    for name in [name for name in sys.modules if name.startswith("alps.engine.browser.")]:
        if name.rpartition(".")[2] in ("app", "guard"):
            monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=rf"needs {package}.*alps-engine\[name\]"):
        browser.serve(run, 0, False)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    with pytest.raises(RunFolderError, match="is not a run folder"):
        browser.serve(RunFolder(tmp_path / "typo"), 0, False)
    assert not (tmp_path / "typo").exists()


def test_ctrl_c_ends_it_in_order(run):
    """The address is printed, answers, and is gone after Ctrl-C; nothing is left held."""
    pytest.importorskip("starlette", reason="needs starlette, of the extra `name`")
    pytest.importorskip("uvicorn", reason="needs uvicorn, of the extra `name`")
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from alps.engine.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "name", str(run.root), "--no-browser", "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as program:
        try:
            address = program.stdout.readline().split()[-1]
            assert program.stdout.readline().startswith("Ctrl-C ends it")
            with urllib.request.urlopen(address, timeout=MOST_SECONDS) as answer:
                assert b"page.js" in answer.read()
            program.send_signal(signal.SIGINT)
            _, said = program.communicate(timeout=MOST_SECONDS)
        finally:
            program.kill()
    assert program.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1] == "alps: interrupted; run the same command again to go on"
    with alone_naming(run), locked(run):
        pass
