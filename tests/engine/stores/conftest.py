"""One server for all tests of stores, which each find it empty of orders and with a prefix of
their own.
"""

import itertools

import pytest
from runs_in_stores import AS_COG, SETTINGS, content
from s3_server import serving

from alps.engine.stages.label import RunOptions, label_archive

counter = itertools.count()


@pytest.fixture(scope="session")
def s3_server():
    pytest.importorskip("obstore", reason="the extra `stores`")
    pytest.importorskip("moto.server", reason="needs moto[server]")
    with serving() as server:
        yield server


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The server, with the environment that leads to it."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    s3_server.misbehave()
    s3_server.take_log()
    yield s3_server
    s3_server.misbehave()


@pytest.fixture
def prefix():
    """A folder of keys that no other test uses."""
    return f"test{next(counter)}"


@pytest.fixture(scope="session")
def archive(saved_archive):
    """Five small images in two folders."""
    return saved_archive


@pytest.fixture(scope="session")
def on_disk(archive, speck, tmp_path_factory):
    """What a run leaves whose images and OUT lie on the disk."""
    out = tmp_path_factory.mktemp("on_disk") / "out"
    label_archive(archive, out, SETTINGS, RunOptions(str(speck), "cpu"))
    return content(out)


@pytest.fixture(scope="session")
def on_disk_as_cog(archive, speck, tmp_path_factory):
    """The same with --cog; the files by their names."""
    out = tmp_path_factory.mktemp("on_disk_as_cog") / "out"
    label_archive(archive, out, AS_COG, RunOptions(str(speck), "cpu"))
    return content(out)
