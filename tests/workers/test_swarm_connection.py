"""Between a socket and a simulated peer: what it says is written, what is due happens, and each kind of end is its own."""

from __future__ import annotations

import math
import socket
import struct
from typing import Any, cast

import pytest

from protocol.errors import DisconnectReason
from protocol.swarm import Client, Fault, Messages, Scenario
from tests.pair import key
from tests.workers.swarmed import FakeTransport, Meeting
from workers import swarm_connection
from workers.swarm_connection import GOODBYE_SECONDS, SLOW_READ_SECONDS, SwarmConnection
from workers.swarm_plan import PeerPlan


class Scene:
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

    # What the connection tells its process.

    def on_deadline_moved(self, connection: SwarmConnection) -> None:
        assert connection is self.connection
        self.told.append("deadline")

    def on_connected(self, connection: SwarmConnection) -> None:
        assert connection is self.connection
        self.told.append("connected")

    def on_gone(self, connection: SwarmConnection) -> None:
        assert connection is self.connection
        self.told.append("gone")

    # What a test does.

    def connects(self) -> None:
        self.connection.connection_made(cast("Any", self.transport))

    def exchanges(self) -> None:
        """Carry bytes both ways until both are quiet, or the connection reads no more."""
        while True:
            said, self.transport.written = self.transport.written, b""
            self.meeting.take(self.target.receive(said, now=self.clock.now))
            heard = self.target.outgoing() if self.transport.is_reading else b""
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
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_with_tcp_up_the_visit_begins(scene: Scene) -> None:
    scene.connects()
    assert scene.told[0] == "connected"
    assert scene.transport.written
    assert scene.connection.deadline == scene.peer.deadline


def test_bytes_go_both_ways_until_the_session_is_there(scene: Scene) -> None:
    scene.establishes()
    assert scene.peer.is_established
    assert not scene.transport.has_eof
    assert scene.told[-1] == "deadline"
    assert scene.connection.deadline == scene.peer.deadline < math.inf


def test_what_is_due_is_written_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, scenario=Scenario("test", messages=Messages(announcements_per_s=2.0)))
    scene.establishes()
    for _ in range(20):
        scene.waits(scene.connection.deadline - scene.clock.now)
        scene.exchanges()
    assert len(scene.meeting.received("NewPooledTransactionHashes")) == 20


def test_before_anything_is_due_nothing_is_written(scene: Scene) -> None:
    scene.establishes()
    scene.waits(0.01)
    assert not scene.transport.written


def test_a_peer_that_leaves_lets_the_target_read_its_goodbye(scene: Scene) -> None:
    scene.establishes()
    scene.peer.leave()
    scene.connection.drive()
    assert scene.transport.has_eof
    assert not scene.transport.is_aborted
    assert scene.connection.deadline == scene.clock.now + GOODBYE_SECONDS
    scene.exchanges()
    assert (scene.meeting.closed.ended_by, scene.meeting.closed.reason) == ("peer", DisconnectReason.USELESS_PEER)
    # The target closes its side in turn.
    assert not scene.connection.eof_received()
    scene.connection.connection_lost(None)
    assert scene.told[-1] == "gone"
    assert scene.peer.end == "left"


def test_a_target_that_does_not_close_is_closed_when_the_goodbye_has_had_its_time(scene: Scene) -> None:
    scene.establishes()
    scene.peer.leave()
    scene.connection.drive()
    scene.connection.drive()
    scene.waits(GOODBYE_SECONDS)
    assert scene.transport.is_aborted
    scene.connection.connection_lost(None)
    assert scene.told.count("gone") == 1
    assert scene.connection.deadline == math.inf


def test_told_goodbye_it_answers_as_its_client_does_and_ends_its_side(scene: Scene) -> None:
    scene.establishes()
    scene.meeting.take(scene.target.disconnect(DisconnectReason.TOO_MANY_PEERS, "test"))
    scene.connection.data_received(scene.target.outgoing())
    assert scene.transport.written
    assert scene.transport.has_eof
    assert scene.peer.end == "told too_many_peers"


@pytest.mark.parametrize("error", [None, OSError("gone"), ConnectionResetError(), BrokenPipeError()])
def test_a_connection_that_is_lost_is_an_end_by_its_error(scene: Scene, error: Exception | None) -> None:
    scene.establishes()
    scene.connection.connection_lost(error)
    assert scene.peer.end == ("reset" if isinstance(error, ConnectionResetError | BrokenPipeError) else "closed")
    assert scene.told[-1] == "gone"
    assert scene.connection.deadline == math.inf
    # What comes too late does nothing.
    scene.connection.drive()
    scene.connection.abort()
    assert not scene.transport.is_aborted


def test_the_end_of_the_stream_without_a_word_is_a_close(scene: Scene) -> None:
    scene.establishes()
    assert not scene.connection.eof_received()
    assert scene.peer.end == "closed"
    scene.connection.connection_lost(ConnectionResetError())
    assert scene.peer.end == "closed"


def test_a_peer_that_resets_leaves_no_trace_of_a_polite_end(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, Fault.RESET)
    scene.connects()
    scene.exchanges()
    assert scene.transport.is_aborted
    assert not scene.transport.has_eof
    linger = scene.transport.socket.options[socket.SOL_SOCKET, socket.SO_LINGER]
    assert struct.unpack("ii", linger) == (1, 0)


def test_a_peer_that_half_closes_ends_its_side_once_and_reads_on(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, Fault.HALF_CLOSE)
    scene.connects()
    # Until it is established: by then it has ended its side.
    while not scene.meeting.has_established:
        said, scene.transport.written = scene.transport.written, b""
        scene.meeting.take(scene.target.receive(said, now=scene.clock.now))
        scene.connection.data_received(scene.target.outgoing())
    assert scene.transport.has_eof
    assert scene.peer.end is None
    assert not scene.transport.is_aborted
    assert scene.connection.deadline == scene.peer.deadline
    scene.connection.drive()
    scene.connection.connection_lost(None)
    assert scene.peer.end == "closed"


def test_a_slow_reader_reads_once_and_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, Fault.SLOW_READER)
    scene.connects()
    scene.exchanges()
    assert not scene.is_reading()
    rested_at = scene.clock.now + SLOW_READ_SECONDS
    requests = 0
    while scene.connection.deadline < rested_at:
        scene.waits(scene.connection.deadline - scene.clock.now)
        assert not scene.is_reading()
        requests += 1
    # It goes on asking meanwhile.
    assert requests > 5
    assert scene.connection.deadline == rested_at
    scene.waits(rested_at - scene.clock.now)
    assert scene.is_reading()
    assert scene.connection.deadline > rested_at
    scene.exchanges()
    assert not scene.is_reading()
    assert scene.meeting.tally.counts["requests_answered"] > 5


def test_an_honest_peer_is_never_told_to_rest(scene: Scene) -> None:
    scene.establishes()
    scene.exchanges()
    assert scene.is_reading()
