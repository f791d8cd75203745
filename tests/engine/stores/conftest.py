"""One server for all tests of stores, which each find it empty of orders and with a prefix of
their own.
"""

import itertools

import pytest
from s3_server import serving

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
