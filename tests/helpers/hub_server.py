"""A stand-in for a Hugging Face hub on loopback: what fetching a model asks of its API."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server = self.server
        path = unquote(urlsplit(self.path).path).lstrip("/")
        server.asked.append((self.command, path, self.headers.get("Authorization")))
        if path.startswith("api/models/"):
            owner, name = path.removeprefix("api/models/").split("/")[:2]
            files = server.repositories.get(f"{owner}/{name}", {})
            tree = [{"type": "file", "path": path, "oid": "0", "size": 1} for path in files]
            return self._answer(200 if files else 404, json.dumps(tree).encode())
        repository, _, rest = path.partition("/resolve/")
        revision, _, file = rest.partition("/")
        if repository in server.gated and self.headers.get("Authorization") != "Bearer good":
            return self._answer(403, b"", X_Error_Code="GatedRepo")
        if repository not in server.repositories:
            return self._answer(401, b"", X_Error_Code="RepoNotFound")
        if revision not in ("main", COMMIT):
            return self._answer(404, b"", X_Error_Code="RevisionNotFound")
        content = server.repositories[repository].get(file)
        if content is None:
            return self._answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        digest = hashlib.sha256(content).hexdigest()
        return self._answer(200, content, ETag=f'"{digest}"', X_Repo_Commit=COMMIT)

    def log_message(self, *args):
        pass

    def _answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


class Hub(ThreadingHTTPServer):
    """``repositories``: name -> file -> bytes; ``gated``: those that want a token, "good"."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.gated, self.asked = {}, set(), []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, folder: Path) -> None:
        self.repositories[name] = {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def serving_hub():
    hub = Hub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
