"""The peers of one process: who is there, who is away, and what a taken port means."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from time import monotonic
from typing import Any, cast

from rlpx.protocol.bus import swarm
from rlpx.protocol.bus.swarm import Address, Begin, Churn, Failed, Ready, Returned, Scenario, SwarmReport
from rlpx.protocol.eth.forkid import Chain
from rlpx.workers.swarm.connection import SwarmConnection
from rlpx.workers.swarm.swarm import Absent, Swarm
from tests.workers.swarmed import FakeTransport

CHAIN = Chain("dev", 1, "01" * 32)


class FakeServer:
    """Listens on the given port, or on 40000."""

    def __init__(self, port: int) -> None:
        self.sockets = [self]
        self._port = port or 40_000
        self.is_closed = False

    def getsockname(self) -> tuple[str, int]:
        return "::1", self._port

    def close(self) -> None:
        self.is_closed = True


class Listening:
    """A process of one listening peer, and its fake loop; `callbacks` are the calls for later."""

    def __init__(self, churn: Churn, host: str = "127.0.0.1", *, is_taken: bool = False) -> None:
        self.words: list[SwarmReport] = []
        self.callbacks: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []
        self.accept: Callable[[], Any]
        self._is_taken = is_taken
        decoder = swarm.report_decoder()
        begin = Begin(Scenario("test", peers=1, processes=1, churn=churn), 1, 0, CHAIN, b"", Address(host, 30303))
        loop = cast("asyncio.AbstractEventLoop", self)
        self.swarm = Swarm(begin, loop, lambda data: self.words.extend(decoder.feed(data)))
        asyncio.run(self.swarm.prepare())

    async def create_server(self, accept: Callable[[], Any], _host: str, port: int) -> FakeServer:
        if self._is_taken:
            raise OSError(errno.EADDRINUSE, "some words of the loop's")
        self.accept = accept
        return FakeServer(port)

    def call_later(self, seconds: float, callback: Callable[..., None], *arguments: Any) -> None:
        self.callbacks.append((seconds, callback, arguments))

    def visits(self) -> SwarmConnection:
        """The target connects."""
        connection = self.accept()
        assert isinstance(connection, SwarmConnection)
        connection.connection_made(cast("Any", FakeTransport()))
        return connection

    def is_away(self) -> bool:
        """Whether a connection is dropped without a byte."""
        connection = self.accept()
        if not isinstance(connection, Absent):
            return False
        transport = FakeTransport()
        connection.connection_made(cast("Any", transport))
        assert transport.is_aborted
        assert not transport.written
        return True

    def comes_back(self, away_s: float) -> None:
        """Let the time pass for which the peer is away."""
        [(callback, arguments)] = [item[1:] for item in self.callbacks if item[0] == away_s]
        callback(*arguments)


AWAY = Churn(share=1.0, away_s=7.0)


def test_a_listening_peer_that_has_left_is_away_and_then_back() -> None:
    listening = Listening(AWAY)
    listening.swarm.go(monotonic())
    listening.visits().connection_lost(None)
    assert listening.is_away()
    assert not [word for word in listening.words if isinstance(word, Returned)]
    listening.comes_back(7.0)
    assert listening.words[-1] == Returned(0)
    assert not listening.is_away()
    listening.visits()


def test_while_somebody_else_is_connected_it_is_there() -> None:
    listening = Listening(AWAY)
    listening.swarm.go(monotonic())
    first, second = listening.visits(), listening.visits()
    second.connection_lost(None)
    assert not listening.is_away()
    first.connection_lost(None)
    assert listening.is_away()


def test_who_does_not_churn_is_never_away() -> None:
    listening = Listening(Churn())
    listening.swarm.go(monotonic())
    listening.visits().connection_lost(None)
    assert not listening.is_away()


def test_when_all_leave_nobody_comes_back() -> None:
    listening = Listening(AWAY)
    listening.swarm.go(monotonic())
    listening.visits().connection_lost(None)
    listening.swarm.leave()
    listening.comes_back(7.0)
    assert not [word for word in listening.words if isinstance(word, Returned)]


def test_a_port_that_is_taken_is_told_with_its_address() -> None:
    listening = Listening(AWAY, "::1", is_taken=True)
    assert listening.words == [Failed("--listen: [::1]:30303: Address already in use")]
    assert listening.swarm.stopped.is_set()


def test_an_enode_has_brackets_where_its_host_needs_them() -> None:
    [ready] = Listening(AWAY, "::1").words
    assert isinstance(ready, Ready)
    assert ready.enodes[0].endswith("@[::1]:30303")
