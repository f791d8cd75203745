"""A small run, and the page of it as a server of this process."""

import contextlib
import shutil
import threading

import pytest
from named_page import CLUSTERS, TOKEN, Served
from small_runs import draw

from alps.engine.run_folder.folder import RunFolder
from alps.engine.settings import ClusterSettings, RunSettings
from alps.engine.stages.label import label_archive
from alps.engine.stages.opening import RunOptions


@pytest.fixture(scope="session")
def labelled(tmp_path_factory, speck):
    """Four small images and their run; not to be changed."""
    home = tmp_path_factory.mktemp("naming")
    (home / "images").mkdir()
    for year in range(2018, 2022):
        draw(home / "images" / f"field-{year}.png", year)
    settings = RunSettings(cluster=ClusterSettings(clusters=CLUSTERS))
    options = RunOptions(model=str(speck), device="cpu", max_failed=1.0)
    label_archive(home / "images", home / "run", settings, options)
    return home


@pytest.fixture
def run(labelled, tmp_path):
    """A copy of the run; its images lie elsewhere."""
    shutil.copytree(labelled / "run", tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def serve_page():
    """A function that serves the page of a run, as the session that may change names."""
    pytest.importorskip("starlette", reason="needs starlette, of the extra `name`")
    pytest.importorskip("uvicorn", reason="needs uvicorn, of the extra `name`")
    from alps.engine.browser.app import make_app, make_server
    from alps.engine.browser.desk import Desk
    from alps.engine.browser.serve import _listening

    ends = []

    def start(folder, suggest=None):
        desk = Desk(folder, suggest)
        listening = _listening(0)
        listener = listening.__enter__()
        server = make_server(make_app(desk, TOKEN))
        threads = [
            threading.Thread(target=server.run, args=([listener],), daemon=True),
            threading.Thread(target=_work, args=[desk], daemon=True),
        ]
        for thread in threads:
            thread.start()

        def end():
            server.should_exit = True
            desk.submit(_leave)
            for thread in threads:
                thread.join(10)
            listening.__exit__(None, None, None)

        ends.append(end)
        page = Served(listener.getsockname()[1], desk)
        page.session = page.post("open", {}).json["session"]
        return page

    yield start
    for end in ends:
        end()


def _work(desk):
    with contextlib.suppress(SystemExit):
        desk.work()


def _leave():
    raise SystemExit
