"""The connection for what travels with every session: writes to the fleet's store and stream, and their answers.

nats-py connects, subscribes and watches. It takes a queue, a task and several coroutines for each message, more than a
session may cost in a fleet. So this second connection, to the server that nats-py is connected to, sends many
messages in one write, and hands on all answers of one read together. It does not connect again by itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, cast
from urllib.parse import ParseResult

import structlog

from rlpx.engine.client.complaints import Complaints
from rlpx.engine.client.credentials import Credentials
from rlpx.engine.client.nats_servers import PENDING_BYTES, PING_SECONDS
from rlpx.protocol.bus import nats_wire
from rlpx.protocol.bus.nats_wire import Info, Message, NatsWireError, Verb
from rlpx.protocol.cluster.addressing import DEFAULT_PORT

# The server must let us in within this time.
CONNECT_SECONDS: Final = 2.0
# A server that is silent for this long after our ping is gone, as nats-py judges it too.
SILENT_SECONDS: Final = 2.0 * PING_SECONDS

log = structlog.get_logger()

# It gets all answers of one read.
OnAnswers = Callable[[list[Message]], None]


class Way:
    """Where one part of ours gets its answers. It keeps its subject over connections."""

    def __init__(self, inbox: str, on_answers: OnAnswers) -> None:
        self.prefix = inbox.encode() + b"."
        self.on_answers = on_answers


class Wire:
    """See the module. `on_lost` is called if a connection that was up ends, unless `close` ended it."""

    def __init__(self, name: str, credentials: Credentials | None, on_lost: Callable[[], None]) -> None:
        self._name = name
        self._credentials = credentials
        self._on_lost = on_lost
        self._ways: list[Way] = []
        self._connection: _Connection | None = None
        self._complaints = Complaints(lambda problem: log.warning("the NATS server complains", cause=problem))

    @property
    def is_up(self) -> bool:
        """Whether messages can be sent."""
        return self._connection is not None

    def take_answers(self, inbox: str, on_answers: OnAnswers) -> Way:
        """Take the answers to subjects one word below `inbox`. Call this before `connect`."""
        way = Way(inbox, on_answers)
        self._ways.append(way)
        return way

    async def connect(self, url: ParseResult, server_name: str) -> None:
        """Connect, and prove who we are. `server_name` is that of the certificate. Raises `OSError`, `NatsWireError`."""
        if self._connection is not None:
            return
        made = _Connection(self._ways, self._forget, self._complaints.hear)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await made.connect(url, server_name, lambda info: self._options(url, info))
        except BaseException:
            made.abort()
            raise
        self._connection = made

    def publish(self, subject: bytes, reply: bytes, headers: bytes, body: bytes) -> bool:
        """Send a message with the next `flush`; `False` if it cannot be sent."""
        return self._connection is not None and self._connection.send(subject, reply, headers, body)

    def flush(self) -> None:
        """Send what was published since the last time, in one write."""
        if self._connection is not None:
            self._connection.flush()

    def tick(self) -> None:
        """See that the server is still there."""
        if self._connection is not None:
            self._connection.tick(monotonic())

    def close(self) -> None:
        """End the connection. What was flushed is on its way."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def _forget(self, connection: _Connection) -> None:
        if connection is self._connection:
            self._connection = None
            self._on_lost()

    def _options(self, url: ParseResult, info: Info) -> dict[str, Any]:
        options: dict[str, Any] = {"name": self._name}
        if self._credentials is not None:
            options |= {"jwt": self._credentials.jwt, "sig": self._credentials.sign(info.nonce).decode()}
        elif url.username is not None and url.password is None:
            options["auth_token"] = url.username
        elif url.username is not None:
            options |= {"user": url.username, "pass": url.password}
        return options


class _Connection(asyncio.Protocol):
    """One connection. `on_end` is called at its end, `complain` with what the server complains of."""

    def __init__(self, ways: list[Way], on_end: Callable[[_Connection], None], complain: Callable[[str], None]) -> None:
        self._ways = ways
        self._on_end = on_end
        self._complain = complain
        self._reader = nats_wire.Reader(len(ways))
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._info: asyncio.Future[Info] = self._loop.create_future()
        self._pong: asyncio.Future[None] = self._loop.create_future()
        self._outgoing: list[bytes] = []
        self._max_payload = 0
        self._heard_at = monotonic()
        # Since when an answer to our ping is awaited.
        self._pinged_at: float | None = None

    async def connect(self, url: ParseResult, server_name: str, options: Callable[[Info], dict[str, Any]]) -> None:
        """See `Wire.connect`."""
        await self._loop.create_connection(lambda: self, str(url.hostname), url.port or DEFAULT_PORT)
        info = await self._info
        if info.tls_required or url.scheme == "tls":
            context = ssl.create_default_context()
            upgraded = await self._loop.start_tls(self._up, self, context, server_hostname=server_name)
            if upgraded is None:
                raise ConnectionResetError("the connection ended while TLS began")
            self._transport = upgraded
        self._max_payload = info.max_payload
        lines = [nats_wire.connect(options(info))]
        lines += [nats_wire.subscribe(way.prefix + b"*", number) for number, way in enumerate(self._ways)]
        self._up.write(b"".join([*lines, nats_wire.PING]))
        await self._pong

    @property
    def _up(self) -> asyncio.Transport:
        if self._transport is None:
            raise ConnectionResetError("the connection has ended")
        return self._transport

    def send(self, subject: bytes, reply: bytes, headers: bytes, body: bytes) -> bool:
        """See `Wire.publish`."""
        transport = self._transport
        if transport is None or transport.get_write_buffer_size() > PENDING_BYTES:
            return False
        if len(headers) + len(body) > self._max_payload:
            return False
        self._outgoing.append(nats_wire.publish(subject, reply, headers, body))
        return True

    def flush(self) -> None:
        """Send what waits."""
        if self._outgoing and self._transport is not None:
            outgoing, self._outgoing = self._outgoing, []
            self._transport.write(b"".join(outgoing))

    def tick(self, now: float) -> None:
        """Ask a server that is silent for an answer, and end if none comes."""
        if self._pinged_at is None and now > self._heard_at + PING_SECONDS:
            self._pinged_at = now
            self._up.write(nats_wire.PING)
        elif self._pinged_at is not None and now > self._pinged_at + SILENT_SECONDS:
            self.abort()

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is up."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand on what the server says."""
        self._heard_at, self._pinged_at = monotonic(), None
        try:
            messages, said = self._reader.receive(data)
            for verb, text in said:
                self._on_said(verb, text)
        except NatsWireError as error:
            log.warning("the connection to the NATS server is given up", cause=str(error))
            self._fail(error)
            return
        for way, answers in zip(self._ways, messages, strict=True):
            if answers:
                way.on_answers(answers)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection has ended."""
        self._transport = None
        self._fail(error or ConnectionResetError("the server has ended the connection"))
        self._on_end(self)

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _on_said(self, verb: Verb, text: bytes) -> None:
        if verb is Verb.PING:
            self._up.write(nats_wire.PONG)
        elif verb is Verb.PONG and not self._pong.done():
            self._pong.set_result(None)
        elif verb is Verb.INFO and not self._info.done():
            self._info.set_result(nats_wire.read_info(text))
        elif verb is Verb.ERROR:
            problem = text.decode("utf-8", "replace").strip("'")
            if self._pong.done():
                self._complain(problem)
            else:
                self._fail(ConnectionRefusedError(problem))

    def _fail(self, error: Exception) -> None:
        """Whoever waits for this connection learns that it is of no use."""
        for waited in (self._info, self._pong):
            if not waited.done():
                waited.set_exception(error)
                waited.exception()  # seen: perhaps nobody waits
        self.abort()
