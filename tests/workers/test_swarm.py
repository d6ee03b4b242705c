"""A process of the swarm on the stream of its command, in a loop of this test's own."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, cast

import pytest

from protocol import swarm
from protocol.control import StreamDecoder
from protocol.forkid import Chain
from protocol.swarm import Address, Begin, Churn, Failed, Go, Leave, Ready, Report, Returned, Scenario, Word
from tests.workers.swarmed import FakeTransport
from workers.swarm import Absent, Swarm, main, run
from workers.swarm_connection import SwarmConnection

CHAIN = Chain("dev", 1, "01" * 32)


async def words(orders: socket.socket, decoder: StreamDecoder[Word]) -> list[Word]:
    """What the process says next; nothing at its end."""
    return decoder.feed(await asyncio.get_running_loop().sock_recv(orders, 65536))


async def listened(*, is_told_to_leave: bool) -> list[Word]:
    """All that a process of three listening peers says, until it is told to leave or its command is gone."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    running = loop.create_task(run(theirs))
    decoder = swarm.word_decoder()
    begin = Begin(Scenario("test", peers=3, processes=1), 1, 0, CHAIN, b"", Address("127.0.0.1", 0))
    await loop.sock_sendall(ours, swarm.encode(begin))
    heard = await words(ours, decoder)
    await loop.sock_sendall(ours, swarm.encode(Go(monotonic())))
    if is_told_to_leave:
        await loop.sock_sendall(ours, swarm.encode(Leave()))
        while more := await words(ours, decoder):
            heard += more
    ours.close()
    await running
    return heard


def test_it_says_where_its_peers_listen_and_reports_until_its_last_word() -> None:
    ready, *reports = asyncio.run(listened(is_told_to_leave=True))
    assert isinstance(ready, Ready)
    assert sorted(ready.enodes) == [0, 1, 2]
    assert all(enode.startswith("enode://") for enode in ready.enodes.values())
    assert [report.is_last for report in reports if isinstance(report, Report)] == [False, True]


def test_it_ends_with_its_command() -> None:
    assert len(asyncio.run(listened(is_told_to_leave=False))) == 1


class FakeServer:
    """Listens on the port it was made for, or on 40000."""

    def __init__(self, port: int) -> None:
        self.sockets = [self]
        self._port = port or 40_000
        self.is_closed = False

    def getsockname(self) -> tuple[str, int]:
        return "::1", self._port

    def close(self) -> None:
        self.is_closed = True


class Listening:
    """A process of one peer that listens, and the loop that it believes to be in; `callbacks` are for later."""

    def __init__(self, churn: Churn, host: str = "127.0.0.1", *, is_taken: bool = False) -> None:
        self.words: list[Word] = []
        self.callbacks: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []
        self.accept: Callable[[], Any]
        self._is_taken = is_taken
        decoder = swarm.word_decoder()
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
        """Somebody connects."""
        connection = self.accept()
        assert isinstance(connection, SwarmConnection)
        connection.connection_made(cast("Any", FakeTransport()))
        return connection

    def is_away(self) -> bool:
        """Whether who connects is dropped without a byte."""
        connection = self.accept()
        if not isinstance(connection, Absent):
            return False
        transport = FakeTransport()
        connection.connection_made(cast("Any", transport))
        assert transport.is_aborted
        assert not transport.written
        return True

    def comes_back(self, away_s: float) -> None:
        """The time that it is away passes."""
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


def test_nobody_else_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["workers.swarm"])
    with pytest.raises(SystemExit, match="nobody else needs to"):
        main()
