"""Each dial ends in exactly one report: of its session's end, or of why there was none."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, cast

import pytest

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import (
    KERNEL_BYTES,
    Dial,
    DisconnectSession,
    SessionClosed,
    SessionConnected,
    SessionEstablished,
    SessionId,
    Verdict,
)
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy, Stage
from rlpx.protocol.session.events import Established
from rlpx.protocol.session.session import Session
from tests.pair import DIALER, key
from tests.workers.hosted import (
    DRAIN,
    ONE,
    PATIENCE_SECONDS,
    QUITTING,
    FakeEngine,
    Peer,
    full_port,
    hosted,
    listening,
)


async def dialled(engine: FakeEngine, server: socket.socket) -> Peer:
    """The peer that a dial of the worker reaches."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE_SECONDS):
        sock, _ = await loop.sock_accept(server)
    peer = Peer(Session(DIALER.setup(), now=loop.time()), await asyncio.open_connection(sock=sock))
    engine.peers.append(peer)
    return peer


async def test_a_dial_connects_authenticates_and_establishes(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        with listening() as server:
            host, port = server.getsockname()
            engine.command(Dial(ONE, DIALER.key.id, ((host, port),)))
            peer = await dialled(engine, server)
            established = asyncio.ensure_future(peer.until(Established))
            connected = await engine.until(SessionConnected)
            assert (connected.session, connected.remote) == (ONE, f"{host}:{port}")
            assert (await engine.until(control.SessionAuthenticated)).peer == DIALER.key.id
            engine.command(Verdict(ONE))
            assert (await engine.until(SessionEstablished)).session == ONE
            await established
            engine.command(DisconnectSession(ONE, DisconnectReason.USELESS_PEER, "by command"))
            closed = await engine.until(SessionClosed)
            assert (closed.ended_by, closed.reason, closed.cause) == (
                EndedBy.US,
                DisconnectReason.USELESS_PEER,
                "by command",
            )
            assert (await peer.until_closed()).reason is DisconnectReason.USELESS_PEER


async def test_a_dial_sends_without_delay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    class Remembered(socket.socket):
        def __init__(self, *arguments: int, **more: int) -> None:
            super().__init__(*arguments, **more)
            made.append(self)

    monkeypatch.setattr("rlpx.workers.tcp.socket.socket", Remembered)
    async with hosted(tmp_path) as engine:
        with listening() as server:
            made.clear()
            engine.command(Dial(ONE, DIALER.key.id, (server.getsockname(),)))
            await engine.until(SessionConnected)
            for option, value in ((socket.TCP_NODELAY, 1), (socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)):
                assert [sock.getsockopt(socket.IPPROTO_TCP, option) for sock in made] == [value]


class SlowConnects(asyncio.SelectorEventLoop):
    """A loop on which a TCP connect takes nearly all of a dial's time, by the clock that sessions are given."""

    waited_seconds = 0.0

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        await super().sock_connect(sock, address)
        self.waited_seconds = 19.8

    def now(self) -> float:
        """The clock of the sessions."""
        return monotonic() + self.waited_seconds


@pytest.mark.loop(factory=SlowConnects)
@pytest.mark.parametrize("answers", [True, False])
async def test_what_the_connect_took_is_off_the_time_of_a_dial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, answers: bool
) -> None:
    loop = cast("SlowConnects", asyncio.get_running_loop())
    for module in ("worker", "connection", "connections", "dials"):
        monkeypatch.setattr(f"rlpx.workers.{module}.monotonic", loop.now)
    # Of 20 seconds 0.2 are left; any other rule would leave more time than this test waits.
    limits = {"handshake_s": 60, "pending_inbound_s": 60, "pending_outbound_s": 20}
    async with hosted(tmp_path, **limits) as engine:
        with listening() as server:
            engine.command(Dial(ONE, DIALER.key.id, (server.getsockname(),)))
            if answers:
                # The handshake goes on until only the verdict is missing.
                await (await dialled(engine, server)).until_closed()
            closed = await engine.until(SessionClosed)
            assert closed.cause == "no verdict came in time" or closed.cause.startswith("the peer took too long at ")


async def test_a_dial_that_nobody_answers_ends_at_connect(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        with listening() as server:
            host, port = server.getsockname()
        engine.command(Dial(ONE, DIALER.key.id, ((host, port),)))
        closed = await engine.until(SessionClosed)
        assert (closed.ended_by, closed.stage, closed.reason) == (EndedBy.NETWORK, Stage.CONNECT, None)
        assert closed.cause == f"no TCP connection: {os.strerror(errno.ECONNREFUSED)}"


async def test_a_dial_of_a_key_that_is_none_ends_at_connect(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        with listening() as server:
            engine.command(Dial(ONE, b"\xff" * 64, (server.getsockname(),)))
            closed = await engine.until(SessionClosed)
            assert closed.stage is Stage.CONNECT
            assert "no valid key" in closed.cause


async def test_a_dial_that_reaches_another_peer_ends_once(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        with listening() as server:
            engine.command(Dial(ONE, key(77).id, (server.getsockname(),)))
            peer = await dialled(engine, server)
            await peer.until_closed()
            await engine.until(SessionConnected)
            closed = await engine.until(SessionClosed)
            assert (closed.session, closed.stage) == (ONE, Stage.ACK)
        engine.command(DRAIN)
        assert await engine.rest() == []


@contextmanager
def hanging_up() -> Iterator[tuple[str, int]]:
    """A port whose listener, a thread of its own, answers with junk and closes the connection at once."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:

        def run() -> None:
            with suppress(OSError):
                while True:
                    sock, _ = server.accept()
                    with sock:
                        sock.sendall(bytes(2))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield server.getsockname()
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


async def test_a_dial_that_ends_at_once_is_told_to_have_connected_before_its_end(tmp_path: Path) -> None:
    sessions = [SessionId(number) for number in range(1, 41)]

    def is_of_a_life(report: control.Report) -> bool:
        return isinstance(report, SessionConnected | SessionClosed)

    async with hosted(tmp_path) as engine:
        with hanging_up() as address:
            for session in sessions:
                engine.command(Dial(session, DIALER.key.id, (address,)))
            told = [await engine.until_that(is_of_a_life) for _ in range(2 * len(sessions))]
        for session in sessions:
            kinds = [type(report) for report in told if getattr(report, "session", None) == session]
            assert kinds == [SessionConnected, SessionClosed]


async def test_a_dial_without_an_answer_ends_by_its_deadline(tmp_path: Path) -> None:
    async with hosted(tmp_path, connect_s=0.05) as engine:
        with full_port() as address:
            engine.command(Dial(ONE, DIALER.key.id, (address,)))
            closed = await engine.until(SessionClosed)
        assert (closed.ended_by, closed.cause) == (EndedBy.NETWORK, "no TCP connection within 0.05 s")


async def test_a_dial_can_be_called_off(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        with full_port() as address:
            engine.command(Dial(ONE, DIALER.key.id, (address,)))
            await asyncio.sleep(0)
            engine.command(DisconnectSession(ONE, QUITTING, "by command"))
            closed = await engine.until(SessionClosed)
        assert (closed.session, closed.ended_by, closed.stage) == (ONE, EndedBy.US, Stage.CONNECT)
        engine.command(DRAIN)
        assert await engine.rest() == []
