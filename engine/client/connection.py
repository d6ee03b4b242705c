"""`Engine`: a program's connection to a running engine, on asyncio or uvloop. `connect` makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self, TypeVar, Unpack
from weakref import WeakValueDictionary

import zmq

from rlpx.engine.client.calls import CALL_TIMEOUT_SECONDS, Calls, decoded
from rlpx.engine.client.commands import Commands
from rlpx.engine.client.feed import Feed
from rlpx.engine.client.feed_options import FeedOptions, opening_of
from rlpx.engine.client.presence import PATIENCE_SECONDS, EngineUnavailableError
from rlpx.engine.client.responding import Handler, Responder, Responding, requests_of
from rlpx.engine.client.routes import Routes, audience
from rlpx.engine.client.wire import Place, Wire
from rlpx.engine.client.worker_links import NoDataEndpointError, Times, WorkerLink, WorkerLinks
from rlpx.protocol.bus.results import BroadcastResult, StatusResult, WorkerStatus

if TYPE_CHECKING:
    from rlpx.engine.client.forms import Sendable
    from rlpx.engine.client.typed_requests import Peer

# What waits for peers or for workers to drain takes a minute as a rule.
WAIT_SECONDS: Final = 600.0
# The socket of the commands in a run directory; those of the workers are beside it.
_CONTROL: Final = "control.ipc"
# An engine that listens on all addresses is reached at the one of its commands.
_ALL_ADDRESSES: Final = frozenset({"0.0.0.0", "[::]", "*", ""})  # noqa: S104 - it is compared
# Status answers at once, unless the engine hangs.
_STATUS_SECONDS: Final = 5.0

T = TypeVar("T")


class Engine(Commands):
    """The engine at a control endpoint. `timeout_seconds` is the time of a call that is given none.

    If the engine is started again, the next call connects to it. Calls that were under way fail with
    `EngineUnavailableError`, because nobody knows whether they were carried out.
    """

    def __init__(self, endpoint: str, key: Path | str | None, timeout_seconds: float) -> None:
        self.endpoint = endpoint
        self._key = key
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._calls = Calls(timeout_seconds)
        self._wire: Wire | None = None
        # One attempt to connect serves all calls that wait for it.
        self._connecting = asyncio.Lock()
        self._is_closed = False
        self._ending: asyncio.Future[None] | None = None
        # What feeds and responders use; `BlockingEngine` makes its own with them.
        times = Times(PATIENCE_SECONDS, timeout_seconds)
        self.links = WorkerLinks(self._ask_status, self._open_worker, self._on_request, times)
        self.responding = Responding(self.links)
        self._routes = Routes(self._command, self.links)
        # All `Peer`s of a session take turns.
        self._rooms: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    @classmethod
    async def opened(
        cls, endpoint: str, key: Path | str | None = None, timeout_seconds: float = CALL_TIMEOUT_SECONDS
    ) -> Self:
        """Connect. Raises `EngineUnavailableError`, `EngineForbiddenError`, `EndpointError`, `ConfigError`."""
        engine = cls(endpoint, key, timeout_seconds)
        try:
            await engine._control()
        except BaseException:
            await engine.close()
            raise
        return engine

    def feed(self, *topics: str, **options: Unpack[FeedOptions]) -> Feed:
        """The events of all workers whose topics begin with one of these, and that are as all `options` say."""
        return Feed(self.links, self.open_events, opening_of(topics, options))

    def respond(self, topics: str | Iterable[str], handler: Handler, *, at_a_time: int = 64) -> Responder:
        """Answer peers' requests of these topics, at all workers, until the responder or the connection is closed.

        The handler gets each `Request` and returns the response: a typed message, which is sent in the form of the request's
        version with any request id, or its payload, or `None` for the empty answer; or it is a coroutine function that does.
        It has a few seconds (`responders.answer_s`); after that the peer has had the empty answer.
        """
        return self.responding.add(requests_of(topics), handler, at_a_time)

    def peer(self, session: int) -> Peer:
        """The peer of a session, to send it messages and requests."""
        from rlpx.engine.client.typed_requests import MAX_OPEN_REQUESTS, Peer  # noqa: PLC0415 - loads every message

        room = self._rooms.setdefault(session, asyncio.Semaphore(MAX_OPEN_REQUESTS))
        return Peer(session, self._routes, room)

    async def publish(  # noqa: PLR0913 - options by keyword, which editors complete
        self,
        message: Sendable,
        *,
        but: int | Iterable[int] = (),
        client: str | None = None,
        direction: Literal["inbound", "outbound"] | None = None,
        raw: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - see `Calls.call`
    ) -> BroadcastResult:
        """Send a message to every active session that matches, `but` these, to each in the form of its version.

        Versions that do not have the message are left out. The result lists the sessions that could not get it, and why.
        An announcement of over 4,096 transactions, and transactions of over 128 KiB, leave as several messages: each when
        the last one was sent or waits for its peers. The result then lists the sessions that lack one of them, and has the
        count of the message that the fewest sessions got. `raw` sends what peers punish, and in one piece.
        """
        return await self._routes.publish(message, audience(but, client, direction, raw=raw), timeout)

    async def close(self) -> None:
        """Close all connections; calls that are under way are cancelled in the engine."""
        self._is_closed = True
        self.responding.close()
        self._calls.cancel()
        try:
            await self.links.close()
            # Cancelled calls tell the engine in the next iteration of the loop.
            await asyncio.sleep(0)
        finally:
            # Also if the program cancels what closes.
            if self._wire is not None:
                self._wire.close()
            # ZeroMQ waits here for what has not left yet. It must not be told twice at a time.
            if self._ending is None:
                self._ending = asyncio.ensure_future(asyncio.to_thread(self._context.term))
            await asyncio.shield(self._ending)

    async def _command(
        self,
        name: str,
        parameters: Mapping[str, object],
        result: type[T],
        payload: bytes | None,
        timeout: float | None,  # noqa: ASYNC109 - see `Calls.call`
    ) -> T:
        given = {key: value for key, value in parameters.items() if value is not None}
        if timeout is None and given.get("wait"):
            timeout = WAIT_SECONDS
        wire = await self._control()
        return decoded(await self._calls.call(wire, name, given, attachment=payload, timeout=timeout), result)

    async def _control(self) -> Wire:
        """The open connection to the control endpoint, a new one if the last has ended."""
        if self._wire is not None and self._wire.is_open:
            return self._wire
        async with self._connecting:
            if self._is_closed:
                raise EngineUnavailableError(f"the connection to {self.endpoint} was closed")
            if self._wire is None or not self._wire.is_open:
                self._wire = Wire(self._place(self.endpoint), self._calls.on_message, self._calls.fail)
                await self._wire.open()
        return self._wire

    async def _ask_status(self) -> StatusResult:
        return await self.status(timeout=_STATUS_SECONDS)

    def _open_worker(
        self,
        status: WorkerStatus,
        on_message: Callable[[list[bytes]], None],
        on_end: Callable[[EngineUnavailableError], None],
    ) -> Wire:
        return Wire(self._place(self._data_endpoint(status)), on_message, on_end)

    async def open_events(
        self,
        topics: Sequence[str],
        on_message: Callable[[list[bytes]], None],
        on_end: Callable[[EngineUnavailableError], None],
    ) -> Wire | None:
        """Connect to the engine's own events; none if it serves none over TCP. Raises `EngineUnavailableError`."""
        if self._is_closed:
            raise EngineUnavailableError(f"the connection to {self.endpoint} was closed")
        endpoint = self._beside("events.ipc")
        if endpoint is None:
            events = (await self._ask_status()).endpoints.get("events")
            if events is None or events.address is None:
                return None
            endpoint = self._reachable(events.address)
        wire = Wire(self._place(endpoint), on_message, on_end, topics)
        await wire.open()
        return wire

    def _place(self, endpoint: str) -> Place:
        return Place(self._context, endpoint, self._key)

    def _beside(self, name: str) -> str | None:
        """Another socket of the run directory; none if the engine was not reached by one."""
        if self.endpoint.startswith("ipc://") and self.endpoint.endswith(f"/{_CONTROL}"):
            return self.endpoint.removesuffix(_CONTROL) + name
        return None

    def _reachable(self, endpoint: str) -> str:
        """A TCP endpoint as it is reached from here."""
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        if host in _ALL_ADDRESSES:
            host = self.endpoint.removeprefix("tcp://").rpartition(":")[0]
        return f"tcp://{host}:{port}"

    def _data_endpoint(self, status: WorkerStatus) -> str:
        """Where a worker's data endpoint is, as seen from here. Raises `NoDataEndpointError`."""
        beside = self._beside(f"worker-{status.worker}.ipc")
        if beside is not None:
            return beside
        if status.data_endpoints is None or status.data_endpoints.tcp is None:
            raise NoDataEndpointError(f"{self.endpoint} serves no data endpoints of workers; see data.endpoint")
        return self._reachable(status.data_endpoints.tcp)

    def _on_request(self, link: WorkerLink, frames: list[bytes]) -> None:
        self.responding.on_message(link, frames)
