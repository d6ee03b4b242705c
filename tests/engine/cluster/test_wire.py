from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlparse

import pytest
import structlog.testing

from rlpx.engine.client.nats_servers import PING_SECONDS
from rlpx.engine.cluster import wire as module
from rlpx.engine.cluster.wire import SILENT_SECONDS, Wire
from rlpx.protocol.bus.nats_wire import Message, NatsWireError
from tests.engine.fake_worker import until

INFO = b'INFO {"max_payload":100}\r\n'
LET_IN = INFO + b"PONG\r\n"


class FakeServer:
    """A NATS server that says what the test says, and keeps what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.greeting = LET_IN
        self.writer: asyncio.StreamWriter | None = None
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        writer.write(self.greeting)
        with suppress(OSError):
            while data := await reader.read(65536):
                self.heard += data
        writer.close()

    def say(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)


@asynccontextmanager
async def a_server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        if fake.writer is not None:
            fake.writer.close()
        server.close()


class Ours:
    """Our side, with one way for answers."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self.lost = 0
        self.answers: list[Message] = []
        self.wire = Wire("rlpx a", None, self._on_lost)
        self.way = self.wire.take_answers("_INBOX.a", self.answers.extend)

    def _on_lost(self) -> None:
        self.lost += 1

    async def connect(self) -> None:
        await self.wire.connect(urlparse(f"nats://127.0.0.1:{self._server.port}"), "localhost")


async def test_what_is_said_leaves_in_one_write_and_answers_of_one_read_come_together() -> None:
    async with a_server() as server:
        ours = Ours(server)
        assert not ours.wire.publish(b"a", b"b", b"", b"{}")
        await ours.connect()
        assert ours.wire.is_up
        await ours.connect()  # it is connected already
        server.heard = b""
        assert ours.wire.publish(b"a", ours.way.prefix + b"7", b"", b"{}")
        assert ours.wire.publish(b"b", ours.way.prefix + b"8", b"NATS/1.0\r\n\r\n", b"{}")
        assert not ours.wire.publish(b"b", b"c", b"", bytes(101))  # more than the server takes
        ours.wire.flush()
        ours.wire.flush()  # nothing waits any more
        await until(lambda: server.heard.endswith(b"{}\r\nHPUB b _INBOX.a.8 12 14\r\nNATS/1.0\r\n\r\n{}\r\n"))
        server.say(b"MSG _INBOX.a.7 0 1\r\nx\r\nPING\r\nMSG _INBOX.a.8 0 1\r\ny\r\n-ERR 'Slow Consumer'\r\n")
        await until(lambda: server.heard.endswith(b"PONG\r\n"))
        assert ours.answers == [(7, b"x"), (8, b"y")]
        ours.wire.close()
        assert not ours.wire.publish(b"a", b"b", b"", b"{}")
        ours.wire.flush()
        assert ours.lost == 0


@pytest.mark.parametrize(
    ("greeting", "error"),
    [
        (INFO + b"-ERR 'Authorization Violation'\r\n", ConnectionRefusedError),
        (b"INFO []\r\n", NatsWireError),
        (b"HTTP/1.1 400\r\n", NatsWireError),
    ],
)
async def test_a_server_that_does_not_let_us_in_is_an_error(greeting: bytes, error: type[Exception]) -> None:
    async with a_server() as server:
        server.greeting = greeting
        ours = Ours(server)
        with pytest.raises(error):
            await ours.connect()
        assert not ours.wire.is_up
        assert ours.lost == 0


async def test_a_server_that_says_nothing_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.05)
    async with a_server() as server:
        server.greeting = INFO
        with pytest.raises(TimeoutError):
            await Ours(server).connect()


@pytest.mark.parametrize("nonsense", [b"", b"nonsense\r\n"])
async def test_a_connection_that_ends_or_is_of_no_use_any_more_is_lost_once(nonsense: bytes) -> None:
    async with a_server() as server:
        ours = Ours(server)
        await ours.connect()
        server.say(nonsense)
        if not nonsense:
            assert server.writer is not None
            server.writer.close()
        await until(lambda: ours.lost)
        assert ours.lost == 1
        assert not ours.wire.publish(b"a", b"b", b"", b"{}")
        ours.wire.tick()
        await ours.connect()
        assert ours.wire.is_up
        ours.wire.close()


async def test_a_server_that_does_not_answer_a_ping_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    async with a_server() as server:
        ours = Ours(server)
        await ours.connect()
        await until(lambda: server.heard.endswith(b"PING\r\n"))
        server.heard = b""
        # We may have been stopped ourselves for a long time: it is asked first.
        clock[0] += 1000.0
        ours.wire.tick()
        await until(lambda: server.heard == b"PING\r\n")
        clock[0] += SILENT_SECONDS - 0.1
        ours.wire.tick()
        server.say(b"PONG\r\nMSG _INBOX.a.1 0 0\r\n\r\n")
        await until(lambda: ours.answers)
        clock[0] += PING_SECONDS + 0.1
        ours.wire.tick()
        clock[0] += SILENT_SECONDS + 0.1
        ours.wire.tick()
        await until(lambda: ours.lost)


async def test_what_is_no_answer_of_ours_is_left_alone() -> None:
    async with a_server() as server:
        ours = Ours(server)
        await ours.connect()
        for name in (b"garbage", b"-1", b"9" * 5000, b"7"):
            server.say(b"MSG _INBOX.a.%b 0 2\r\nok\r\n" % name)
        await until(lambda: ours.answers == [(7, b"ok")])
        assert ours.lost == 0


async def test_what_the_server_complains_of_without_end_is_said_once_a_minute() -> None:
    async with a_server() as server:
        ours = Ours(server)
        await ours.connect()
        with structlog.testing.capture_logs() as logged:
            for number in range(200):
                server.say(b"-ERR 'no right to publish'\r\n-ERR 'problem %d'\r\n" % (number % 3))
            server.say(b"MSG _INBOX.a.1 0 2\r\nok\r\n")
            await until(lambda: ours.answers == [(1, b"ok")])
        assert [line["cause"] for line in logged] == ["no right to publish", "problem 0", "problem 1", "problem 2"]
