"""A connection between a socket and a simulated peer: bytes, deadlines, and the different ends of faulty peers."""

from __future__ import annotations

import math
import socket
import struct
from typing import Any, cast

import pytest

from rlpx.protocol.bus.swarm import Client, Fault, Messages, Scenario
from rlpx.protocol.errors import DisconnectReason
from rlpx.workers.swarm import connection as swarm_connection
from rlpx.workers.swarm.connection import GOODBYE_SECONDS, SLOW_READ_SECONDS, SwarmConnection
from rlpx.workers.swarm.plan import PeerPlan
from tests.pair import key
from tests.workers.swarmed import FakeTransport, Meeting


class Harness:
    """A connection on a fake transport, and a session on its other end; the clock stands until a test lets time pass."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, fault: Fault | None = None, scenario: Scenario | None = None
    ) -> None:
        plan = PeerPlan(0, key(5), Client.GETH, fault, False, 0.0, "127.0.0.1")
        self.meeting = Meeting(plan, scenario or Scenario("test"))
        self.clock = self.meeting.clock
        self.peer = self.meeting.peer
        self.target = self.meeting.target
        monkeypatch.setattr(swarm_connection, "monotonic", lambda: self.clock.now)
        self.told: list[str] = []
        self.transport = FakeTransport()
        self.connection = SwarmConnection(self.peer, self)

    # The host of the connection.

    def on_deadline_moved(self, connection: SwarmConnection) -> None:
        assert connection is self.connection
        self.told.append("deadline")

    def on_connected(self, connection: SwarmConnection) -> None:
        assert connection is self.connection
        self.told.append("connected")

    def on_gone(self, connection: SwarmConnection) -> None:
        assert connection is self.connection
        self.told.append("gone")

    # Steps of a test.

    def connects(self) -> None:
        self.connection.connection_made(cast("Any", self.transport))

    def exchanges(self) -> None:
        """Carry bytes both ways until both are quiet, or the connection reads no more."""
        while True:
            said, self.transport.written = self.transport.written, b""
            self.meeting.take(self.target.receive(said, now=self.clock.now))
            heard = self.target.data_to_send() if self.transport.is_reading else b""
            if heard:
                self.connection.data_received(heard)
            if not said and not heard:
                return

    def establishes(self) -> None:
        self.connects()
        self.exchanges()
        assert self.meeting.has_established

    def is_reading(self) -> bool:
        return self.transport.is_reading

    def waits(self, seconds: float) -> None:
        self.clock.passes(seconds)
        self.connection.on_deadline(self.clock.now)


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    return Harness(monkeypatch)


def test_with_tcp_up_the_visit_begins(harness: Harness) -> None:
    harness.connects()
    assert harness.told[0] == "connected"
    assert harness.transport.written
    assert harness.connection.deadline == harness.peer.deadline


def test_bytes_go_both_ways_until_the_session_is_there(harness: Harness) -> None:
    harness.establishes()
    assert harness.peer.is_established
    assert not harness.transport.has_eof
    assert harness.told[-1] == "deadline"
    assert harness.connection.deadline == harness.peer.deadline < math.inf


def test_what_is_due_is_written_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, scenario=Scenario("test", messages=Messages(announcements_per_s=2.0)))
    harness.establishes()
    for _ in range(20):
        harness.waits(harness.connection.deadline - harness.clock.now)
        harness.exchanges()
    assert len(harness.meeting.received("NewPooledTransactionHashes")) == 20


def test_before_anything_is_due_nothing_is_written(harness: Harness) -> None:
    harness.establishes()
    harness.waits(0.01)
    assert not harness.transport.written


def test_a_peer_that_leaves_lets_the_target_read_its_goodbye(harness: Harness) -> None:
    harness.establishes()
    harness.peer.leave()
    harness.connection.drive()
    assert harness.transport.has_eof
    assert not harness.transport.is_aborted
    assert harness.connection.deadline == harness.clock.now + GOODBYE_SECONDS
    harness.exchanges()
    assert (harness.meeting.closed.ended_by, harness.meeting.closed.reason) == ("peer", DisconnectReason.USELESS_PEER)
    # The target closes its side in turn.
    assert not harness.connection.eof_received()
    harness.connection.connection_lost(None)
    assert harness.told[-1] == "gone"
    assert harness.peer.end == "left"


def test_a_target_that_does_not_close_is_closed_when_the_goodbye_has_had_its_time(harness: Harness) -> None:
    harness.establishes()
    harness.peer.leave()
    harness.connection.drive()
    harness.connection.drive()
    harness.waits(GOODBYE_SECONDS)
    assert harness.transport.is_aborted
    harness.connection.connection_lost(None)
    assert harness.told.count("gone") == 1
    assert harness.connection.deadline == math.inf


def test_told_goodbye_it_answers_as_its_client_does_and_ends_its_side(harness: Harness) -> None:
    harness.establishes()
    harness.meeting.take(harness.target.disconnect(DisconnectReason.TOO_MANY_PEERS, "test"))
    harness.connection.data_received(harness.target.data_to_send())
    assert harness.transport.written
    assert harness.transport.has_eof
    assert harness.peer.end == "told too_many_peers"


@pytest.mark.parametrize("error", [None, OSError("gone"), ConnectionResetError(), BrokenPipeError()])
def test_a_connection_that_is_lost_is_an_end_by_its_error(harness: Harness, error: Exception | None) -> None:
    harness.establishes()
    harness.connection.connection_lost(error)
    assert harness.peer.end == ("reset" if isinstance(error, ConnectionResetError | BrokenPipeError) else "closed")
    assert harness.told[-1] == "gone"
    assert harness.connection.deadline == math.inf
    # Later calls do nothing.
    harness.connection.drive()
    harness.connection.abort()
    assert not harness.transport.is_aborted


def test_the_end_of_the_stream_without_a_word_is_a_close(harness: Harness) -> None:
    harness.establishes()
    assert not harness.connection.eof_received()
    assert harness.peer.end == "closed"
    harness.connection.connection_lost(ConnectionResetError())
    assert harness.peer.end == "closed"


def test_a_peer_that_resets_leaves_no_trace_of_a_polite_end(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, Fault.RESET)
    harness.connects()
    harness.exchanges()
    assert harness.transport.is_aborted
    assert not harness.transport.has_eof
    linger = harness.transport.socket.options[socket.SOL_SOCKET, socket.SO_LINGER]
    assert struct.unpack("ii", linger) == (1, 0)


def test_a_peer_that_half_closes_ends_its_side_once_and_reads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, Fault.HALF_CLOSE)
    harness.connects()
    # Once it is established, it has closed its side.
    while not harness.meeting.has_established:
        said, harness.transport.written = harness.transport.written, b""
        harness.meeting.take(harness.target.receive(said, now=harness.clock.now))
        harness.connection.data_received(harness.target.data_to_send())
    assert harness.transport.has_eof
    assert harness.peer.end is None
    assert not harness.transport.is_aborted
    assert harness.connection.deadline == harness.peer.deadline
    harness.connection.drive()
    harness.connection.connection_lost(None)
    assert harness.peer.end == "closed"


def test_a_slow_reader_reads_once_and_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, Fault.SLOW_READER)
    harness.connects()
    harness.exchanges()
    assert not harness.is_reading()
    rested_at = harness.clock.now + SLOW_READ_SECONDS
    requests = 0
    while harness.connection.deadline < rested_at:
        harness.waits(harness.connection.deadline - harness.clock.now)
        assert not harness.is_reading()
        requests += 1
    # It keeps sending requests meanwhile.
    assert requests > 5
    assert harness.connection.deadline == rested_at
    harness.waits(rested_at - harness.clock.now)
    assert harness.is_reading()
    assert harness.connection.deadline > rested_at
    harness.exchanges()
    assert not harness.is_reading()
    assert harness.meeting.tally.counts["requests_answered"] > 5


def test_an_honest_peer_is_never_told_to_rest(harness: Harness) -> None:
    harness.establishes()
    harness.exchanges()
    assert harness.is_reading()
