"""A web server on loopback that does what a test tells it to, right or wrong."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        self.close_connection = True
        behave = server.script.pop(0) if server.script else server.otherwise
        behave(self)

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        """Send `body` as it is; header names are written with underscores, None leaves one out."""
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            if value is None:
                continue
            self.send_header(name.replace("_", "-"), str(value))
        if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def good_server(content, etag='"one"', stop=None, **headers) -> Callable[[Handler], None]:
    """A server as it should be, which closes the connection after `stop` bytes of a body."""

    def behave(handler):
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        if asked and handler.headers.get("If-Range", etag) == etag:
            start = int(asked[1])
            if start >= len(content):
                handler.answer(416, Content_Range=f"bytes */{len(content)}")
                return
            status = 206
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        else:
            status, start = 200, 0
        body = content[start:]
        more = {"ETag": etag} if etag else {}
        handler.answer(status, body[:stop], Content_Length=len(body), **more, **headers)

    return behave


def rangeless_server(content, stop=None, **headers):
    """A server that knows no ranges, and states the length as it is told."""
    headers = {"Content_Length": len(content)} | headers
    return lambda handler: handler.answer(200, content[:stop], **headers)


def status(code, **headers):
    return lambda handler: handler.answer(code, b"words", **headers)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = []  # one behaviour a request, then `otherwise`
        self.otherwise = good_server(content)
        self.requests = []
        self.stop_waiting = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/sam.pth"

    def handle_error(self, request, client_address):
        pass  # clients that hang up are part of the game


@contextmanager
def serving(content) -> Iterator[Server]:
    """A server that answers, past any proxy, until the end of the block."""
    with pytest.MonkeyPatch.context() as patch, Server(content) as server:
        patch.setenv("NO_PROXY", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stop_waiting.set()
            server.shutdown()
            thread.join()
