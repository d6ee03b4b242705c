"""Between a socket and its session: bytes, deadlines, pauses, and a goodbye that ends by its deadline, come what may."""

from __future__ import annotations

import asyncio
import math
from typing import Any, cast

import pytest

from protocol.control import SessionId
from protocol.errors import DisconnectReason
from protocol.events import Authenticated, Closed, EndedBy, Established, Event, Stage
from protocol.session import Session
from tests.pair import DIALER, EMPTY_LIST, LISTENER, PING, Pair, RawPeer, Recipe, seeded
from workers import connection
from workers.connection import PAUSE_READING_BYTES, Connection

GOODBYE_SECONDS = 2.0
WRITE_QUEUE_BYTES = 1 << 20


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
        self.write_queue_bytes = WRITE_QUEUE_BYTES
        self.events: list[Event] = []
        self.deadlines_moved = 0
        self.goodbyes = 0
        self.gone = 0

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


# -- pauses -----------------------------------------------------------------------------------------------------------------


def test_a_peer_that_does_not_read_is_not_read_from(scene: Scene) -> None:
    assert scene.transport.high == PAUSE_READING_BYTES
    scene.connection.pause_writing()
    assert not scene.transport.is_reading
    scene.connection.resume_writing()
    assert scene.transport.is_reading


def test_a_session_that_waits_for_its_verdict_is_not_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, RawPeer.at(Stage.VERDICT))
    assert not scene.transport.is_reading
    scene.connection.drive(scene.session.admit(now=scene.clock.now))
    assert scene.transport.is_reading


def test_both_reasons_to_pause_have_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, RawPeer.at(Stage.VERDICT))
    scene.connection.pause_writing()
    scene.connection.drive(scene.session.admit(now=scene.clock.now))
    assert not scene.transport.is_reading
    scene.connection.resume_writing()
    assert scene.transport.is_reading


def test_during_a_goodbye_the_peer_is_read_again_or_its_end_would_not_be_seen(scene: Scene) -> None:
    scene.connection.pause_writing()
    scene.ends()
    assert scene.transport.is_reading


# -- what waits to be written -----------------------------------------------------------------------------------------------


def test_a_peer_that_leaves_too_much_unread_is_cut_off(scene: Scene) -> None:
    scene.transport.unsent = WRITE_QUEUE_BYTES + 1
    scene.says(PING)
    assert scene.transport.is_aborted
    assert scene.transport.written == b""
    assert (scene.closed.ended_by, scene.closed.reason) == (EndedBy.US, None)
    assert scene.closed.cause == f"the peer left {WRITE_QUEUE_BYTES + 1} bytes unread"


def test_one_large_message_on_an_empty_queue_is_no_reason(scene: Scene) -> None:
    scene.transport.unsent = WRITE_QUEUE_BYTES
    scene.session.send("eth", 2, bytes(3 * WRITE_QUEUE_BYTES))
    scene.connection.drive([])
    assert not scene.transport.is_aborted
    assert scene.transport.written


def test_while_one_large_message_drains_pings_do_not_count_against_it(scene: Scene) -> None:
    # Noise: Snappy would make zeros a small message.
    scene.session.send("eth", 2, seeded(1)(3 * WRITE_QUEUE_BYTES))
    scene.connection.drive([])
    scene.transport.unsent = len(scene.transport.written)
    scene.says(PING)
    assert not scene.transport.is_aborted
    # What comes on top of it does count.
    scene.transport.unsent += WRITE_QUEUE_BYTES
    scene.says(PING)
    assert scene.transport.is_aborted


def test_over_the_limit_nothing_happens_while_there_is_nothing_to_write(scene: Scene) -> None:
    scene.transport.unsent = WRITE_QUEUE_BYTES + 1
    scene.connection.drive([])
    assert not scene.transport.is_aborted


def test_a_goodbye_is_written_even_over_the_limit(scene: Scene) -> None:
    scene.transport.unsent = WRITE_QUEUE_BYTES + 1
    scene.ends()
    assert scene.transport.written
    assert scene.closed.reason is DisconnectReason.TOO_MANY_PEERS


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
