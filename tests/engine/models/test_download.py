"""Downloads, against a real server on loopback that misbehaves in the ways servers do."""

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from functools import partial
from random import Random

import pytest
from misbehaving_server import good_server, rangeless_server, serving, status

from alps.engine.base.errors import FetchError
from alps.engine.models import download, part_file
from alps.engine.models.download import RetryPolicy, fetch

CONTENT = Random(1).randbytes(300_000)
OTHER = Random(2).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2
# Broken connections may cost the bytes of one read.
CHUNK = 4096

good = partial(good_server, CONTENT)
whole = partial(rangeless_server, CONTENT)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "CHUNK", CHUNK)
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def target(tmp_path):
    return tmp_path / "models" / "sam.pth"


class Waits(list):
    def policy(self, **settings):
        return RetryPolicy(**({"sleep": self.append, "attempts": 3} | settings))


@pytest.fixture
def waits():
    return Waits()


def part_of(target):
    return target.with_name("sam.pth.part")


def notes_of(target):
    return target.with_name("sam.pth.part.json")


def leave_part(target, content, **notes):
    target.parent.mkdir(exist_ok=True)
    part_of(target).write_bytes(content)
    if notes:
        notes_of(target).write_text(json.dumps(notes))


def check_whole(target):
    assert target.read_bytes() == CONTENT
    assert not part_of(target).exists()
    assert not notes_of(target).exists()


# --- as it should be


def test_a_file_arrives_whole(server, target):
    done = fetch(server.url, target, SHA256.upper(), size_bytes=len(CONTENT))
    assert (done.path, done.already_there, done.received_bytes) == (target, False, len(CONTENT))
    check_whole(target)
    assert server.requests[0]["Accept-Encoding"] == "identity"
    assert "Range" not in server.requests[0]


def test_a_file_that_is_there_is_verified_without_asking_the_server(server, target):
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert fetch(server.url, target, SHA256).already_there
    assert server.requests == []


def test_a_wrong_file_that_is_there_is_replaced(server, target, capsys):
    target.parent.mkdir()
    target.write_bytes(OTHER)
    assert not fetch(server.url, target, SHA256).already_there
    check_whole(target)
    assert f"not the file with SHA-256 {SHA256}" in capsys.readouterr().err


def test_a_wrong_file_that_is_there_stays_when_the_download_fails(server, target):
    target.parent.mkdir()
    target.write_bytes(OTHER)
    server.otherwise = status(404)
    with pytest.raises(FetchError):
        fetch(server.url, target, SHA256)
    assert target.read_bytes() == OTHER


def test_redirects_are_followed(server, target):
    server.script = [status(302, Location="/elsewhere/sam.pth")]
    fetch(server.url, target, SHA256)
    check_whole(target)


def test_chunked_bodies_have_no_length(server, target):
    def chunked(handler):
        pieces = (CONTENT[:HALF], CONTENT[HALF:], b"")
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        handler.answer(200, body, Transfer_Encoding="chunked")

    server.script = [chunked]
    fetch(server.url, target, SHA256)
    check_whole(target)


def test_progress_is_shown_with_the_length_the_server_states(server, target, capsys):
    fetch(server.url, target, SHA256)
    assert capsys.readouterr().err == "sam.pth: 300.0 of 300.0 kB in 0:00\n"


# --- connections that break


def test_a_body_without_length_that_is_cut_is_known_by_the_file_size(server, target, waits):
    server.script = [whole(stop=HALF, Content_Length=None)]
    done = fetch(server.url, target, SHA256, size_bytes=len(CONTENT), policy=waits.policy())
    check_whole(target)
    assert done.received_bytes == len(CONTENT)
    assert server.requests[1]["Range"] == f"bytes={HALF}-"


def test_a_dropped_connection_goes_on_where_it_stopped(server, target, waits):
    server.script = [good(stop=HALF), good(stop=50_000)]
    done = fetch(server.url, target, SHA256, size_bytes=len(CONTENT), policy=waits.policy())
    check_whole(target)
    assert done.received_bytes == len(CONTENT)
    starts = [re.fullmatch(r"bytes=(\d+)-", r["Range"])[1] for r in server.requests[1:]]
    assert HALF - CHUNK < int(starts[0]) <= HALF
    assert HALF + 50_000 - 2 * CHUNK < int(starts[1]) <= HALF + 50_000
    assert [r["If-Range"] for r in server.requests[1:]] == ['"one"'] * 2
    assert waits == [1.0, 2.0]


def test_the_next_call_goes_on_where_the_last_one_gave_up(server, target, waits):
    server.script = [good(stop=HALF), status(503), status(503)]
    with pytest.raises(
        FetchError, match=r"gave up after 3 attempts .*503.* are kept. Run the same command"
    ):
        fetch(server.url, target, SHA256, policy=waits.policy())
    assert not target.exists()
    kept = part_of(target).stat().st_size
    assert HALF - CHUNK < kept <= HALF
    server.requests.clear()
    done = fetch(server.url, target, SHA256, policy=waits.policy())
    check_whole(target)
    assert done.received_bytes == len(CONTENT) - kept
    assert server.requests[0]["Range"] == f"bytes={kept}-"
    assert server.requests[0]["If-Range"] == '"one"'


def test_progress_starts_the_count_of_attempts_anew(server, target, waits):
    server.script = [good(stop=50_000) for _ in range(5)]
    policy = waits.policy(attempts=2, progress_bytes=40_000)
    fetch(server.url, target, SHA256, policy=policy)
    check_whole(target)
    assert waits == [1.0] * 5


def test_a_trickle_is_no_progress(server, target, waits):
    server.otherwise = good(stop=2 * CHUNK)
    with pytest.raises(FetchError, match="gave up after 4 attempts"):
        fetch(server.url, target, SHA256, policy=waits.policy(attempts=4))
    assert waits == [1.0, 2.0, 4.0]


def test_waits_are_bounded_and_heed_the_server(server, target, waits):
    server.script = [
        status(500),
        status(503, Retry_After="7"),
        status(429, Retry_After="9999"),
        status(502),
    ]
    fetch(server.url, target, SHA256, policy=waits.policy(attempts=5, longest_wait=12.0))
    check_whole(target)
    assert waits == [1.0, 7.0, 12.0, 8.0]


def test_nobody_listens(server, target, waits):
    url = server.url.replace(str(server.server_port), "1")  # a privileged port nobody serves
    with pytest.raises(FetchError, match=r"gave up after 3 attempts in a row: .*refused"):
        fetch(url, target, SHA256, policy=waits.policy())


def test_a_silent_server_times_out(server, target, waits):
    def silent(handler):
        handler.answer(200, CONTENT[:HALF], Content_Length=len(CONTENT), ETag='"one"')
        server.stop_waiting.wait(10)

    server.script = [silent]
    fetch(server.url, target, SHA256, policy=waits.policy(read_timeout=0.5))
    check_whole(target)
    assert len(waits) == 1


# --- servers that lie


def test_a_length_that_is_too_long(server, target, waits):
    server.otherwise = whole(Content_Length=len(CONTENT) + 4096)
    with pytest.raises(FetchError, match="gave up"):
        fetch(server.url, target, SHA256, policy=waits.policy())
    assert not target.exists()


def test_a_length_that_is_too_long_once(server, target, waits):
    server.script = [whole(Content_Length=len(CONTENT) + 4096)]
    fetch(server.url, target, SHA256, policy=waits.policy())
    check_whole(target)


def test_a_length_that_is_too_short(server, target, waits):
    server.otherwise = whole(Content_Length=HALF)
    with pytest.raises(FetchError, match=f"wrong bytes: expected SHA-256 {SHA256}, found "):
        fetch(server.url, target, SHA256, policy=waits.policy())
    assert list(target.parent.glob("*")) == [target.with_name("sam.pth.lock")]


def test_a_known_size_catches_a_login_page_and_keeps_what_was_received(server, target, waits):
    leave_part(target, CONTENT[:HALF])
    server.otherwise = rangeless_server(b"<html>please log in</html>")
    with pytest.raises(FetchError, match="announces 26 bytes, but the file has 300000"):
        fetch(server.url, target, SHA256, size_bytes=len(CONTENT), policy=waits.policy())
    assert part_of(target).read_bytes() == CONTENT[:HALF]
    assert waits == []


def test_an_endless_body_is_stopped(server, target):
    def endless(handler):
        handler.answer(200, Transfer_Encoding="chunked")
        piece = b"1000\r\n" + bytes(4096) + b"\r\n"
        while not server.stop_waiting.is_set():
            handler.wfile.write(piece)

    server.otherwise = endless
    with pytest.raises(FetchError, match="more than the 300000 bytes"):
        fetch(server.url, target, SHA256, size_bytes=len(CONTENT))
    assert not target.exists() and not part_of(target).exists()


def test_wrong_bytes_name_both_sums_and_the_next_try_starts_anew(server, target, waits):
    server.script = [good_server(OTHER)]
    found = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(FetchError, match=f"expected SHA-256 {SHA256}, found {found}"):
        fetch(server.url, target, SHA256, size_bytes=len(CONTENT), policy=waits.policy())
    assert list(target.parent.glob("*")) == [target.with_name("sam.pth.lock")]
    assert len(server.requests) == 1
    fetch(server.url, target, SHA256, size_bytes=len(CONTENT), policy=waits.policy())
    check_whole(target)
    assert "Range" not in server.requests[1]


def test_compressed_bodies_are_unpacked(server, target):
    packed = gzip.compress(CONTENT)
    server.script = [rangeless_server(packed, Content_Encoding="gzip")]
    fetch(server.url, target, SHA256, size_bytes=len(CONTENT))
    check_whole(target)


# --- ranges


def test_a_server_that_ignores_ranges_sends_all_of_it_again(server, target, waits):
    server.script = [whole(stop=HALF)]
    server.otherwise = whole()
    fetch(server.url, target, SHA256, policy=waits.policy())
    check_whole(target)
    assert "Range" in server.requests[1]


@pytest.mark.parametrize(
    "given", ["bytes 0-299999/300000", "bytes 150000-299999/999", "nonsense", None]
)
def test_a_wrong_content_range_is_not_believed(server, target, waits, given):
    def wrong_range(handler):
        headers = {"Content_Range": given} if given else {}
        handler.answer(206, OTHER[HALF:], **headers)

    leave_part(target, CONTENT[:HALF])
    server.script = [wrong_range]
    done = fetch(server.url, target, SHA256, size_bytes=len(CONTENT), policy=waits.policy())
    check_whole(target)
    assert done.received_bytes == len(CONTENT)  # nothing of the wrong range
    assert "Range" in server.requests[0]
    assert "Range" not in server.requests[1]


def test_a_range_that_comes_in_pieces(server, target, waits):
    def piece(handler):
        handler.answer(206, CONTENT[HALF:-1000], Content_Range="bytes 150000-298999/300000")

    leave_part(target, CONTENT[:HALF])
    server.script = [piece]
    done = fetch(server.url, target, SHA256, policy=waits.policy())
    check_whole(target)
    assert done.received_bytes == len(CONTENT) - HALF


def test_a_partial_answer_nobody_asked_for(server, target):
    server.script = [lambda h: h.answer(206, OTHER, Content_Range="bytes 0-299999/300000")]
    with pytest.raises(FetchError, match="206"):
        fetch(server.url, target, SHA256)


def test_a_part_longer_than_the_file_starts_over(server, target, waits):
    leave_part(target, CONTENT + b"more")
    fetch(server.url, target, SHA256, policy=waits.policy())
    check_whole(target)
    assert "Range" not in server.requests[1]  # after 416


def test_a_whole_part_needs_no_server(server, target):
    leave_part(target, CONTENT)
    assert fetch(server.url, target, SHA256).received_bytes == 0
    check_whole(target)
    assert server.requests == []


def test_the_file_changes_between_two_parts(server, target, waits):
    # The server heeds If-Range: it sends all of the new version.
    server.script = [good_server(OTHER, etag='"old"', stop=HALF)]
    server.otherwise = good(etag='"new"')
    fetch(server.url, target, SHA256, policy=waits.policy())
    check_whole(target)
    assert server.requests[1]["If-Range"] == '"old"'


def test_the_file_changes_and_the_server_ignores_if_range(server, target, waits):
    def heedless(handler):
        rest = f"bytes {kept}-299999/300000"
        handler.answer(206, CONTENT[kept:], Content_Range=rest, ETag='"new"')

    kept = HALF
    leave_part(target, OTHER[:HALF], url=server.url, sha256=SHA256, etag='"old"')
    server.script = [heedless]
    server.otherwise = good(etag='"new"')
    done = fetch(server.url, target, SHA256, policy=waits.policy())
    check_whole(target)
    assert done.received_bytes == len(CONTENT)  # nothing was mixed
    assert "Range" not in server.requests[1]


def test_a_weak_etag_does_not_stand_in_if_range(server, target, waits):
    date = "Mon, 03 Apr 2023 10:00:00 GMT"
    server.script = [good(etag='W/"weak"', stop=HALF, Last_Modified=date)]
    server.otherwise = good(etag=date)
    fetch(server.url, target, SHA256, policy=waits.policy())
    check_whole(target)
    assert server.requests[1]["If-Range"] == date


# --- parts that earlier calls left


def test_bytes_that_a_crash_spoilt_cost_one_more_download_only(server, target, waits):
    leave_part(target, bytes(HALF))
    fetch(server.url, target, SHA256, policy=waits.policy())
    check_whole(target)
    assert [("Range" in r) for r in server.requests] == [True, False]


def test_a_part_of_another_file_is_thrown_away(server, target):
    leave_part(target, OTHER[:HALF], url=server.url, sha256=hashlib.sha256(OTHER).hexdigest())
    fetch(server.url, target, SHA256)
    check_whole(target)
    assert "Range" not in server.requests[0]


def test_another_mirror_goes_on_without_the_first_ones_etag(server, target):
    leave_part(target, CONTENT[:HALF], url="http://gone.example/x", sha256=SHA256, etag='"x"')
    done = fetch(server.url, target, SHA256)
    check_whole(target)
    assert done.received_bytes == len(CONTENT) - HALF
    assert "If-Range" not in server.requests[0]


@pytest.mark.parametrize("notes", ["", '{"url": "http', "[]", '{"etag": 5}'])
def test_spoilt_notes_are_no_obstacle(server, target, notes):
    leave_part(target, CONTENT[:HALF])
    notes_of(target).write_text(notes)
    fetch(server.url, target, SHA256)
    check_whole(target)


# --- refusals


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://a/b", "sam.pth", "http://", "http://[x"]
)
def test_only_http(target, url):
    with pytest.raises(FetchError, match="not an http:// or https:// URL"):
        fetch(url, target, SHA256)
    assert not target.parent.exists()


def test_not_found_is_not_retried(server, target, waits):
    server.otherwise = status(404)
    with pytest.raises(FetchError, match=r"404 Not Found\. Check the URL"):
        fetch(server.url, target, SHA256, policy=waits.policy())
    assert len(server.requests) == 1


def test_redirects_in_a_circle_or_to_a_file(server, target, waits):
    server.otherwise = status(302, Location="/sam.pth")
    with pytest.raises(FetchError, match="redirects"):
        fetch(server.url, target, SHA256, policy=waits.policy())
    server.otherwise = status(302, Location="file:///etc/hostname")
    with pytest.raises(FetchError, match=r"redirects to 'file:.*no http"):
        fetch(server.url, target, SHA256, policy=waits.policy())


def test_secrets_in_a_url_are_neither_shown_nor_kept(server, target, waits, capsys):
    server.otherwise = good(stop=HALF)
    url = server.url.replace("://", "://me:hunter2@") + "?signature=s3cret"
    with pytest.raises(FetchError) as caught:
        fetch(url, target, SHA256, policy=waits.policy(attempts=2))
    nobody = url.replace(str(server.server_port), "1")
    with pytest.raises(FetchError) as refused:
        fetch(nobody, target, SHA256, policy=waits.policy(attempts=2))
    seen = f"{caught.value} {refused.value} {capsys.readouterr().err}"
    seen += notes_of(target).read_text()
    assert "127.0.0.1" in seen
    assert "hunter2" not in seen and "s3cret" not in seen


# --- disks and folders


def test_a_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(FetchError, match=r"sam.pth: cannot be written: .*--to"):
        fetch(server.url, tmp_path / "models" / "sam.pth", SHA256)


def test_a_folder_in_the_place_of_the_file(server, target):
    target.mkdir(parents=True)
    with pytest.raises(FetchError, match="a folder has the file's name"):
        fetch(server.url, target, SHA256)
    assert server.requests == []


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(server, target):
    target.parent.mkdir(mode=0o500)
    with pytest.raises(FetchError, match="Permission denied"):
        fetch(server.url, target, SHA256)


def test_a_disk_that_fills_up_keeps_the_part(server, target, monkeypatch):
    append = part_file.PartFile.append

    def full(self, chunk):
        if self.size >= HALF:
            raise OSError(28, os.strerror(28))
        append(self, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(part_file.PartFile, "append", full)
        with pytest.raises(FetchError, match="No space left on device"):
            fetch(server.url, target, SHA256)
    assert not target.exists()
    done = fetch(server.url, target, SHA256)
    check_whole(target)
    assert done.received_bytes < len(CONTENT) - HALF + CHUNK


def test_too_little_space_is_said_before_the_download(server, target):
    with pytest.raises(FetchError, match=r"are needed and .* are free"):
        fetch(server.url, target, SHA256, size_bytes=10**18)
    assert server.requests == []


def test_the_final_name_appears_only_after_the_bytes_are_on_disk(server, target, disk_calls):
    fetch(server.url, target, SHA256)
    assert disk_calls == [("fsync", len(CONTENT)), ("replace", None), ("fsync", None)]


# --- two at once


def test_two_at_once_download_once(server, target):
    first_asked, may_answer = threading.Event(), threading.Event()

    def slow(handler):
        first_asked.set()
        may_answer.wait(10)
        good()(handler)

    server.script = [slow]
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch(server.url, target, SHA256)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    first_asked.wait(10)
    may_answer.set()
    for thread in threads:
        thread.join(10)
    check_whole(target)
    assert sorted(done.already_there for done in results) == [False, True]
    assert len(server.requests) == 1


def test_waiting_for_another_process_has_an_end(server, target, capsys):
    holds = f"""
import sys, filelock
with filelock.FileLock({str(target) + ".lock"!r}):
    print("locked", flush=True)
    sys.stdin.read()
"""
    target.parent.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(FetchError, match=r"another process .* for 0\.1 s"):
            fetch(server.url, target, SHA256, policy=RetryPolicy(lock_timeout=0.1))
        assert "another process is fetching it; waiting" in capsys.readouterr().err
        other.kill()  # the kernel lets go of the lock
        other.wait()
    fetch(server.url, target, SHA256)
    check_whole(target)
