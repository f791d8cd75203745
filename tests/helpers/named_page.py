"""Asks the page for naming, as its own scripts do or as they never would."""

import http.client
import json
from dataclasses import dataclass

CLUSTERS = 6  # of the run that is named
TOKEN = "the-token"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Served:
    """A page that is served; asks it as its own scripts would, unless told otherwise."""

    port: int
    desk: object
    session: int = 0

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}/{TOKEN}/"

    def raw(self, method, path, headers=None, body=None):
        """Ask for a path just as it is given."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def get(self, path):
        return self.raw("GET", f"/{TOKEN}/{path}")

    def post(self, path, body):
        origin = {"Origin": f"http://127.0.0.1:{self.port}"}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.raw("POST", f"/{TOKEN}/{path}", origin, content)

    def change(self, do, *clusters, **values):
        return self.post(
            "change", {"session": self.session, "do": do, "clusters": clusters} | values
        )

    def names(self):
        """What each class that is shown is called, by value."""
        return {one["value"]: one["name"] for one in self.get("state").json["classes"]}
