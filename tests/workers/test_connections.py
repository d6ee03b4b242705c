"""The connections of a worker: known by their ids until their sessions end, and kept for their goodbyes within a limit."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import cast

import pytest

from rlpx.protocol.bus.batches import Interest
from rlpx.protocol.bus.control import Dial
from rlpx.protocol.bus.records import Handoff
from rlpx.protocol.errors import DisconnectReason, PeerError
from rlpx.protocol.lifecycle import Direction
from rlpx.workers.connection import Connection
from rlpx.workers.connections import Connections
from rlpx.workers.counters import Counters
from rlpx.workers.setups import Setups
from rlpx.workers.wheel import Wheel
from tests.pair import DIALER
from tests.workers.fake_host import FakeHost
from tests.workers.hosted import ONE, TWO, changed, configuration

MAX_GOODBYES = 4


class Goodbye:
    """A connection that says goodbye: its abort shows in the next loop iteration only."""

    bucket: int | None = None

    def __init__(self) -> None:
        self.is_aborted = False

    def abort(self) -> None:
        """Close the socket."""
        self.is_aborted = True


@pytest.fixture
def wheel() -> Wheel:
    """The deadlines of the connections."""
    return Wheel(now=monotonic())


@pytest.fixture
def connections(tmp_path: Path, wheel: Wheel) -> Connections:
    """No connection yet."""
    configure, counters = configuration(tmp_path, changed(goodbyes=MAX_GOODBYES)), Counters()
    return Connections(FakeHost(), wheel, Setups(configure, Interest(), counters), configure, counters)


def test_an_accepted_session_is_seen_by_users_with_its_address(connections: Connections) -> None:
    connection = connections.accept(Handoff(ONE, remote="192.0.2.1:5", opened_us=7), None)
    assert connections.by_id == {ONE: connection}
    view = connection.view
    assert view is not None
    assert (view.session, view.direction, view.remote, view.opened_us) == (ONE, Direction.INBOUND, "192.0.2.1:5", 7)


def test_a_session_that_the_engine_refused_is_seen_by_nobody(connections: Connections) -> None:
    reason = DisconnectReason.TOO_MANY_PEERS
    assert connections.accept(Handoff(ONE, reason), reason).view is None


def test_a_session_that_only_the_worker_has_no_room_for_is_seen(connections: Connections) -> None:
    assert connections.accept(Handoff(ONE), DisconnectReason.TOO_MANY_PEERS).view is not None


def test_a_dial_is_a_session_of_the_peer_that_is_dialled(connections: Connections) -> None:
    command = Dial(TWO, DIALER.key.id, (("192.0.2.1", 30303),), "enode://…", 7)
    connection = connections.dial(command, monotonic())
    view = connection.view
    assert view is not None
    assert (view.direction, view.peer, view.enode) == (Direction.OUTBOUND, DIALER.key.id, "enode://…")
    assert connection.session.peer == DIALER.key.id


def test_a_dial_of_a_key_that_is_none_leaves_nothing(connections: Connections) -> None:
    with pytest.raises(PeerError):
        connections.dial(Dial(TWO, bytes(64), ()), monotonic())
    assert connections.is_empty


def test_a_connection_that_never_had_a_socket_leaves_no_deadline(connections: Connections, wheel: Wheel) -> None:
    connection = connections.accept(Handoff(ONE), None)
    assert connection.bucket is not None
    connections.discard(connection)
    assert connections.is_empty
    assert wheel.due(monotonic() + 1000) == []


def test_a_session_that_ended_is_known_no_more_but_its_goodbye_is(connections: Connections) -> None:
    connection = connections.accept(Handoff(ONE), None)
    connections.end(connection)
    connections.keep_goodbye(connection)
    assert connections.by_id == {}
    assert not connections.is_empty
    connections.forget(connection)
    assert connections.is_empty


def test_of_a_burst_of_goodbyes_the_oldest_are_cut_short(connections: Connections) -> None:
    goodbyes = [Goodbye() for _ in range(10)]
    for goodbye in goodbyes:
        connections.keep_goodbye(cast("Connection", goodbye))
    for goodbye in goodbyes:
        connections.forget(cast("Connection", goodbye))
    assert [goodbye.is_aborted for goodbye in goodbyes] == [True] * 6 + [False] * MAX_GOODBYES
    assert connections.is_empty
