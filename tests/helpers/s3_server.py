"""An S3 server on loopback, moto's, behind a proxy that notes requests and misbehaves on order.

A process of its own: GDAL opens files while it holds Python's lock, and a server in the same
process could not answer it. Run as a program it prints the proxy's port and serves until its
standard input is closed.
"""

import html
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

CONTROL = "/-/control"
KEY, REFUSED_KEY = "right", "wrong"
BUCKET = "bucket"


@dataclass
class Rule:
    """What is done with requests of a method whose path, with its query, matches a pattern."""

    path: str  # a regular expression that is searched for
    method: str = ".*"
    status: int = 0  # answered instead of asking the store
    seconds: float = 0  # waited before any answer
    bytes_sent: int = -1  # of the body, where not all of it
    honest: bool = False  # whether a body that is cut says its own length
    after: bool = False  # the store is asked all the same, and the status is said of what it did
    times: int = 1 << 30  # after which the rule is used up


class Request(NamedTuple):
    """One that a store was asked."""

    method: str
    path: str  # with its query
    status: int
    range: str


class Server:
    """A server in its process, seen from a test."""

    def __init__(self, port: int, process: subprocess.Popen) -> None:
        self.port, self.process = port, process
        self.url = f"http://127.0.0.1:{port}"

    def environment(self) -> dict[str, str]:
        """What a program needs to know of it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def misbehave(self, *rules: Rule) -> None:
        """Follow these rules from now on, and forget those of before."""
        self._ask("PUT", json.dumps([asdict(rule) for rule in rules]).encode())

    def take_log(self) -> list[Request]:
        """The requests since this was last asked."""
        return [Request(*line) for line in json.loads(self._ask("POST"))]

    def put(self, key: str, body: bytes | Path, bucket: str = BUCKET) -> None:
        """Place an object, not counted."""
        content = body.read_bytes() if isinstance(body, Path) else body
        self._quietly("PUT", f"/{bucket}/{quote(key)}", content)

    def get(self, key: str, bucket: str = BUCKET) -> bytes:
        """An object's bytes, not counted."""
        return self._quietly("GET", f"/{bucket}/{quote(key)}")

    def delete(self, key: str, bucket: str = BUCKET) -> None:
        """Remove an object, not counted."""
        self._quietly("DELETE", f"/{bucket}/{quote(key)}")

    def keys(self, prefix: str = "", bucket: str = BUCKET) -> list[str]:
        """All keys that begin with a prefix, not counted."""
        found, token = [], ""
        while True:
            query = f"list-type=2&prefix={prefix}" + (f"&continuation-token={token}" * bool(token))
            text = self._quietly("GET", f"/{bucket}?{query}").decode()
            found += map(html.unescape, re.findall(r"<Key>(.*?)</Key>", text))
            more = re.search(r"<NextContinuationToken>(.*?)</NextContinuationToken>", text)
            if not more:
                return found
            token = more[1]

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket, not counted."""
        self._quietly("PUT", f"/{bucket}")

    def _quietly(self, method: str, path: str, body: bytes = b"") -> bytes:
        return self._ask(
            method, body, path, {"X-Test-Quiet": "1", "Content-Type": "binary/octet-stream"}
        )

    def _ask(self, method: str, body: bytes = b"", path: str = CONTROL, headers=None) -> bytes:
        request = urllib.request.Request(
            self.url + path, data=body or None, method=method, headers=headers or {}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return answer.read()


@contextmanager
def serving():
    """A server with one empty bucket."""
    command = [sys.executable, __file__]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        server = Server(int(process.stdout.readline()), process)
        server.make_bucket(BUCKET)
        yield server
    finally:
        process.kill()
        process.communicate()


def _proxy_of(moto_port: int) -> type[BaseHTTPRequestHandler]:
    rules: list[Rule] = []
    log: list[tuple[str, str, int, str]] = []
    lock = threading.Lock()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            self.connection.setsockopt(6, 1, 1)  # TCP_NODELAY: small answers go out at once

        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = (
                self._chunked() if "Transfer-Encoding" in self.headers else self.rfile.read(length)
            )
            if self.path == CONTROL:
                self._control(body)
                return
            if "X-Test-Quiet" in self.headers:
                self._send(*self._forward(body))
                return
            rule = self._rule()
            if rule and rule.seconds:
                time.sleep(rule.seconds)
            refused = f"Credential={REFUSED_KEY}/" in self.headers.get("Authorization", "")
            if refused:
                status, headers, content = self._refusal(403, "InvalidAccessKeyId")
            elif rule and rule.status and not rule.after:
                status, headers, content = self._refusal(rule.status, "OnOrder")
            else:
                status, headers, content = self._forward(body)
                if rule and rule.status:
                    status, headers, content = self._refusal(rule.status, "OnOrder")
            with lock:
                asked = self.headers.get("Range", "").removeprefix("bytes=")
                log.append((self.command, unquote(self.path), status, asked))
            self._send(status, headers, content, rule)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

        def _control(self, body):
            with lock:
                if self.command == "PUT":
                    rules[:] = [Rule(**rule) for rule in json.loads(body)]
                    content = b""
                else:
                    content = json.dumps(log).encode()
                    log.clear()
            self._send(200, {}, content)

        def _rule(self):
            with lock:
                for rule in rules:
                    fits = re.fullmatch(rule.method, self.command) and re.search(
                        rule.path, self.path
                    )
                    if fits and rule.times > 0:
                        rule.times -= 1
                        return rule
            return None

        def _refusal(self, status, code):
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
            return status, {"Content-Type": "application/xml"}, text.encode()

        def _forward(self, body):
            upstream = http.client.HTTPConnection("127.0.0.1", moto_port, timeout=60)
            kept = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in ("host", "connection", "transfer-encoding", "content-length")
            }
            kept |= {"Host": f"127.0.0.1:{moto_port}", "Content-Length": str(len(body))}
            if "Authorization" not in kept:  # all may be read by anybody
                kept["Authorization"] = f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/"
            upstream.request(self.command, self.path, body, kept)
            answer = upstream.getresponse()
            headers = dict(answer.getheaders())
            content = answer.read()
            upstream.close()
            return answer.status, headers, content

        def _send(self, status, headers, content, rule=None):
            self.send_response_only(status)
            length = headers.get("Content-Length", str(len(content)))
            if self.command != "HEAD":
                length = str(len(content))
            dropped = ("content-length", "connection", "transfer-encoding", "server", "date")
            for name, value in headers.items():
                if name.lower() not in dropped:
                    self.send_header(name, value)
            cut = rule is not None and 0 <= rule.bytes_sent < len(content)
            if cut:
                content = content[: rule.bytes_sent]
                length = str(len(content)) if rule.honest else length
            if status not in (204, 304):
                self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            if cut and not rule.honest:
                self.close_connection = True

        def _chunked(self):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, *args):
            pass

    return Proxy


def main() -> None:
    """Serve until whoever started this ends."""
    os.environ.setdefault("MOTO_ACCOUNT_ID", "123456789012")
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _proxy_of(port))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()  # ends with the test, whatever becomes of it
    os._exit(0)


if __name__ == "__main__":
    main()
