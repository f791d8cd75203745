"""How the page is started and ended."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from click.testing import CliRunner
from named_page import CLUSTERS

from alps.engine import browser
from alps.engine.base.errors import RunFolderError, SettingsError
from alps.engine.cli.name import name as command
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


def test_a_folder_with_links_to_outside_is_not_shown(run, tmp_path):
    (tmp_path / "elsewhere").write_text("{}")
    run.names.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match=r"names\.json is a link that leads out"):
        browser.serve(run, 0, False)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    with pytest.raises(RunFolderError, match="is not a run folder"):
        browser.serve(RunFolder(tmp_path / "typo"), 0, False)
    assert not (tmp_path / "typo").exists()


@pytest.mark.slow
def test_ctrl_c_ends_it_in_order(run):
    """The address is printed, answers, and is gone after Ctrl-C; nothing is left held."""
    pytest.importorskip("starlette", reason="needs starlette, of the extra `name`")
    pytest.importorskip("uvicorn", reason="needs uvicorn, of the extra `name`")
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from alps.engine.cli.main import main; main()"
    )
    line = [
        sys.executable,
        "-c",
        code,
        "name",
        str(run.root),
        "--no-browser",
        "--port",
        "0",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, **pipes) as program:
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


def test_names_after_real_labels_are_only_suggested_on_the_page(run, monkeypatch):
    asked = {}

    def serve(folder, port, open_browser, suggest):
        asked.update(port=port, opens=open_browser, suggested=suggest())

    monkeypatch.setattr(browser, "serve", serve)
    labels = str(run.root / "labels")  # as good as any; each class is its own truth
    call = CliRunner().invoke
    options = ["--from-truth", labels, "--review", "--port", "7", "--no-browser"]
    done = call(command, [str(run.root), *options], catch_exceptions=False)
    assert done.exit_code == 0 and not run.names.exists()
    assert (asked["port"], asked["opens"]) == (7, False)
    assert asked["suggested"][2].share == 1 and len(asked["suggested"]) == CLUSTERS
    for arguments in (["--review"], [*options, "--set", "1=water"]):
        refused = call(command, [str(run.root), *arguments])
        assert "goes with --from-truth" in str(refused.exception) and not run.names.exists()
