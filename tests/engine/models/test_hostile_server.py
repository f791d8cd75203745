"""Downloads from a server that means harm: without end, without sense, or both."""

import gzip
import hashlib
import time

import pytest
from click.testing import CliRunner
from misbehaving_server import good_server, serving, status

from alps.engine.base.errors import FetchError
from alps.engine.cli import models as models_cli
from alps.engine.models import download
from alps.engine.models.download import RetryPolicy, fetch

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def target(tmp_path):
    return tmp_path / "sam.pth"


def policy(**settings):
    return RetryPolicy(**({"attempts": 2, "sleep": lambda seconds: None} | settings))


def trickling(server, head, piece):
    """Sends ``head``, then ``piece`` again and again, each in time for any limit of sockets."""

    def behave(handler):
        handler.wfile.write(head)
        while not server.stop_waiting.wait(0.01):
            handler.wfile.write(piece)

    return behave


@pytest.mark.parametrize(
    ("head", "piece", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", b"a", "less than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"a", "less than 65536 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1\r\na\r\n",
            "less than 65536 bytes",
        ),
        (b"HTTP/1.1 200 OK\r\nX: ", b"a", "did not answer in time"),
        (b"HTTP/1.1 200", b" ", "did not answer in time"),
    ],
    ids=["known length", "no length", "chunks", "header", "status"],
)
def test_bytes_that_trickle_without_end(server, target, head, piece, said):
    server.otherwise = trickling(server, head, piece)
    began = time.monotonic()
    with pytest.raises(FetchError, match=rf"gave up after 2 attempts in a row: .*{said}"):
        fetch(server.url, target, SHA256, policy=policy(connect_timeout=0.2, read_timeout=0.2))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "location",
    [
        "http://[::1",
        "http://a:99999999/sam.pth",
        "http://a:b/sam.pth",
        "ftp://a/sam.pth",
        "javascript:alert(1)",
        "\xff\xfe",
    ],
)
def test_a_malformed_address_to_go_on_to(server, target, location):
    server.otherwise = status(302, Location=location)
    with pytest.raises(FetchError, match=r"sam\.pth: the server redirects to .*, which is no"):
        fetch(server.url, target, SHA256, policy=policy())


def test_secrets_of_an_address_to_go_on_to_are_not_shown(server, target):
    server.otherwise = status(302, Location="ftp://me:hunter2@a/sam.pth?signature=s3cret")
    with pytest.raises(FetchError, match=r"redirects to 'a/sam\.pth'") as raised:
        fetch(server.url, target, SHA256, policy=policy())
    assert "hunter2" not in str(raised.value) and "s3cret" not in str(raised.value)


def test_the_body_of_a_redirect_is_not_waited_for(server, target):
    head = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 999999999\r\n\r\n"
    server.script = [trickling(server, head, b"a" * 4096)]
    fetch(server.url, target, SHA256, policy=policy())
    assert target.read_bytes() == CONTENT


def test_who_one_is_goes_on_with_a_redirect_to_the_same_server_only(server, target):
    server.script = [status(302, Location="/elsewhere/sam.pth")]
    fetch(server.url.replace("://", "://me:hunter2@"), target, SHA256)
    assert all("Authorization" in request for request in server.requests[:2])
    target.unlink()
    server.requests.clear()
    other = server.url.replace("127.0.0.1", "localhost")
    server.script = [status(302, Location=other)]
    fetch(server.url.replace("://", "://me:hunter2@"), target, SHA256)
    assert ["Authorization" in request for request in server.requests] == [True, False]


def endless(server):
    def behave(handler):
        handler.answer(200, Transfer_Encoding="chunked")
        piece = b"10000\r\n" + bytes(65536) + b"\r\n"
        while not server.stop_waiting.is_set():
            handler.wfile.write(piece)

    return behave


def test_data_without_end_where_no_size_is_known(server, target):
    server.otherwise = endless(server)
    with pytest.raises(FetchError, match="more than the 500000 bytes this file may have"):
        fetch(server.url, target, SHA256, policy=policy(most_bytes=500_000))
    assert [path.name for path in target.parent.iterdir()] == ["sam.pth.lock"]


def test_a_size_that_cannot_be_is_refused_before_it_is_read(server, target):
    server.otherwise = good_server(CONTENT)
    with pytest.raises(FetchError, match=r"announces 102\.4 kB; this file may have 100\.0 kB"):
        fetch(server.url, target, SHA256, policy=policy(most_bytes=100_000))


def test_a_size_that_does_not_fit_on_the_disk_is_refused_before_it_is_read(
    server, target, monkeypatch
):
    free = type("Usage", (), {"free": 100_000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: free)
    with pytest.raises(FetchError, match=r"are needed and 100\.0 kB are free"):
        fetch(server.url, target, SHA256, policy=policy())


def test_a_bomb(server, target):
    bomb = gzip.compress(bytes(30_000_000))
    server.otherwise = lambda handler: handler.answer(200, bomb, Content_Encoding="gzip")
    with pytest.raises(FetchError, match="more than the 1000000 bytes this file may have"):
        fetch(server.url, target, SHA256, policy=policy(most_bytes=1_000_000))


@pytest.mark.parametrize("packed", ["gzip, gzip", "br", "gzip,deflate,gzip", "\xff"])
def test_a_bomb_in_a_bomb(server, target, packed):
    server.otherwise = lambda handler: handler.answer(
        200, gzip.compress(gzip.compress(bytes(30_000_000))), Content_Encoding=packed
    )
    with pytest.raises(FetchError, match="packed in a way that was not asked for"):
        fetch(server.url, target, SHA256, policy=policy())


def test_packed_bytes_that_are_none(server, target):
    server.otherwise = lambda handler: handler.answer(200, CONTENT, Content_Encoding="gzip")
    with pytest.raises(FetchError, match="cannot be fetched"):
        fetch(server.url, target, SHA256, policy=policy())


@pytest.mark.parametrize("digits", ["9" * 5000, "-1", "1e3", "\xb2"])
def test_numbers_that_are_none(server, target, digits):
    part = target.with_name("sam.pth.part")
    part.write_bytes(CONTENT[:1000])
    server.script = [
        lambda handler: handler.answer(
            206, CONTENT, Content_Range=f"bytes 1000-{digits}/{digits}", Content_Length=None
        ),
        status(503, Retry_After=digits),
        lambda handler: handler.answer(200, CONTENT, Content_Length=None, X_Length=digits),
    ]
    fetch(server.url, target, SHA256, policy=policy(attempts=5))
    assert target.read_bytes() == CONTENT


def test_the_command_bounds_a_file_with_ones_own_sum(server, tmp_path, monkeypatch):
    monkeypatch.setattr(models_cli, "MOST_TIMES", 0)
    server.otherwise = endless(server)
    command = ["fetch", "vit_b", "--url", server.url, "--sha256", SHA256, "--to", str(tmp_path)]
    done = CliRunner().invoke(models_cli.models, command)
    assert isinstance(done.exception, FetchError) and "more than the 0 bytes" in str(done.exception)
