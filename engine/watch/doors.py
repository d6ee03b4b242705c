"""The connections to the server: how many there may be, and how long one may stay that asks for nothing.

If all places are taken, the connection that has been idle for longest makes room for a new one. A connection whose request
is being answered, as a live page is, never does.
"""

from __future__ import annotations

import asyncio
import socket
from time import monotonic
from typing import Final, cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp.web_protocol import RequestHandler

# A monitoring system has one or two, a browser up to six a page.
MAX_CONNECTIONS: Final = 128
# A request must have arrived within this time after the connection, and after the answer before it.
QUIET_SECONDS: Final = 90.0
FIRST_REQUEST_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 2.0


class Doors:
    """See the module. Give `middleware` to the application, and open the doors on a listening socket."""

    def __init__(self, max_connections: int = MAX_CONNECTIONS) -> None:
        self._max_connections = max_connections
        self._listening: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        # Requests that are being answered, by connection, and until when each other connection may be silent.
        self._busy: dict[RequestHandler, int] = {}
        self._due: dict[RequestHandler, float] = {}
        # Accepted connections that the server will know in the next iteration of the loop, and those that it is closing.
        self._coming: set[RequestHandler] = set()
        self._going: set[RequestHandler] = set()

    def middleware(self) -> Middleware:
        """What tells us that a connection has asked for something."""

        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection = request.protocol
            self._busy[connection] = self._busy.get(connection, 0) + 1
            try:
                return await handler(request)
            finally:
                self._busy[connection] -= 1
                if not self._busy[connection]:
                    del self._busy[connection]
                    self._due[connection] = monotonic() + QUIET_SECONDS

        return note

    async def open(self, server: web.Server, listening: socket.socket) -> None:
        """Accept connections for this server."""
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(lambda: self._admit(server), sock=listening)
        self._look(server)

    def close(self) -> None:
        """Accept no more."""
        if self._listening is not None:
            self._listening.close()
        if self._timer is not None:
            self._timer.cancel()

    def _admit(self, server: web.Server) -> asyncio.Protocol:
        """The protocol of a new connection."""
        known = set(server.connections)
        self._going &= known
        staying = known - self._going
        # Many connections may be accepted in one iteration of the loop.
        if len(staying | self._coming) >= self._max_connections:
            idle = [connection for connection in staying if connection not in self._busy]
            if not idle:
                return _Refusal()
            oldest = min(idle, key=lambda connection: self._due.get(connection, 0.0))
            self._going.add(oldest)
            oldest.force_close()
        connection = server()
        self._coming.add(connection)
        loop = asyncio.get_running_loop()
        # The loop tells the server of the connection in the next iteration; this comes after that.
        loop.call_soon(loop.call_soon, self._coming.discard, connection)
        self._due[connection] = monotonic() + FIRST_REQUEST_SECONDS
        return connection

    def _look(self, server: web.Server) -> None:
        """Close the connections that have been silent for too long, and forget those that are gone."""
        now = monotonic()
        known = set(server.connections)
        for connection, due in list(self._due.items()):
            if connection not in known:
                del self._due[connection]
            elif now >= due and connection not in self._busy:
                del self._due[connection]
                connection.force_close()
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look, server)


class _Refusal(asyncio.Protocol):
    """Says that there is no room, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer at once: whatever is asked, there is no room for it."""
        writing = cast("asyncio.Transport", transport)
        writing.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writing.close()
