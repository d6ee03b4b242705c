"""A connection between a socket and its session: bytes, deadlines, pauses, and a goodbye that ends by its deadline."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Iterator
from typing import Any, Final, cast

import pytest

from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.feeds import OpenFeed
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth.kinds import message_table
from rlpx.protocol.lifecycle import EndedBy, Stage
from rlpx.protocol.rlpx.capabilities import Capability, Shared
from rlpx.protocol.rlpx.crypto import Buffer
from rlpx.protocol.session.events import Authenticated, Closed, Established, Event, MessageReceived
from rlpx.protocol.session.session import Session
from rlpx.protocol.settings import FeedSettings
from rlpx.workers import connection
from rlpx.workers.budget import Budget
from rlpx.workers.connection import (
    BURST_SECONDS,
    EARNED_SHARE,
    FIRST_READ_BYTES,
    MAX_READ_BYTES,
    MIN_READ_BYTES,
    READ_SECONDS,
    WRITE_AHEAD_BYTES,
    Connection,
)
from rlpx.workers.feed import Feed, FeedBounds, FeedTotals
from rlpx.workers.last_bytes import PIECE_BYTES
from rlpx.workers.peer_requests import MAX_PARKED_BYTES, MAX_PARKED_REQUESTS, PeerRequests
from tests.fake_endpoint import EndpointHarness
from tests.pair import (
    DIALER,
    DISCONNECT,
    EMPTY_LIST,
    ETH,
    EVERYBODY,
    LISTENER,
    NOBODY,
    PING,
    PONG,
    Pair,
    RawPeer,
    SessionSpec,
    encoded,
    seeded,
    snappied,
)
from tests.workers.fake_host import GOODBYE_SECONDS, FakeHost

TRANSACTIONS = ETH + 2


def closed_socket() -> socket.socket:
    """A socket that is closed."""
    sock = socket.socket()
    sock.close()
    return sock


class FakeTransport:
    """Keeps what is written; a test sets `unsent`, the bytes that the kernel has not taken."""

    def __init__(self) -> None:
        self.written = b""
        self.unsent = 0
        self.high: int | None = None
        self.is_reading = True
        self.has_eof = False
        self.is_aborted = False
        self.is_closed = False
        self.eofs = 0
        # A closed socket: its descriptor cannot be duplicated.
        self.extra: dict[str, Any] = {
            "sockname": ("127.0.0.1", 30303),
            "peername": ("1.2.3.4", 5),
            "socket": closed_socket(),
        }

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


TAPPED: Final = {"tap.eth.Transactions": True}


class Harness:
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
        """Whether the socket is read."""
        return self.transport.is_reading

    def connects(self) -> None:
        """Attach the transport."""
        self.connection.connection_made(cast("asyncio.Transport", self.transport))

    def says(self, code: int, payload: bytes = EMPTY_LIST) -> None:
        """The peer sends a message."""
        self.connection.data_received(self.peer.sealed(code, payload))

    def ends(self) -> None:
        """End the session from our side."""
        events = self.session.disconnect(DisconnectReason.TOO_MANY_PEERS, "told to")
        self.connection.drive(events)

    def waits(self, seconds: float) -> None:
        """Let time pass; a deadline that has come is called."""
        self.clock.passes(seconds)
        if self.clock.now >= self.connection.deadline:
            self.connection.on_deadline(self.clock.now)


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    """An active session."""
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    return Harness(monkeypatch, peer)


# -- the way in and out -----------------------------------------------------------------------------------------------------


def test_an_initiators_first_bytes_leave_with_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, RawPeer(is_dialer=False))
    assert len(harness.transport.written) > 100
    assert harness.host.events == []


def test_a_responder_says_nothing_first(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, RawPeer())
    assert harness.transport.written == b""
    assert harness.connection.deadline == harness.session.deadline


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
        end.drive(end.session.approve(now=pair.clock.now))
    exchange()
    for host in hosts:
        assert [type(event) for event in host.events] == [Authenticated, Established]


def test_addresses_are_read_once(harness: Harness) -> None:
    assert (harness.connection.local, harness.connection.remote) == ("127.0.0.1:30303", "1.2.3.4:5")
    ipv6 = FakeTransport()
    ipv6.extra = {"sockname": ("::1", 30303, 0, 0), "peername": None}
    other = Connection(SessionId(8), RawPeer().session, harness.host)
    other.connection_made(cast("asyncio.Transport", ipv6))
    assert (other.local, other.remote) == ("[::1]:30303", "")


def test_what_leaves_is_told_with_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = RawPeer.at(Stage.VERDICT, SessionSpec(interest={"eth.Transactions": False, "tap.eth.Status": True} | TAPPED))
    harness = Harness(monkeypatch, peer)
    # The Status leaves first; it is published once the session is established.
    harness.connection.drive(harness.session.approve(now=harness.clock.now))
    assert [sent.kind.name for sent in harness.host.sent] == ["Status"]
    harness.session.send("eth", 2, b"\xc0")
    assert len(harness.host.sent) == 1
    harness.connection.write()
    assert (harness.host.sent[1].kind.tap, harness.host.sent[1].payload) == ("tap.eth.Transactions", b"\xc0")


def test_a_message_is_answered_at_once(harness: Harness) -> None:
    harness.says(PING)
    assert harness.transport.written
    assert harness.host.events == []


def test_the_figures_are_the_sessions_with_what_is_unsent(harness: Harness) -> None:
    harness.transport.unsent = 77
    stats = harness.connection.stats()
    assert (stats.bytes_in, stats.messages_in, stats.queued_bytes) == (
        harness.session.bytes_in,
        harness.session.messages_in,
        77,
    )
    assert stats.rtt_ms is None
    assert harness.connection.queued_bytes == 77


def test_a_round_trip_is_shown_in_milliseconds(harness: Harness) -> None:
    harness.waits(15.0)
    harness.clock.passes(0.25)
    harness.says(0x03)
    assert harness.connection.stats().rtt_ms == 250.0


def test_a_dialled_peer_is_known_from_the_start() -> None:
    dialling, accepting = RawPeer(is_dialer=False), RawPeer()
    assert Connection(SessionId(1), dialling.session, FakeHost()).peer_hex == dialling.key.id.hex()
    assert Connection(SessionId(1), accepting.session, FakeHost()).peer_hex is None


# -- deadlines --------------------------------------------------------------------------------------------------------------


def test_a_nearer_deadline_is_told_and_one_that_moves_away_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = RawPeer()
    harness = Harness(monkeypatch, peer)
    harness.connection.data_received(peer.opening())
    # After the handshake the session has a later deadline.
    assert harness.connection.deadline == harness.session.deadline
    assert harness.host.deadlines_moved == 0
    harness.connection.deadline = harness.session.deadline + 50
    harness.connection.drive([])
    assert harness.connection.deadline == harness.session.deadline
    assert harness.host.deadlines_moved == 1


def test_a_quiet_peer_is_pinged_and_then_lost(harness: Harness) -> None:
    harness.waits(15.0)
    assert harness.transport.written
    assert not harness.session.is_closed
    harness.waits(15.0)
    assert harness.closed.ended_by is EndedBy.US
    assert harness.host.goodbyes == 1


def test_what_is_due_is_done_though_the_loop_only_reads(harness: Harness) -> None:
    harness.host.turn_due = harness.clock.now + 0.1
    harness.says(PING)
    assert harness.host.turns == []
    harness.clock.passes(0.1)
    harness.says(PING)
    harness.says(PING)
    assert harness.host.turns == [harness.clock.now]


# -- what a peer may cost ---------------------------------------------------------------------------------------------------


class CostlyHarness(Harness):
    """A harness in which each read takes `costs` seconds of the clock."""

    costs = 0.0

    def arrives(self, data: bytes) -> None:
        """Bytes come as the loop reads them: at a time as many as the connection has room for."""
        while data and self.transport.is_reading:
            room = self.connection.get_buffer(-1)
            piece, data = data[: len(room)], data[len(room) :]
            room[: len(piece)] = piece
            self.connection.buffer_updated(len(piece))


@pytest.fixture
def costly(monkeypatch: pytest.MonkeyPatch) -> CostlyHarness:
    """An active session whose messages take as long as the test says."""
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    harness = CostlyHarness(monkeypatch, peer)
    receive = Session.receive

    def slow(session: Session, data: Buffer, *, now: float) -> list[Event]:
        harness.clock.passes(harness.costs)
        return receive(session, data, now=now)

    monkeypatch.setattr(Session, "receive", slow)
    return harness


def test_a_peer_that_costs_more_than_its_allowance_waits_for_its_turn(costly: CostlyHarness) -> None:
    costly.costs = BURST_SECONDS * 0.75
    costly.says(PING)
    assert costly.reads()
    costly.says(PING)
    assert not costly.reads()
    assert costly.host.deferred == [costly.connection]
    assert costly.connection.allowance_seconds == pytest.approx(-BURST_SECONDS / 2)
    costly.connection.allowance_seconds += BURST_SECONDS
    costly.connection.read_on()
    assert costly.reads()


def test_a_quiet_peer_earns_its_allowance_back_and_no_more(costly: CostlyHarness) -> None:
    costly.costs = BURST_SECONDS * 0.75
    for _ in range(20):
        costly.says(PONG)
        costly.clock.passes(BURST_SECONDS / EARNED_SHARE)
    assert costly.reads()
    assert costly.connection.allowance_seconds == pytest.approx(BURST_SECONDS / 4)


def test_what_a_slice_gave_is_not_cut_to_what_a_quiet_peer_may_have(costly: CostlyHarness) -> None:
    costly.connection.allowance_seconds = 8 * BURST_SECONDS
    costly.costs = BURST_SECONDS
    costly.says(PONG)
    assert costly.connection.allowance_seconds == pytest.approx(7 * BURST_SECONDS)


def test_a_read_takes_less_where_bytes_are_dear_and_more_where_they_are_cheap(costly: CostlyHarness) -> None:
    costly.connection.allowance_seconds = 100.0
    assert len(costly.connection.get_buffer(-1)) == FIRST_READ_BYTES
    message = costly.peer.sealed(TRANSACTIONS, seeded(1)(1 << 20))
    costly.arrives(message)
    assert len(costly.connection.get_buffer(-1)) == MAX_READ_BYTES
    costly.costs = 2 * READ_SECONDS
    for _ in range(10):
        costly.arrives(costly.peer.sealed(PONG))
    assert len(costly.connection.get_buffer(-1)) == MIN_READ_BYTES
    assert costly.session.messages_in >= 11


def test_a_read_that_was_interrupted_for_long_makes_the_next_one_small_and_no_other(costly: CostlyHarness) -> None:
    costly.connection.allowance_seconds = 100.0
    message = costly.peer.sealed(TRANSACTIONS, seeded(1)(1 << 20))
    sizes = []
    for costs in (READ_SECONDS / 4, 100 * READ_SECONDS, READ_SECONDS / 8, READ_SECONDS / 4, READ_SECONDS / 4):
        costly.costs = costs
        size = len(costly.connection.get_buffer(-1))
        part, message = message[:size], message[size:]
        costly.arrives(part)
        sizes.append(len(costly.connection.get_buffer(-1)))
    assert sizes == [8192, 2048, 4096, 8192, 16384]


def test_a_peer_in_its_goodbye_waits_for_its_turn_as_well(costly: CostlyHarness) -> None:
    costly.ends()
    costly.costs = 2 * BURST_SECONDS
    costly.connection.data_received(b"whatever")
    assert not costly.reads()
    costly.connection.read_on()
    assert costly.reads()


def test_the_turn_of_a_connection_that_is_gone_is_nobodys(costly: CostlyHarness) -> None:
    costly.costs = 2 * BURST_SECONDS
    costly.says(PONG)
    costly.connection.connection_lost(None)
    costly.connection.read_on()
    assert costly.host.gone == 1


def test_a_turn_does_not_end_a_pause_for_another_reason(costly: CostlyHarness) -> None:
    costly.costs = 2 * BURST_SECONDS
    costly.says(PONG)
    park(costly.connection, request(MAX_PARKED_BYTES + 1))
    costly.connection.read_on()
    assert not costly.reads()
    unpark(costly.connection)
    assert costly.reads()


# -- what it holds --------------------------------------------------------------------------------------------------------


def test_what_has_arrived_of_a_frame_is_booked_until_it_is_whole(harness: Harness) -> None:
    frame = harness.peer.sealed(TRANSACTIONS, encoded([seeded(1)(100_000)]))
    harness.connection.data_received(frame[:60_000])
    # The header has been taken already, and counts no more.
    assert harness.host.budget.used_bytes == 60_000 - 32
    harness.connection.data_received(frame[60_000:])
    assert harness.host.budget.used_bytes == 0
    assert harness.host.relieved == 0


def test_messages_that_nobody_reads_need_nothing_of_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    harness = Harness(monkeypatch, peer)
    harness.says(TRANSACTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "drive", lambda _connection, _events: pytest.fail("there is nothing to do"))
        before = harness.session.messages_in
        harness.connection.data_received(peer.sealed(TRANSACTIONS) + peer.sealed(TRANSACTIONS))
        assert harness.session.messages_in == before + 2
        # Nor do announcements that somebody reads.
        harness.session.read_for(EVERYBODY)
        harness.connection.data_received(peer.sealed(TRANSACTIONS) + peer.sealed(TRANSACTIONS))
        assert [type(event) for event in harness.host.events] == [MessageReceived] * 2
    harness.session.read_for(NOBODY)
    harness.host.events.clear()
    # What has arrived of a frame is booked here as well, until it is whole.
    frame = peer.sealed(TRANSACTIONS, encoded([seeded(1)(100_000)]))
    harness.connection.data_received(frame[:60_000])
    assert harness.host.budget.used_bytes == 60_000 - 32
    harness.connection.data_received(frame[60_000:])
    assert harness.host.budget.used_bytes == 0
    assert harness.host.events == []


def test_what_waits_for_a_peer_is_booked_while_it_does_not_read(harness: Harness) -> None:
    harness.transport.unsent = 1234
    harness.connection.pause_writing()
    assert harness.host.budget.used_bytes == 1234
    harness.session.send("eth", 2, encoded([seeded(1)(5000)]))
    harness.connection.write()
    assert harness.host.budget.used_bytes == 1234 + harness.session.queued_bytes > 6000
    harness.connection.resume_writing()
    assert harness.host.budget.used_bytes == 0


def test_requests_that_wait_are_booked_with_those_that_responders_have(harness: Harness) -> None:
    park(harness.connection, request(1000)).take(request(300))
    harness.connection.drive([])
    assert harness.host.budget.used_bytes == 1300


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_session_that_ended_holds_nothing(harness: Harness, *, is_lost: bool) -> None:
    harness.connection.data_received(harness.peer.sealed(TRANSACTIONS, seeded(1)(100_000))[:60_000])
    park(harness.connection, request(1000))
    harness.transport.unsent = 1234
    harness.connection.pause_writing()
    if is_lost:
        harness.connection.connection_lost(None)
    else:
        harness.ends()
    assert harness.host.budget.used_bytes == harness.connection.booked_bytes == 0


def test_beyond_the_budget_the_worker_is_asked_to_relieve_it_at_once(harness: Harness) -> None:
    harness.host.budget.limit_bytes = 50_000
    harness.connection.data_received(harness.peer.sealed(TRANSACTIONS, seeded(1)(100_000))[:60_000])
    assert harness.host.relieved == 1


# -- pauses -----------------------------------------------------------------------------------------------------------------


def request(size: int = 0) -> MessageReceived:
    """A request of the peer."""
    kind = message_table((Shared(Capability("eth", 69), 16, 18),)).find("eth", 3)
    return MessageReceived(kind, bytes(size), size, 0)


def park(connection: Connection, parked: MessageReceived) -> PeerRequests:
    """Let a request wait, as the worker does."""
    requests = connection.requests = connection.requests or PeerRequests()
    requests.park(parked)
    connection.update_reading()
    return requests


def unpark(connection: Connection) -> MessageReceived:
    """Take the oldest request out again."""
    assert connection.requests is not None
    parked = connection.requests.unpark()
    connection.update_reading()
    return parked


def test_a_peer_whose_requests_wait_is_read_until_they_are_many(harness: Harness) -> None:
    for _ in range(MAX_PARKED_REQUESTS):
        park(harness.connection, request())
    harness.says(PING)
    assert harness.reads()
    park(harness.connection, request())
    assert not harness.reads()
    unpark(harness.connection)
    assert harness.reads()


def test_a_peer_whose_requests_wait_is_read_until_they_are_large(harness: Harness) -> None:
    park(harness.connection, request(MAX_PARKED_BYTES))
    assert harness.reads()
    park(harness.connection, request(1))
    assert not harness.reads()
    assert len(unpark(harness.connection).payload) == MAX_PARKED_BYTES
    assert harness.reads()


def test_a_session_that_waits_for_its_verdict_is_not_read_from(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, RawPeer.at(Stage.VERDICT))
    assert not harness.transport.is_reading
    harness.connection.drive(harness.session.approve(now=harness.clock.now))
    assert harness.transport.is_reading


def test_a_pong_is_not_late_that_may_lie_in_a_socket_we_do_not_read(harness: Harness) -> None:
    harness.waits(15.0)
    park(harness.connection, request(MAX_PARKED_BYTES + 1))
    harness.waits(15.0)
    assert not harness.is_over()
    unpark(harness.connection)
    harness.waits(15.0)
    assert harness.closed.reason is DisconnectReason.PING_TIMEOUT


def test_requests_that_wait_go_with_their_session(harness: Harness) -> None:
    requests = park(harness.connection, request(1000))
    harness.ends()
    assert not requests.has_parked


def test_both_reasons_to_pause_have_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, RawPeer.at(Stage.VERDICT))
    park(harness.connection, request(MAX_PARKED_BYTES + 1))
    harness.connection.drive(harness.session.approve(now=harness.clock.now))
    assert not harness.transport.is_reading
    unpark(harness.connection)
    assert harness.transport.is_reading


def lossless_feeds() -> tuple[Feed, Feed]:
    """Two feeds; nothing of them is used but that they are two."""
    bounds = FeedBounds(FeedSettings(), FeedTotals(), Budget(1))
    link = EndpointHarness().user().link
    first, second = (Feed(link, OpenFeed(feed=number, topics=("",), lossless=True), bounds) for number in (1, 2))
    return first, second


def test_a_peer_is_not_read_while_any_lossless_feed_holds_it(harness: Harness) -> None:
    first, second = lossless_feeds()
    harness.connection.hold(first)
    assert not harness.reads()
    harness.connection.hold(second)
    harness.connection.release(first)
    harness.connection.release(first)
    assert not harness.reads()
    harness.connection.release(second)
    assert harness.reads()
    harness.connection.release(second)
    assert harness.reads()
    assert harness.connection.holders is None


def test_a_pong_is_not_late_while_a_lossless_feed_holds_the_peer(harness: Harness) -> None:
    harness.waits(15.0)
    harness.connection.hold(lossless_feeds()[0])
    harness.waits(15.0)
    assert not harness.is_over()


def test_during_a_goodbye_the_peer_is_read_again_or_its_end_would_not_be_seen(harness: Harness) -> None:
    park(harness.connection, request(MAX_PARKED_BYTES + 1))
    harness.ends()
    assert harness.transport.is_reading


# -- what waits to be written -----------------------------------------------------------------------------------------------


def test_while_the_peer_does_not_read_nothing_more_is_sealed_for_it(harness: Harness) -> None:
    # With this mark a full buffer calls `pause_writing`.
    assert harness.transport.high == WRITE_AHEAD_BYTES - 1
    harness.connection.pause_writing()
    harness.session.send("eth", 2, b"\xc0")
    harness.says(PING)
    assert harness.transport.written == b""
    assert harness.connection.queued_bytes > 0
    harness.connection.resume_writing()
    assert [code for code, _ in harness.peer.opens(harness.transport.written)] == [PONG, TRANSACTIONS]


def test_what_is_sealed_is_written_though_the_peer_stops_reading(harness: Harness) -> None:
    harness.session.send("eth", 2, b"\xc0")
    sealed = harness.connection.seal()
    assert harness.transport.written == b""
    harness.connection.pause_writing()
    harness.session.send("eth", 2, b"\xc0")
    assert harness.connection.seal() == b""
    harness.connection.write_sealed(sealed)
    assert [code for code, _ in harness.peer.opens(harness.transport.written)] == [TRANSACTIONS]


def test_what_is_sealed_for_a_connection_that_is_gone_is_lost_with_it(harness: Harness) -> None:
    harness.session.send("eth", 2, b"\xc0")
    sealed = harness.connection.seal()
    harness.connection.connection_lost(None)
    harness.connection.write_sealed(sealed)
    assert harness.transport.written == b""


def test_what_the_transport_has_no_room_for_waits_where_others_can_pass_it(harness: Harness) -> None:
    harness.transport.unsent = WRITE_AHEAD_BYTES
    harness.session.send("eth", 2, b"\xc0")
    harness.connection.drive([])
    assert harness.transport.written == b""
    # In the next loop iteration the transport has written, or has called `pause_writing`.
    harness.says(PING)
    harness.transport.unsent = 0
    [callback] = harness.host.callbacks
    callback()
    assert [code for code, _ in harness.peer.opens(harness.transport.written)] == [PONG, TRANSACTIONS]


def test_about_as_much_is_written_as_there_is_room(harness: Harness) -> None:
    for _ in range(8):
        harness.session.send("eth", 2, seeded(1)(WRITE_AHEAD_BYTES // 3))
    harness.connection.drive([])
    assert WRITE_AHEAD_BYTES <= len(harness.transport.written) < 2 * WRITE_AHEAD_BYTES


def test_a_peer_that_reads_nothing_for_long_is_cut_off(harness: Harness) -> None:
    harness.connection.pause_writing()
    harness.waits(10)
    assert not harness.session.is_closed
    harness.says(PONG)
    harness.waits(10)
    assert harness.transport.is_aborted
    assert (harness.closed.ended_by, harness.closed.reason) == (EndedBy.US, None)
    assert harness.closed.cause == "the peer read nothing for 20 s"


def test_a_peer_that_reads_slowly_is_not_cut_off_until_it_stops(harness: Harness) -> None:
    harness.transport.unsent = 3000
    harness.connection.pause_writing()
    for unsent in (2000, 1999):
        harness.transport.unsent = unsent
        harness.waits(10)
        harness.says(PONG)
        harness.waits(10)
        harness.says(PONG)
        assert not harness.is_over()
    harness.waits(20)
    assert harness.transport.is_aborted
    assert harness.closed.cause == "the peer read nothing for 20 s"


def test_a_peer_that_reads_again_is_not_cut_off(harness: Harness) -> None:
    harness.connection.pause_writing()
    harness.waits(10)
    harness.connection.resume_writing()
    harness.waits(10)
    assert not harness.session.is_closed


def test_room_for_responses_is_told_while_requests_are_parked(harness: Harness) -> None:
    harness.says(PING)
    assert harness.host.rooms == 0
    requests = park(harness.connection, request())
    harness.says(PING)
    assert harness.host.rooms == 1
    # Only once, until the parked requests have had their turn.
    harness.says(PING)
    assert harness.host.rooms == 1
    requests.is_turn_due = False
    harness.says(PING)
    assert harness.host.rooms == 2


def test_a_goodbye_is_written_whatever_waits_and_counted(harness: Harness) -> None:
    harness.connection.pause_writing()
    harness.session.send("eth", 2, bytes(1000))
    before = harness.session.messages_out
    harness.ends()
    assert [code for code, _ in harness.peer.opens(harness.transport.written)] == [DISCONNECT]
    assert harness.closed.reason is DisconnectReason.TOO_MANY_PEERS
    assert harness.connection.stats().messages_out == before + 1


# -- the end ----------------------------------------------------------------------------------------------------------------


def test_a_goodbye_is_written_then_our_side_ends_and_the_peer_has_two_seconds(harness: Harness) -> None:
    harness.ends()
    assert harness.transport.written
    assert harness.transport.has_eof
    assert not harness.transport.is_aborted
    assert harness.connection.deadline == harness.clock.now + GOODBYE_SECONDS
    assert (harness.host.goodbyes, harness.host.deadlines_moved) == (1, 1)
    harness.waits(1.9)
    assert not harness.transport.is_aborted
    harness.waits(0.1)
    assert harness.transport.is_aborted


def test_a_peer_that_goes_on_talking_does_not_put_the_end_off(harness: Harness) -> None:
    harness.ends()
    deadline = harness.connection.deadline
    for _ in range(3):
        harness.waits(0.9)
        harness.connection.data_received(b"blah")
        assert harness.connection.deadline == deadline
    assert harness.transport.is_aborted
    assert harness.transport.eofs == 1
    assert harness.host.goodbyes == 1


def test_a_peer_that_closes_after_our_goodbye_is_gone(harness: Harness) -> None:
    harness.ends()
    deadline = harness.connection.deadline
    assert harness.connection.eof_received() is False
    assert harness.connection.deadline == deadline
    harness.connection.connection_lost(None)
    assert harness.closed.cause == "told to"
    assert (harness.host.goodbyes, harness.host.gone, harness.connection.deadline) == (1, 1, math.inf)


def test_a_peer_that_says_goodbye_first_ends_the_session(harness: Harness) -> None:
    harness.says(0x01, b"\xc1\x08")
    assert (harness.closed.ended_by, harness.closed.reason) == (EndedBy.PEER, DisconnectReason.CLIENT_QUITTING)
    assert harness.transport.has_eof


def test_a_peer_that_closes_its_side_ends_the_session_and_lets_the_transport_close(harness: Harness) -> None:
    assert harness.connection.eof_received() is False
    assert (harness.closed.ended_by, harness.closed.cause) == (EndedBy.NETWORK, "the peer closed the connection")
    assert harness.connection.deadline == harness.clock.now + GOODBYE_SECONDS


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
def test_a_lost_connection_ends_the_session_once(harness: Harness, error: Exception | None, cause: str) -> None:
    harness.connection.connection_lost(error)
    assert (harness.closed.ended_by, harness.closed.cause) == (EndedBy.NETWORK, cause)
    assert (harness.host.gone, harness.host.goodbyes) == (1, 0)
    assert harness.connection.deadline == math.inf
    assert harness.connection.queued_bytes == 0


# -- after a write that failed ----------------------------------------------------------------------------------------------


@pytest.fixture
def kernel(harness: Harness) -> Iterator[socket.socket]:
    """The peer's end of a real socket, whose other end is the transport's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    harness.transport.extra["socket"] = ours
    with ours, theirs:
        yield theirs


def breaks(harness: Harness) -> None:
    """A write fails, and the transport is gone; the loop runs until nothing is left to do."""
    harness.connection.connection_lost(BrokenPipeError(32, "Broken pipe"))
    while harness.host.callbacks:
        harness.host.callbacks.pop(0)()


def test_the_peers_goodbye_is_read_though_a_write_of_ours_failed_first(harness: Harness, kernel: socket.socket) -> None:
    kernel.sendall(harness.peer.sealed(DISCONNECT, b"\xc1\x03"))
    breaks(harness)
    assert (harness.closed.ended_by, harness.closed.reason) == (EndedBy.PEER, DisconnectReason.USELESS_PEER)
    assert harness.host.gone == 1
    assert harness.connection.deadline == math.inf


def test_what_came_before_the_goodbye_is_read_in_bounded_pieces(harness: Harness, kernel: socket.socket) -> None:
    payload = snappied(encoded([seeded(1)(1000)]))
    said = b"".join(harness.peer.sealed(TRANSACTIONS, payload) for _ in range(3 * PIECE_BYTES // len(payload)))
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    kernel.sendall(said + harness.peer.sealed(DISCONNECT, b"\xc1\x03"))
    harness.connection.connection_lost(BrokenPipeError(32, "Broken pipe"))
    assert not harness.session.is_closed
    assert harness.host.gone == 0
    turns = 1
    while harness.host.callbacks:
        harness.host.callbacks.pop(0)()
        turns += 1
    assert harness.closed.reason is DisconnectReason.USELESS_PEER
    assert harness.session.bytes_in >= len(said)
    assert turns >= 3


@pytest.mark.parametrize("has_closed", [True, False])
def test_without_a_goodbye_the_session_ends_by_the_failed_write(
    harness: Harness, kernel: socket.socket, *, has_closed: bool
) -> None:
    kernel.sendall(harness.peer.sealed(PING, EMPTY_LIST))
    if has_closed:
        kernel.close()
    breaks(harness)
    assert (harness.closed.ended_by, harness.closed.reason) == (EndedBy.NETWORK, None)
    assert harness.closed.cause == "the connection broke: [Errno 32] Broken pipe"
    assert harness.host.gone == 1


def test_a_session_that_ends_by_itself_meanwhile_is_gone_with_the_next_turn(harness: Harness, kernel: socket.socket) -> None:
    kernel.sendall(harness.peer.sealed(PING, EMPTY_LIST))
    harness.connection.connection_lost(BrokenPipeError(32, "Broken pipe"))
    harness.ends()
    kernel.sendall(harness.peer.sealed(DISCONNECT, b"\xc1\x03"))
    while harness.host.callbacks:
        harness.host.callbacks.pop(0)()
    assert harness.closed.ended_by is EndedBy.US
    assert harness.host.gone == 1


def test_the_host_hears_of_a_connection_before_anything_is_written_or_read(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(monkeypatch, RawPeer(is_dialer=False), is_connected=False)
    seen: list[bytes] = []
    harness.host.on_made = lambda _: seen.append(harness.transport.written)  # type: ignore[method-assign]
    harness.connects()
    assert seen == [b""]
    assert harness.transport.written


# -- ends -------------------------------------------------------------------------------------------------------------------


def test_what_a_peer_did_wrong_is_told_though_it_has_gone_before_our_goodbye(harness: Harness) -> None:
    harness.says(0x00)
    harness.connection.connection_lost(ConnectionResetError(104, "Connection reset by peer"))
    assert (harness.closed.ended_by, harness.closed.reason) == (EndedBy.US, DisconnectReason.PROTOCOL_BREACH)
    assert harness.closed.cause == "message code 0x00, which may not come at active"
    assert harness.host.gone == 1


def test_an_end_after_the_connection_is_lost_is_harmless(harness: Harness) -> None:
    harness.connection.connection_lost(None)
    harness.ends()
    harness.connection.abort()
    harness.connection.on_deadline(harness.clock.now)
    assert harness.transport.written == b""
    assert harness.host.goodbyes == 0


def test_a_breach_is_told_and_ends_it(harness: Harness) -> None:
    harness.says(0x00)
    assert (harness.closed.ended_by, harness.closed.reason) == (EndedBy.US, DisconnectReason.PROTOCOL_BREACH)
    assert harness.transport.written
    assert harness.transport.has_eof


def test_a_session_that_ended_before_its_connection_was_there_says_goodbye_when_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker drains between the handoff and the transport."""
    harness = Harness(monkeypatch, RawPeer(), is_connected=False)
    harness.ends()
    assert harness.host.goodbyes == 0
    harness.connects()
    assert harness.transport.has_eof
    assert harness.host.goodbyes == 1
    harness.waits(GOODBYE_SECONDS)
    assert harness.transport.is_aborted


def test_a_polite_refusal_tells_its_reason_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = RawPeer(SessionSpec(refusal=DisconnectReason.TOO_MANY_PEERS))
    harness = Harness(monkeypatch, peer)
    harness.connection.data_received(peer.opening())
    assert harness.closed.reason is DisconnectReason.TOO_MANY_PEERS
    assert harness.transport.written
    assert harness.transport.has_eof


@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.HELLO, Stage.STATUS, Stage.VERDICT, Stage.ACTIVE])
def test_at_every_stage_a_silent_peer_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    peer = RawPeer() if stage is Stage.AUTH else RawPeer.at(stage)
    harness = Harness(monkeypatch, peer)
    for _ in range(5):
        if harness.connection.deadline < math.inf:
            harness.waits(harness.connection.deadline - harness.clock.now)
        if harness.transport.is_aborted:
            harness.connection.connection_lost(None)
            break
    # If only our own verdict is missing, it is the engine's fault.
    assert harness.closed.ended_by is (EndedBy.ENGINE if stage is Stage.VERDICT else EndedBy.US)
    assert harness.host.gone == 1
