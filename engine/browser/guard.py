"""Lets in what this machine's own page asks for, and nothing else."""

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")  # with any port: a tunnel may have another one
MOST_ADDRESS = 300  # letters
MOST_BODY = 1 << 20  # bytes; a merge of all classes there can be has half of it
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Stands before an application whose addresses begin with ``/TOKEN``.

    The token is in the address and in no cookie, which other servers of this machine would be sent
    too; pages do not tell it to others (Referrer-Policy), and it dies with the program.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through without its token."""
        if scope["type"] != "http":
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        status, why = self._refusal(scope)
        if why:
            await PlainTextResponse(why + "\n", status)(scope, receive, headed)
            return
        body = await _body(receive) if scope["method"] == "POST" else b""
        if body is None:
            await PlainTextResponse("too long\n", 413)(scope, receive, headed)
            return
        rest = scope["path"].removeprefix("/").partition("/")[2]
        inner = {**scope, "path": "/" + rest, "raw_path": b"/" + rest.encode(), "root_path": ""}
        await self._app(inner, _once(body, receive), headed)

    def _refusal(self, scope: Scope) -> tuple[int, str]:
        """Status and reason; none where a request is let in."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host.rpartition(":")[0] not in HOSTS and host not in HOSTS:
            return 403, "this page is for the machine that it runs on"
        if len(scope["path"]) > MOST_ADDRESS or scope.get("query_string"):
            return 404, "there is no such page"
        token = scope["path"].removeprefix("/").partition("/")[0]
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._token):
            return 403, "open the address that alps name printed: its token is missing or another"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "GET or POST"
        if scope["method"] == "POST" and headers.get("origin") != f"http://{host}":
            return 403, "changes are made by the page itself"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "another site asked for this"
        return 200, ""


async def _body(receive: Receive) -> bytes | None:
    """All of a request's body; None where it is too long."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MOST_BODY:
            return None
        if not message.get("more_body"):
            return body


def _once(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, then what else comes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
