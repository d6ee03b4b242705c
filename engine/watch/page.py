"""The page at `/`: its files, and what its scripts ask for. Each open page has one stream of server-sent events.

A browser that reads slowly has one message in progress and none waiting: when it has read that, it gets the state as it is
then. Nothing is kept for it meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from rlpx.engine.overview import follower
from rlpx.engine.overview.follower import Follower, Place, Said
from rlpx.engine.overview.overview import Overview
from rlpx.engine.overview.sessions import Query
from rlpx.engine.watch import overview_json
from rlpx.engine.watch.control import Control
from rlpx.engine.watch.keys import LINK
from rlpx.engine.watch.overview_json import Parts
from rlpx.engine.watch.session_look import SessionLook
from rlpx.protocol.wording import WrongValueError, convert

TICK_SECONDS: Final = 1.0
# Each open page costs a connection and up to 64 KiB of buffers.
MAX_STREAMS: Final = 64
# A browser that has not read one message for this long is gone.
WRITE_SECONDS: Final = 30.0
# So long after the last look at the table, the sessions' traffic is not read any more.
LISTING_SECONDS: Final = 10.0

STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Scripts and styles come from our files alone; no script can turn a text into HTML.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `/api/sessions` is asked for."""

    text: Annotated[str, Meta(max_length=256)] = ""
    direction: str = ""
    phase: str = ""
    sort: str = "session"
    descending: bool = True
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class Page:
    """Follows an engine for all browsers. `control` decides who may change anything."""

    def __init__(self, place: Place, control: Control) -> None:
        self.overview = Overview()
        self.control = control
        self._place = place
        self._follower = Follower(place, self._take)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listed_at: float | None = None
        self._files = {file.name: file.read_bytes() for file in sorted(STATIC.iterdir())}
        # The parts of the last tick, what changed in it (`news`), and its number; the event is set by the next one.
        self._parts: Parts = {}
        self.news = b""
        self._number = 0
        self._ticked = asyncio.Event()
        self._streams = 0

    def add_to(self, app: web.Application) -> None:
        """Add the routes, and follow the engine while the application runs."""
        app.cleanup_ctx.append(self._run)
        app.add_routes(
            [
                web.get("/", self.index),
                web.get("/static/{name}", self.file),
                web.get("/api/stream", self.stream),
                web.get("/api/sessions", self.sessions),
                web.get("/api/sessions/{session}", self.session),
                web.get("/api/control", self.control.show),
                web.post("/api/control/{command}", self.control.carry_out),
            ]
        )

    @property
    def is_listing(self) -> bool:
        """Whether the sessions' traffic is read, because somebody looks at the table."""
        return self._follower.is_listing

    # -- the engine ---------------------------------------------------------------------------------------------------------

    async def _run(self, _app: web.Application) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        ticking = asyncio.create_task(self._tick())
        self._follower.start()
        yield
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking
        await asyncio.to_thread(self._follower.stop)

    def _take(self, said: Said) -> None:
        """Pass on what the engine said, from the follower's thread; it waits until the loop has taken it."""
        assert self._loop is not None  # noqa: S101 - the thread is started after the loop is known
        taken = asyncio.run_coroutine_threadsafe(self._apply(said), self._loop)
        with suppress(TimeoutError):
            # A loop that ends takes nothing more.
            taken.result(WRITE_SECONDS)

    async def _apply(self, said: Said) -> None:
        follower.apply(self.overview, said, now=monotonic())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while True:
            next_at = max(next_at + TICK_SECONDS, loop.time())
            await asyncio.sleep(next_at - loop.time())
            self.tick(second=int(time()), now=monotonic())

    def tick(self, *, second: int, now: float) -> None:
        """End a second: every stream gets what changed."""
        self._follower.is_listing = self._listed_at is not None and now - self._listed_at < LISTING_SECONDS
        self.overview.tick(second, now=now)
        ticked, self._ticked = self._ticked, asyncio.Event()
        self._number += 1
        if self._streams:
            parts = overview_json.parts_of(self.overview, now=now)
            news = overview_json.changed(parts, self._parts)
            self.news = overview_json.joined({**news, "second": str(second).encode()})
            self._parts = parts
        else:
            self._parts = {}
        ticked.set()

    def _state(self) -> bytes:
        """Everything, for a browser that knows nothing, or not the last state."""
        parts = self._parts or overview_json.parts_of(self.overview, now=monotonic())
        return overview_json.joined({**parts, **overview_json.history_parts(self.overview)})

    # -- handlers -----------------------------------------------------------------------------------------------------------

    async def index(self, _request: web.Request) -> web.Response:
        """The page."""
        return self._file("index.html")

    async def file(self, request: web.Request) -> web.Response:
        """One of its files."""
        return self._file(request.match_info["name"])

    def _file(self, name: str) -> web.Response:
        body = self._files.get(name)
        if body is None:
            raise web.HTTPNotFound(text="no such file\n")
        headers = {"Content-Type": _TYPES[Path(name).suffix], "Content-Security-Policy": POLICY}
        return web.Response(body=body, headers=headers)

    async def sessions(self, request: web.Request) -> web.Response:
        """A page of the table of sessions."""
        self._listed_at = monotonic()
        try:
            given = convert(dict(request.query), PageQuery, strict=False, thing="parameter")
        except WrongValueError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        query = Query(
            text=given.text,
            direction=given.direction,
            phase=given.phase,
            sort=given.sort,
            is_descending=given.descending,
            offset=given.offset,
            limit=given.limit,
        )
        found = self.overview.sessions.find(query)
        return web.Response(body=overview_json.page_json(found), content_type="application/json")

    async def session(self, request: web.Request) -> web.Response:
        """One session, as it is now, or its end."""
        look = self._look(request, request.match_info["session"])
        return web.Response(body=await look.session_json(), content_type="application/json")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The state, then what changes, once a second; with `session=N` that session and its messages as well."""
        look = self._look(request, request.query["session"]) if "session" in request.query else None
        if self._streams >= MAX_STREAMS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_STREAMS} pages are open already\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        self._streams += 1
        try:
            await response.prepare(request)
            with suppress(ConnectionError, TimeoutError):
                await self._send_all(response, look)
        finally:
            self._streams -= 1
            if look is not None:
                await look.stop()
        return response

    async def _send_all(self, response: web.StreamResponse, look: SessionLook | None) -> None:
        number = self._number
        await send_event(response, "state", self._state())
        while True:
            for event, data in await look.collect() if look is not None else ():
                await send_event(response, event, data)
            if self._number == number:
                await self._ticked.wait()
            # A browser that has missed a tick gets everything.
            is_next = self._number == number + 1
            number = self._number
            await send_event(response, *(("tick", self.news) if is_next else ("state", self._state())))

    def _look(self, request: web.Request, text: str) -> SessionLook:
        return SessionLook(session_number(text), self.overview, request.app[LINK], self._place)


async def send_event(response: web.StreamResponse, event: str, data: bytes) -> None:
    """Send one event. It waits while the browser does not read; raises `TimeoutError` in the end, and `ConnectionError`."""
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(b"event: " + event.encode() + b"\ndata: " + data + b"\n\n")


def session_number(text: str) -> int:
    """The number of a session in a path. Raises `HTTPBadRequest`."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20):  # noqa: PLR2004 - digits of 64 bits
        raise web.HTTPBadRequest(text="a session is a number\n")
    return int(text)
