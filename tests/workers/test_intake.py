"""Accepted sockets: each is adopted or reported lost, whatever room the descriptor table has."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import Dial, GetStats, HandoffLost, SessionClosed, SessionId
from rlpx.protocol.bus.descriptors import RESERVE
from rlpx.protocol.bus.records import Handoff, Handoffs, encode_record
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy
from rlpx.workers.intake import OUT_OF_DESCRIPTORS, POLITE_DESCRIPTORS
from tests.pair import DIALER
from tests.workers.hosted import (
    DRAIN,
    ONE,
    TWO,
    hosted,
)


async def test_a_handoff_without_its_socket_is_lost_and_said_so(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        engine.handoffs.send(encode_record(Handoffs((Handoff(ONE),))))
        lost = await engine.until(HandoffLost)
        assert lost == HandoffLost(ONE, "the worker is out of file descriptors")
        await engine.established(TWO)


@contextmanager
def room_for(descriptors: int) -> Iterator[None]:
    """Leave room for this many more descriptors in the table."""
    # A new descriptor is always the lowest free number (open(2)).
    lowest = [os.dup(0) for _ in range(descriptors)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest[-1] + 1, hard))
    for descriptor in lowest:
        os.close(descriptor)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def limit_ahead(monkeypatch: pytest.MonkeyPatch, spare: int) -> Iterator[None]:
    """A worker that is made now believes that this many descriptors are left below its ceiling."""
    # The limit must be above the reserve, so the first numbers are taken.
    padding = [os.dup(0) for _ in range(RESERVE)]
    lowest = os.dup(0)
    os.close(lowest)
    monkeypatch.setattr("rlpx.workers.worker.resource.getrlimit", lambda _: (lowest + spare + RESERVE, 1 << 20))
    try:
        yield
    finally:
        monkeypatch.undo()
        for descriptor in padding:
            os.close(descriptor)


async def test_close_to_the_end_of_the_table_a_peer_is_told_too_many_peers_and_a_dial_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with limit_ahead(monkeypatch, 0):
        async with hosted(tmp_path) as engine:
            peer = await engine.accepted(ONE)
            ended = await peer.until_closed()
            assert (ended.ended_by, ended.reason) == (EndedBy.PEER, DisconnectReason.TOO_MANY_PEERS)
            closed = await engine.until(SessionClosed)
            assert (closed.session, closed.reason) == (ONE, DisconnectReason.TOO_MANY_PEERS)
            engine.command(Dial(TWO, DIALER.key.id, (("127.0.0.1", 9),)))
            closed = await engine.until(SessionClosed)
            assert (closed.session, closed.ended_by, closed.cause) == (TWO, EndedBy.US, OUT_OF_DESCRIPTORS)


async def test_where_there_is_not_even_room_for_goodbyes_handoffs_are_lost_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with limit_ahead(monkeypatch, -POLITE_DESCRIPTORS):
        async with hosted(tmp_path) as engine:
            ours, theirs = socket.socketpair()
            engine.hand_over_all([(Handoff(ONE), ours)])
            assert await engine.until(HandoffLost) == HandoffLost(ONE, OUT_OF_DESCRIPTORS)
            assert theirs.recv(1) == b""
            theirs.close()


async def test_of_handoffs_that_the_table_has_no_room_for_exactly_those_are_lost(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        pairs = [socket.socketpair() for _ in range(5)]
        engine.hand_over_all([(Handoff(SessionId(number)), pair[0]) for number, pair in enumerate(pairs)])
        with room_for(2):
            lost = [await engine.until(HandoffLost) for _ in range(3)]
        assert lost == [HandoffLost(SessionId(number), "the worker is out of file descriptors") for number in (2, 3, 4)]
        for _, peer in pairs:
            peer.close()
        ends = {(await engine.until(SessionClosed)).session for _ in range(2)}
        assert ends == {0, 1}
        engine.command(DRAIN)
        assert await engine.rest() == []


async def test_a_peer_that_is_gone_before_it_was_adopted_is_an_end_like_any_other(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        with socket.create_server(("127.0.0.1", 0)) as server:
            gone = socket.create_connection(server.getsockname())
            sock, _ = server.accept()
        # Closing the socket resets the connection.
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
        engine.hand_over(Handoff(ONE), sock)
        report = await engine.until_that(lambda report: isinstance(report, SessionClosed | HandoffLost))
        assert report.session == ONE
        engine.command(DRAIN)
        assert await engine.rest() == []


async def test_many_handoffs_at_once_are_all_adopted(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        for number in range(80):
            await engine.accepted(SessionId(number))
        everybody = tuple(map(SessionId, range(80)))
        engine.command(GetStats(engine.call(), everybody))
        stats = await engine.until(control.Stats)
        while len(stats.sessions) < 80:
            engine.command(GetStats(engine.call(), everybody))
            stats = await engine.until(control.Stats)
