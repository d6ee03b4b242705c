"""Between a socket and its session: bytes, deadlines, pauses, and a goodbye that ends by its deadline, come what may."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

import pytest

from protocol.capabilities import Shared
from protocol.control import SessionId
from protocol.errors import DisconnectReason
from protocol.events import Authenticated, Closed, EndedBy, Established, Event, MessageReceived, Stage
from protocol.messages import message_table
from protocol.p2p import Capability
from protocol.session import Session
from tests.pair import DIALER, DISCONNECT, EMPTY_LIST, ETH, LISTENER, PING, PONG, Pair, RawPeer, Recipe, seeded
from workers import connection
from workers.connection import MOST_PARKED, MOST_PARKED_BYTES, WRITE_AHEAD_BYTES, Connection

GOODBYE_SECONDS = 2.0
WRITE_SECONDS = 20.0
TRANSACTIONS = ETH + 2


class FakeTransport:
    """Keeps what is written; `unsent` is what the kernel has not taken, as a test says."""

    def __init__(self) -> None:
        self.written = b""
        self.unsent = 0
        self.high: int | None = None
        self.is_reading = True
        self.has_eof = False
        self.is_aborted = False
        self.is_closed = False
        self.eofs = 0
        self.extra: dict[str, Any] = {"sockname": ("127.0.0.1", 30303), "peername": ("1.2.3.4", 5)}

    def get_extra_info(self, name: str) -> Any:
        return self.extra[name]

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes) -> None:
        assert not self.has_eof, "nothing may be written behind the end"
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_eof = True
        self.eofs += 1

    def pause_reading(self) -> None:
        assert self.is_reading
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_reading
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class FakeHost:
    """A worker that keeps what it is told."""

    def __init__(self) -> None:
        self.goodbye_seconds = GOODBYE_SECONDS
        self.write_seconds = WRITE_SECONDS
        self.turn_due = math.inf
        self.turns: list[float] = []
        self.callbacks: list[Callable[[], None]] = []
        self.rooms = 0
        self.events: list[Event] = []
        self.deadlines_moved = 0
        self.goodbyes = 0
        self.gone = 0

    def turn(self, now: float) -> None:
        self.turns.append(now)
        self.turn_due = now + 0.1

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def on_room(self, _: Connection) -> None:
        self.rooms += 1

    def on_events(self, _: Connection, events: list[Event]) -> None:
        assert events, "an empty list is not worth a call"
        self.events += events

    def on_deadline_moved(self, _: Connection) -> None:
        self.deadlines_moved += 1

    def on_goodbye(self, _: Connection) -> None:
        self.goodbyes += 1

    def on_gone(self, _: Connection) -> None:
        self.gone += 1


class Scene:
    """A connection on a fake transport, with a session at some stage and the peer on its other end.

    The clock of the connection is the peer's: it stands until the test lets time pass.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, peer: RawPeer, *, is_connected: bool = True) -> None:
        self.peer = peer
        self.clock = peer.clock
        monkeypatch.setattr(connection, "monotonic", lambda: self.clock.now)
        self.host = FakeHost()
        self.transport = FakeTransport()
        self.connection = Connection(SessionId(7), peer.session, self.host)
        if is_connected:
            self.connects()

    @property
    def session(self) -> Session:
        """The session."""
        return self.peer.session

    @property
    def closed(self) -> Closed:
        """How it ended."""
        [event] = [event for event in self.host.events if isinstance(event, Closed)]
        return event

    def is_over(self) -> bool:
        """Whether the session has ended."""
        return self.session.is_closed

    def reads(self) -> bool:
        """Whether what the peer sends is read."""
        return self.transport.is_reading

    def connects(self) -> None:
        """The transport is there."""
        self.connection.connection_made(cast("asyncio.Transport", self.transport))

    def says(self, code: int, payload: bytes = EMPTY_LIST) -> None:
        """The peer sends a message."""
        self.connection.data_received(self.peer.sealed(code, payload))

    def ends(self) -> None:
        """The session ends by our decision."""
        events = self.session.disconnect(DisconnectReason.TOO_MANY_PEERS, "told to")
        self.connection.drive(events)

    def waits(self, seconds: float) -> None:
        """Time passes; the wheel calls where a deadline has come."""
        self.clock.passes(seconds)
        if self.clock.now >= self.connection.deadline:
            self.connection.on_deadline(self.clock.now)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """An active session."""
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    return Scene(monkeypatch, peer)


# -- the way in and out -----------------------------------------------------------------------------------------------------


def test_an_initiators_first_bytes_leave_with_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, RawPeer(is_dialer=False))
    assert len(scene.transport.written) > 100
    assert scene.host.events == []


def test_a_responder_says_nothing_first(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, RawPeer())
    assert scene.transport.written == b""
    assert scene.connection.deadline == scene.session.deadline


def test_two_connections_come_to_an_active_session(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(DIALER, LISTENER)
    monkeypatch.setattr(connection, "monotonic", lambda: pair.clock.now)
    hosts, transports = (FakeHost(), FakeHost()), (FakeTransport(), FakeTransport())
    ends = [
        Connection(SessionId(number), end.session, host)
        for number, (end, host) in enumerate(zip(pair.ends, hosts, strict=True))
    ]
    for end, transport in zip(ends, transports, strict=True):
        end.connection_made(cast("asyncio.Transport", transport))

    def exchange() -> None:
        while any(transport.written for transport in transports):
            for end, transport in zip(reversed(ends), transports, strict=True):
                data, transport.written = transport.written, b""
                if data:
                    end.data_received(data)

    exchange()
    for end in ends:
        end.drive(end.session.admit(now=pair.clock.now))
    exchange()
    for host in hosts:
        assert [type(event) for event in host.events] == [Authenticated, Established]


def test_addresses_are_read_once(scene: Scene) -> None:
    assert (scene.connection.local, scene.connection.remote) == ("127.0.0.1:30303", "1.2.3.4:5")
    ipv6 = FakeTransport()
    ipv6.extra = {"sockname": ("::1", 30303, 0, 0), "peername": None}
    other = Connection(SessionId(8), RawPeer().session, scene.host)
    other.connection_made(cast("asyncio.Transport", ipv6))
    assert (other.local, other.remote) == ("[::1]:30303", "")


def test_a_message_is_answered_at_once(scene: Scene) -> None:
    scene.says(PING)
    assert scene.transport.written
    assert scene.host.events == []


def test_the_figures_are_the_sessions_with_what_is_unsent(scene: Scene) -> None:
    scene.transport.unsent = 77
    traffic = scene.connection.traffic()
    assert (traffic.bytes_in, traffic.messages_in, traffic.queued_bytes) == (
        scene.session.bytes_in,
        scene.session.messages_in,
        77,
    )
    assert traffic.rtt_ms is None
    assert scene.connection.queued_bytes == 77


def test_a_round_trip_is_shown_in_milliseconds(scene: Scene) -> None:
    scene.waits(15.0)
    scene.clock.passes(0.25)
    scene.says(0x03)
    assert scene.connection.traffic().rtt_ms == 250.0


def test_a_dialled_peer_is_known_from_the_start() -> None:
    dialling, accepting = RawPeer(is_dialer=False), RawPeer()
    assert Connection(SessionId(1), dialling.session, FakeHost()).peer_hex == dialling.key.id.hex()
    assert Connection(SessionId(1), accepting.session, FakeHost()).peer_hex is None


# -- deadlines --------------------------------------------------------------------------------------------------------------


def test_a_nearer_deadline_is_told_and_one_that_moves_away_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = RawPeer()
    scene = Scene(monkeypatch, peer)
    scene.connection.data_received(peer.opening())
    # Behind the handshake the session has longer.
    assert scene.connection.deadline == scene.session.deadline
    assert scene.host.deadlines_moved == 0
    scene.connection.deadline = scene.session.deadline + 50
    scene.connection.drive([])
    assert scene.connection.deadline == scene.session.deadline
    assert scene.host.deadlines_moved == 1


def test_a_quiet_peer_is_pinged_and_then_lost(scene: Scene) -> None:
    scene.waits(15.0)
    assert scene.transport.written
    assert not scene.session.is_closed
    scene.waits(15.0)
    assert scene.closed.ended_by is EndedBy.US
    assert scene.host.goodbyes == 1


def test_what_is_due_is_done_though_the_loop_only_reads(scene: Scene) -> None:
    scene.host.turn_due = scene.clock.now + 0.1
    scene.says(PING)
    assert scene.host.turns == []
    scene.clock.passes(0.1)
    scene.says(PING)
    scene.says(PING)
    assert scene.host.turns == [scene.clock.now]


# -- pauses -----------------------------------------------------------------------------------------------------------------


def request(size: int = 0) -> MessageReceived:
    """A request of the peer."""
    kind = message_table((Shared(Capability("eth", 69), 16, 18),)).find("eth", 3)
    return MessageReceived(kind, bytes(size), size, 0)


def test_a_peer_whose_requests_wait_is_read_until_they_are_many(scene: Scene) -> None:
    for _ in range(MOST_PARKED):
        scene.connection.park(request())
    scene.says(PING)
    assert scene.reads()
    scene.connection.park(request())
    assert not scene.reads()
    scene.connection.unpark()
    assert scene.reads()


def test_a_peer_whose_requests_wait_is_read_until_they_are_large(scene: Scene) -> None:
    scene.connection.park(request(MOST_PARKED_BYTES))
    assert scene.reads()
    scene.connection.park(request(1))
    assert not scene.reads()
    assert len(scene.connection.unpark().payload) == MOST_PARKED_BYTES
    assert scene.reads()


def test_a_session_that_waits_for_its_verdict_is_not_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, RawPeer.at(Stage.VERDICT))
    assert not scene.transport.is_reading
    scene.connection.drive(scene.session.admit(now=scene.clock.now))
    assert scene.transport.is_reading


def test_both_reasons_to_pause_have_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, RawPeer.at(Stage.VERDICT))
    scene.connection.park(request(MOST_PARKED_BYTES + 1))
    scene.connection.drive(scene.session.admit(now=scene.clock.now))
    assert not scene.transport.is_reading
    scene.connection.unpark()
    assert scene.transport.is_reading


def test_during_a_goodbye_the_peer_is_read_again_or_its_end_would_not_be_seen(scene: Scene) -> None:
    scene.connection.park(request(MOST_PARKED_BYTES + 1))
    scene.ends()
    assert scene.transport.is_reading


# -- what waits to be written -----------------------------------------------------------------------------------------------


def test_while_the_peer_does_not_read_nothing_more_is_sealed_for_it(scene: Scene) -> None:
    # A buffer without room is one that says so.
    assert scene.transport.high == WRITE_AHEAD_BYTES - 1
    scene.connection.pause_writing()
    scene.session.send("eth", 2, b"\xc0")
    scene.says(PING)
    assert scene.transport.written == b""
    assert scene.connection.queued_bytes > 0
    scene.connection.resume_writing()
    assert [code for code, _ in scene.peer.opens(scene.transport.written)] == [PONG, TRANSACTIONS]


def test_what_is_sealed_is_written_though_the_peer_stops_reading(scene: Scene) -> None:
    scene.session.send("eth", 2, b"\xc0")
    sealed = scene.connection.seal()
    assert scene.transport.written == b""
    scene.connection.pause_writing()
    scene.session.send("eth", 2, b"\xc0")
    assert scene.connection.seal() == b""
    scene.connection.write_sealed(sealed)
    assert [code for code, _ in scene.peer.opens(scene.transport.written)] == [TRANSACTIONS]


def test_what_is_sealed_for_a_connection_that_is_gone_is_lost_with_it(scene: Scene) -> None:
    scene.session.send("eth", 2, b"\xc0")
    sealed = scene.connection.seal()
    scene.connection.connection_lost(None)
    scene.connection.write_sealed(sealed)
    assert scene.transport.written == b""


def test_what_the_transport_has_no_room_for_waits_where_others_can_pass_it(scene: Scene) -> None:
    scene.transport.unsent = WRITE_AHEAD_BYTES
    scene.session.send("eth", 2, b"\xc0")
    scene.connection.drive([])
    assert scene.transport.written == b""
    # With the next turn the transport has written, or has said that it cannot.
    scene.says(PING)
    scene.transport.unsent = 0
    [callback] = scene.host.callbacks
    callback()
    assert [code for code, _ in scene.peer.opens(scene.transport.written)] == [PONG, TRANSACTIONS]


def test_about_as_much_is_written_as_there_is_room(scene: Scene) -> None:
    for _ in range(8):
        scene.session.send("eth", 2, seeded(1)(WRITE_AHEAD_BYTES // 3))
    scene.connection.drive([])
    assert WRITE_AHEAD_BYTES <= len(scene.transport.written) < 2 * WRITE_AHEAD_BYTES


def test_a_peer_that_reads_nothing_for_long_is_cut_off(scene: Scene) -> None:
    scene.connection.pause_writing()
    scene.waits(10)
    assert not scene.session.is_closed
    scene.says(PONG)
    scene.waits(10)
    assert scene.transport.is_aborted
    assert (scene.closed.ended_by, scene.closed.reason) == (EndedBy.US, None)
    assert scene.closed.cause == "the peer read nothing for 20 s"


def test_a_peer_that_reads_slowly_is_not_cut_off_until_it_stops(scene: Scene) -> None:
    scene.transport.unsent = 3000
    scene.connection.pause_writing()
    for unsent in (2000, 1999):
        scene.transport.unsent = unsent
        scene.waits(10)
        scene.says(PONG)
        scene.waits(10)
        scene.says(PONG)
        assert not scene.is_over()
    scene.waits(20)
    assert scene.transport.is_aborted
    assert scene.closed.cause == "the peer read nothing for 20 s"


def test_a_peer_that_reads_again_is_not_cut_off(scene: Scene) -> None:
    scene.connection.pause_writing()
    scene.waits(10)
    scene.connection.resume_writing()
    scene.waits(10)
    assert not scene.session.is_closed


def test_room_for_responses_is_told_while_requests_are_parked(scene: Scene) -> None:
    scene.says(PING)
    assert scene.host.rooms == 0
    scene.connection.park(request())
    scene.says(PING)
    assert scene.host.rooms == 1
    # Once, until they have had their turn.
    scene.says(PING)
    assert scene.host.rooms == 1
    scene.connection.is_served_soon = False
    scene.says(PING)
    assert scene.host.rooms == 2


def test_a_goodbye_is_written_whatever_waits_and_counted(scene: Scene) -> None:
    scene.connection.pause_writing()
    scene.session.send("eth", 2, bytes(1000))
    before = scene.session.messages_out
    scene.ends()
    assert [code for code, _ in scene.peer.opens(scene.transport.written)] == [DISCONNECT]
    assert scene.closed.reason is DisconnectReason.TOO_MANY_PEERS
    assert scene.connection.traffic().messages_out == before + 1


# -- the end ----------------------------------------------------------------------------------------------------------------


def test_a_goodbye_is_written_then_our_side_ends_and_the_peer_has_two_seconds(scene: Scene) -> None:
    scene.ends()
    assert scene.transport.written
    assert scene.transport.has_eof
    assert not scene.transport.is_aborted
    assert scene.connection.deadline == scene.clock.now + GOODBYE_SECONDS
    assert (scene.host.goodbyes, scene.host.deadlines_moved) == (1, 1)
    scene.waits(1.9)
    assert not scene.transport.is_aborted
    scene.waits(0.1)
    assert scene.transport.is_aborted


def test_a_peer_that_goes_on_talking_does_not_put_the_end_off(scene: Scene) -> None:
    scene.ends()
    deadline = scene.connection.deadline
    for _ in range(3):
        scene.waits(0.9)
        scene.connection.data_received(b"blah")
        assert scene.connection.deadline == deadline
    assert scene.transport.is_aborted
    assert scene.transport.eofs == 1
    assert scene.host.goodbyes == 1


def test_a_peer_that_closes_after_our_goodbye_is_gone(scene: Scene) -> None:
    scene.ends()
    deadline = scene.connection.deadline
    assert scene.connection.eof_received() is False
    assert scene.connection.deadline == deadline
    scene.connection.connection_lost(None)
    assert scene.closed.cause == "told to"
    assert (scene.host.goodbyes, scene.host.gone, scene.connection.deadline) == (1, 1, math.inf)


def test_a_peer_that_says_goodbye_first_ends_the_session(scene: Scene) -> None:
    scene.says(0x01, b"\xc1\x08")
    assert (scene.closed.ended_by, scene.closed.reason) == (EndedBy.PEER, DisconnectReason.CLIENT_QUITTING)
    assert scene.transport.has_eof


def test_a_peer_that_closes_its_side_ends_the_session_and_lets_the_transport_close(scene: Scene) -> None:
    assert scene.connection.eof_received() is False
    assert (scene.closed.ended_by, scene.closed.cause) == (EndedBy.NETWORK, "the peer closed the connection")
    assert scene.connection.deadline == scene.clock.now + GOODBYE_SECONDS


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (None, "the connection was closed"),
        (
            ConnectionResetError(104, "Connection reset by peer"),
            "the connection broke: [Errno 104] Connection reset by peer",
        ),
    ],
)
def test_a_lost_connection_ends_the_session_once(scene: Scene, error: Exception | None, cause: str) -> None:
    scene.connection.connection_lost(error)
    assert (scene.closed.ended_by, scene.closed.cause) == (EndedBy.NETWORK, cause)
    assert (scene.host.gone, scene.host.goodbyes) == (1, 0)
    assert scene.connection.deadline == math.inf
    assert scene.connection.queued_bytes == 0


def test_what_a_peer_did_wrong_is_told_though_it_has_gone_before_our_goodbye(scene: Scene) -> None:
    scene.says(0x0F)
    scene.connection.connection_lost(ConnectionResetError(104, "Connection reset by peer"))
    assert (scene.closed.ended_by, scene.closed.reason) == (EndedBy.US, DisconnectReason.PROTOCOL_BREACH)
    assert scene.closed.cause == "message code 0x0f, which may not come at active"
    assert scene.host.gone == 1


def test_an_end_after_the_connection_is_lost_is_harmless(scene: Scene) -> None:
    scene.connection.connection_lost(None)
    scene.ends()
    scene.connection.abort()
    scene.connection.on_deadline(scene.clock.now)
    assert scene.transport.written == b""
    assert scene.host.goodbyes == 0


def test_a_breach_is_told_and_ends_it(scene: Scene) -> None:
    scene.says(0x0F)
    assert (scene.closed.ended_by, scene.closed.reason) == (EndedBy.US, DisconnectReason.PROTOCOL_BREACH)
    assert scene.transport.written
    assert scene.transport.has_eof


def test_a_session_that_ended_before_its_connection_was_there_says_goodbye_when_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker drains between the handoff and the transport."""
    scene = Scene(monkeypatch, RawPeer(), is_connected=False)
    scene.ends()
    assert scene.host.goodbyes == 0
    scene.connects()
    assert scene.transport.has_eof
    assert scene.host.goodbyes == 1
    scene.waits(GOODBYE_SECONDS)
    assert scene.transport.is_aborted


def test_a_polite_refusal_tells_its_reason_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = RawPeer(Recipe(refusal=DisconnectReason.TOO_MANY_PEERS))
    scene = Scene(monkeypatch, peer)
    scene.connection.data_received(peer.opening())
    assert scene.closed.reason is DisconnectReason.TOO_MANY_PEERS
    assert scene.transport.written
    assert scene.transport.has_eof


@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.HELLO, Stage.STATUS, Stage.VERDICT, Stage.ACTIVE])
def test_at_every_stage_a_silent_peer_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    peer = RawPeer() if stage is Stage.AUTH else RawPeer.at(stage)
    scene = Scene(monkeypatch, peer)
    for _ in range(5):
        if scene.connection.deadline < math.inf:
            scene.waits(scene.connection.deadline - scene.clock.now)
        if scene.transport.is_aborted:
            scene.connection.connection_lost(None)
            break
    # Where only our own verdict is missing, the engine is to blame.
    assert scene.closed.ended_by is (EndedBy.ENGINE if stage is Stage.VERDICT else EndedBy.US)
    assert scene.host.gone == 1
