"""The addresses of the page. They take numbers alone, so none can name a file."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib.resources import files
from pathlib import PurePosixPath
from typing import TypeVar

import uvicorn
from msgspec import Struct
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from alps.engine.base.errors import AlpsError, SettingsError
from alps.engine.base.records import BadRecordError, parse_record
from alps.engine.browser.desk import BusyError, Desk
from alps.engine.browser.guard import Guard
from alps.engine.browser.pictures import Gallery, NoPictureError
from alps.engine.browser.requests import Asked, Change
from alps.engine.browser.sessions import NotYoursError, Sessions

T = TypeVar("T", bound=Struct)
ROOM, REPORT = "alps.engine.browser", "alps.engine.report"
# What lies at which address; colours and letters are the report's.
FILES = {
    "": (ROOM, "page/page.html"),
    "report.css": (REPORT, "page.css"),
    "page.css": (ROOM, "page/page.css"),
    "page.js": (ROOM, "page/page.js"),
    "server.js": (ROOM, "page/server.js"),
    "cards.js": (ROOM, "page/cards.js"),
    "map.js": (ROOM, "page/map.js"),
    "dialogs.js": (ROOM, "page/dialogs.js"),
}
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
SCENES_AT_ONCE = 200
WEBP, NUMBERS = "image/webp", "application/octet-stream"


def make_app(desk: Desk, token: str) -> ASGIApp:
    """The application that shows a desk to who knows the token, ``/TOKEN/`` being the page."""
    return Guard(_Page(desk).app(), token)


def make_server(app: ASGIApp) -> uvicorn.Server:
    """What answers for an application; it writes no log of who asked for what."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


class _Page:
    """What is at the addresses."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._gallery, self._sessions = desk, Gallery(desk.folder), Sessions()

    def app(self) -> Starlette:
        static = [Route(f"/{name}", _file(*about)) for name, about in FILES.items()]
        pictures = [
            Route("/exemplar/{since:int}/{cluster:int}/{place:int}", self._exemplar),
            Route("/scene/{scene:int}/{part:int}/image", self._scene),
            Route("/scene/{scene:int}/{part:int}/clusters/{survey:int}", self._clusters),
        ]
        asked = [
            Route("/state", self._state),
            Route("/news/{session:int}", self._news),
            Route("/scenes/{first:int}", self._scenes),
        ]
        posts: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "open": self._open,
            "take": self._take,
            "leave": self._leave,
            "change": self._change,
            "undo": self._undo,
            "redo": self._redo,
            "paint": self._paint,
        }
        made = [Route(f"/{name}", act, methods=["POST"]) for name, act in posts.items()]
        handlers = {
            AlpsError: _said,
            HTTPException: _said,
        }
        return Starlette(routes=[*static, *pictures, *asked, *made], exception_handlers=handlers)

    # Pictures: made in other threads, so that news and names do not wait for them.

    async def _exemplar(self, request: Request) -> Response:
        numbers = request.path_params
        survey, cluster = self._desk.survey, numbers["cluster"]
        if numbers["since"] != survey.since.get(cluster):  # a split came in between
            return Response(status_code=204)
        made = await run_in_threadpool(self._gallery.exemplar, survey, cluster, numbers["place"])
        return Response(made, media_type=WEBP)

    async def _scene(self, request: Request) -> Response:
        numbers = request.path_params
        made = await run_in_threadpool(self._gallery.scene, numbers["scene"], numbers["part"])
        return Response(made, media_type=WEBP)

    async def _clusters(self, request: Request) -> Response:
        numbers = request.path_params
        made = await run_in_threadpool(
            self._gallery.clusters, self._desk.survey, numbers["scene"], numbers["part"]
        )
        return Response(made, media_type=NUMBERS, headers={"Content-Encoding": "gzip"})

    # What is to be known.

    async def _state(self, request: Request) -> Response:
        return JSONResponse(self._desk.state())

    async def _news(self, request: Request) -> Response:
        if await run_in_threadpool(self._desk.is_older):
            self._desk.submit(self._desk.look_again)
        busy = self._desk.busy
        return JSONResponse(
            {
                "version": self._desk.version,
                "owner": self._sessions.is_owner(request.path_params["session"]),
                "busy": busy and asdict(busy),
                "said": self._desk.said,
            }
        )

    async def _scenes(self, request: Request) -> Response:
        first = request.path_params["first"]
        found = await run_in_threadpool(self._gallery.scenes, first, SCENES_AT_ONCE)
        last = first + SCENES_AT_ONCE
        return JSONResponse({"scenes": found, "next": last if last < self._gallery.count else None})

    # What can be done.

    async def _open(self, request: Request) -> Response:
        session = self._sessions.open()
        return JSONResponse({"session": session, "owner": self._sessions.is_owner(session)})

    async def _take(self, request: Request) -> Response:
        self._sessions.take((await _asked(request, Asked)).session)
        return JSONResponse({"owner": True})

    async def _leave(self, request: Request) -> Response:
        self._sessions.leave((await _asked(request, Asked)).session)
        return JSONResponse({})

    async def _change(self, request: Request) -> Response:
        change = await _asked(request, Change)
        return await self._done(change.session, lambda: self._desk.change(change))

    async def _undo(self, request: Request) -> Response:
        return await self._done((await _asked(request, Asked)).session, self._desk.undo)

    async def _redo(self, request: Request) -> Response:
        return await self._done((await _asked(request, Asked)).session, self._desk.redo)

    async def _paint(self, request: Request) -> Response:
        self._sessions.refuse_others((await _asked(request, Asked)).session)
        if self._desk.busy:
            raise BusyError(f"{self._desk.busy.what} is not done yet")
        self._desk.submit(self._desk.paint)
        return JSONResponse({})

    async def _done(self, session: int, job: Callable[[], object]) -> Response:
        self._sessions.refuse_others(session)
        if self._desk.busy:
            raise BusyError(f"{self._desk.busy.what}: names can be changed when that is done")
        return JSONResponse(await asyncio.wrap_future(self._desk.submit(job)))


async def _asked(request: Request, kind: type[T]) -> T:
    """The body of a request. Raises SettingsError."""
    try:
        return parse_record(await request.body(), kind)
    except BadRecordError as error:
        raise SettingsError(f"what the page asked for cannot be read: {error}") from error


def _file(room: str, name: str) -> Callable[[Request], Awaitable[Response]]:
    content = files(room).joinpath(name).read_bytes()

    async def give(request: Request) -> Response:
        return Response(content, media_type=KINDS[PurePosixPath(name).suffix])

    return give


async def _said(request: Request, error: Exception) -> Response:
    """An error that a person can do something about."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    if isinstance(error, NoPictureError):
        return JSONResponse({"error": str(error)}, 404)
    status = 409 if isinstance(error, (NotYoursError, BusyError)) else 400
    return JSONResponse({"error": str(error), "taken": isinstance(error, NotYoursError)}, status)
