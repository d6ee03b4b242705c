"""What leaves a session: what is sent, what waits, and what is counted."""

from __future__ import annotations

from functools import cache

import pytest

from rlpx.protocol import rlp
from rlpx.protocol.errors import DisconnectReason, NotSharedError, QueueFullError, UsageError
from rlpx.protocol.lifecycle import Stage
from rlpx.protocol.rlpx.capabilities import Capability
from rlpx.protocol.rlpx.crypto import Point
from rlpx.protocol.session.events import (
    Closed,
    MessageReceived,
    RequestFailed,
)
from rlpx.protocol.session.session import Session
from rlpx.protocol.settings import QueueSettings
from tests.pair import (
    DIALER,
    DISCONNECT,
    EMPTY_LIST,
    ETH,
    PING,
    PONG,
    Pair,
    RawPeer,
    SessionSpec,
    encoded,
    held_bytes,
    inflated,
    key,
    seeded,
    snappied,
)
from tests.protocol.session.checks import (
    BLOCK_HEADERS,
    GET_BLOCK_HEADERS,
    MAX_FRAME_BYTES,
    PENDING,
    SNAP_1,
    TRANSACTIONS,
    is_dialer,
)

# -- what we send -------------------------------------------------------------------------------------------------------


def test_what_one_side_sends_the_other_is_told() -> None:
    pair = Pair()
    pair.establish()
    pair.dialer.session.send("eth", 0x02, encoded([b"transaction"]))
    pair.listener.session.send("snap", 0x00, encoded([9, b"root"]))
    pair.exchange()
    [transactions] = pair.listener.messages
    [account_range] = pair.dialer.messages
    assert (transactions.kind.topic, transactions.payload) == ("eth.Transactions", encoded([b"transaction"]))
    assert (account_range.kind.topic, account_range.request_id) == ("snap.GetAccountRange", 9)


@pytest.mark.parametrize("stage", PENDING)
def test_nothing_is_sent_before_the_session_is_active(stage: Stage) -> None:
    session = RawPeer.at(stage, is_dialer=is_dialer(stage)).session
    session.data_to_send()
    with pytest.raises(NotSharedError, match=f"not active but at {stage}"):
        session.send("eth", 0x02, EMPTY_LIST)
    assert session.data_to_send() == b""


@pytest.mark.parametrize(
    ("capability", "message_id", "words"),
    [
        ("snap", 0x00, "snap message 0x00 is not shared"),
        ("eth", 0x11, "eth message 0x11 is not shared"),
        ("eth", -1, "is not shared"),
        ("eth", 0x0B, "eth/68 has no message 0x0b"),
        ("eth", 0x0D, "eth/68 has no message 0x0d"),
    ],
)
def test_what_is_not_shared_is_not_sent(capability: str, message_id: int, words: str) -> None:
    peer = RawPeer.at(Stage.ACTIVE, offer=(Capability("eth", 68),))
    peer.hears()
    with pytest.raises(NotSharedError, match=words):
        peer.session.send(capability, message_id, EMPTY_LIST)
    assert peer.session.data_to_send() == b""


def test_what_fits_no_frame_is_refused_and_the_session_goes_on() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    with pytest.raises(UsageError, match="over the 16777215 of a frame"):
        peer.session.send("eth", 0x02, key(1).secret * (1 << 19) + _incompressible(MAX_FRAME_BYTES))
    peer.session.send("eth", 0x02, EMPTY_LIST)
    assert [code for code, _ in peer.hears()] == [TRANSACTIONS]


@cache
def _incompressible(size: int) -> bytes:
    return DIALER.setup().node.entropy(size)


def test_a_request_is_answered_under_its_capability() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    [request] = peer.says(GET_BLOCK_HEADERS, encoded([7, []]))
    [snap_request] = peer.says(SNAP_1.offset + 2, encoded([8]))
    assert isinstance(request, MessageReceived)
    assert isinstance(snap_request, MessageReceived)
    peer.hears()
    peer.session.answer(request, request.kind.empty_answer(7, request.payload))
    peer.session.answer(snap_request, encoded([8, [], []]))
    assert peer.hears() == [
        (BLOCK_HEADERS, snappied(encoded([7, []]))),
        (SNAP_1.offset + 3, snappied(encoded([8, [], []]))),
    ]


def test_what_is_no_request_has_no_answer() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    [event] = peer.says(TRANSACTIONS)
    assert isinstance(event, MessageReceived)
    peer.hears()
    peer.session.answer(event, EMPTY_LIST)
    assert peer.session.data_to_send() == b""


def test_an_answer_that_comes_after_the_end_is_nobody_s() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    [request] = peer.says(GET_BLOCK_HEADERS, encoded([7, []]))
    assert isinstance(request, MessageReceived)
    peer.says(DISCONNECT)
    peer.hears()
    peer.session.answer(request, EMPTY_LIST)
    assert peer.session.data_to_send() == b""


# -- the figures --------------------------------------------------------------------------------------------------------


def test_bytes_are_counted_as_they_come_and_go() -> None:
    pair = Pair()
    pair.establish()
    pair.dialer.session.send("eth", 0x02, encoded([b"transaction"]))
    pair.exchange()
    for end, other in (pair.ends, pair.ends[::-1]):
        assert end.session.bytes_out == other.session.bytes_in == len(end.wire.carried)
        assert end.session.data_to_send() == b""


def test_messages_are_counted_as_they_come() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    assert peer.session.messages_in == len(("Hello", "Status"))
    peer.gives(peer.sealed(TRANSACTIONS) + peer.sealed(PING))
    assert peer.session.messages_in == len(("Hello", "Status", "Transactions", "Ping"))


def test_both_sides_count_the_same_messages() -> None:
    pair = Pair()
    pair.establish()
    pair.dialer.session.send("eth", 0x02, EMPTY_LIST)
    pair.exchange()
    for end, other in (pair.ends, pair.ends[::-1]):
        assert end.session.messages_out == other.session.messages_in


def test_what_is_written_is_given_once() -> None:
    session = RawPeer(is_dialer=False).session
    assert session.data_to_send() != b""
    assert session.data_to_send() == b""


def test_what_is_held_is_counted_from_the_first_byte_on() -> None:
    session = Session(SessionSpec().setup(), now=1000.0)
    session.receive(b"\x01\x90\x04", now=1000.0)
    assert session.held_bytes == 3
    peer = RawPeer.at(Stage.ACTIVE)
    peer.gives(peer.cipher.seal(b"\x02\xc0")[:20])
    assert peer.session.held_bytes == 20 + peer.session.queued_bytes


# -- what waits --------------------------------------------------------------------------------------------------------


def test_what_is_urgent_passes_what_has_waited_longer() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    [request] = peer.says(ETH + 3, encoded([7, [1, 1, 0, 0]]))
    assert isinstance(request, MessageReceived)
    peer.session.send("eth", 0x02, EMPTY_LIST)
    peer.session.request("eth", 0x05, encoded([1, []]), now=peer.clock.now)
    peer.session.answer(request, encoded([7, []]))
    peer.says(PING)
    assert peer.session.queued_responses == 1
    assert [code for code, _ in peer.hears()] == [PONG, ETH + 4, ETH + 5, TRANSACTIONS]
    assert (peer.session.queued_bytes, peer.session.queued_responses) == (0, 0)


def test_a_ping_that_still_waits_to_be_written_has_no_late_pong() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    peer.waits(15)
    assert peer.waits(15) + peer.waits(15) == []
    assert [code for code, _ in peer.hears()] == [PING]
    assert [type(event) for event in peer.waits(15)] == [Closed]


def test_what_a_user_sends_is_bounded_whatever_it_is() -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(queues=QueueSettings(peer_write_bytes=1024)))
    peer.hears()
    peer.session.send("eth", 0x04, seeded(1)(900))
    with pytest.raises(QueueFullError):
        peer.session.send("eth", 0x04, seeded(1)(900))


def test_as_much_is_sealed_as_there_is_room() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    for _ in range(3):
        peer.session.send("eth", 0x02, encoded([bytes(range(100))]))
    first = peer.session.data_to_send(1)
    assert [code for code, _ in peer.opens(first)] == [TRANSACTIONS]
    assert peer.session.has_data_to_send
    assert peer.session.data_to_send(0) == b""
    assert [code for code, _ in peer.hears()] == [TRANSACTIONS] * 2
    assert not peer.session.has_data_to_send


def test_what_does_not_fit_is_refused_and_the_request_was_never_asked() -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(queues=QueueSettings(peer_write_bytes=1024)))
    peer.hears()
    noise = seeded(1)(600)
    peer.session.send("eth", 0x02, noise)
    with pytest.raises(QueueFullError):
        peer.session.send("eth", 0x02, noise)
    with pytest.raises(QueueFullError):
        peer.session.request("eth", 0x09, encoded([1, [noise]]), now=peer.clock.now)
    assert [code for code, _ in peer.hears()] == [TRANSACTIONS]
    assert peer.waits(20.0) == []


def test_announcements_that_wait_leave_as_one() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    for number in range(3):
        announced = encoded([b"\x02", [100 + number], [bytes([number]) * 32]])
        peer.session.send_deflated("eth", 0x08, announced, snappied(announced))
    [(code, body)] = peer.hears()
    assert code == ETH + 8
    expected = [b"\x02" * 3, [b"\x64", b"\x65", b"\x66"], [bytes([number]) * 32 for number in range(3)]]
    assert rlp.decode(inflated(body)) == expected


def test_an_end_drops_what_waits_and_says_goodbye() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    peer.session.send("eth", 0x02, EMPTY_LIST)
    peer.is_disconnected(DisconnectReason.TOO_MANY_PEERS)
    assert [code for code, _ in peer.hears()] == [DISCONNECT]


def test_a_message_too_long_for_a_frame_is_refused_before_it_waits() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    with pytest.raises(UsageError, match="over the 16777215 of a frame"):
        peer.session.send_deflated("eth", 0x02, b"", bytes(0xFFFFFF))
    assert not peer.session.queued_bytes


@pytest.mark.parametrize("stage", [Stage.STATUS, Stage.VERDICT, Stage.ACTIVE])
@pytest.mark.parametrize("is_lost", [True, False])
def test_an_ended_session_keeps_nothing(stage: Stage, *, is_lost: bool) -> None:
    """Not what had arrived of a frame, what was kept for later or waited to be sent, nor a cipher: figures and a goodbye."""
    peer = RawPeer.at(stage)
    peer.hears()
    fresh = held_bytes(peer.session)
    if stage is Stage.ACTIVE:
        peer.gives(peer.cipher.seal(bytes([ETH + 2]) + snappied(seeded(5)(1 << 20)))[: 1 << 19])
        for _ in range(5):
            peer.session.send("eth", 2, seeded(5)(100_000))
        peer.session.request("eth", 3, encoded([1, [5, 1, 0, 0]]), now=peer.clock.now)
    else:
        peer.gives(peer.cipher.seal(bytes(2000))[:1000])
    if is_lost:
        peer.session.connection_lost("gone")
    else:
        peer.is_disconnected(DisconnectReason.TOO_MANY_PEERS)
        assert peer.goodbye == DisconnectReason.TOO_MANY_PEERS
    assert held_bytes(peer.session) < fresh
    assert peer.session.receive(bytes(1000), now=peer.clock.now) == []


def test_a_pong_is_not_late_that_may_be_where_nobody_reads() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.waits(15)
    peer.hears()
    peer.clock.passes(15)
    assert peer.session.tick(now=peer.clock.now, is_read=False) == []
    peer.clock.passes(14.9)
    assert peer.session.tick(now=peer.clock.now, is_read=False) == []
    peer.says(PONG)
    assert peer.session.rtt_seconds == pytest.approx(29.9)
    peer.waits(15)
    peer.hears()
    peer.waits(15)
    assert peer.closed.reason is DisconnectReason.PING_TIMEOUT


def test_an_answer_is_not_late_that_may_be_where_nobody_reads() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.session.request("eth", 3, encoded([1, [5, 1, 0, 0]]), now=peer.clock.now)
    peer.clock.passes(20)
    assert peer.session.tick(now=peer.clock.now, is_read=False) == []
    [failed] = peer.waits(0)
    assert isinstance(failed, RequestFailed)
    assert failed.name == "timed_out"


def test_an_auth_that_comes_again_is_refused_before_it_costs_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    first = RawPeer()
    setup = first.recipe.setup()
    accepted, replayed = (Session(setup, now=first.clock.now) for _ in range(2))
    accepted.receive(first.opening(), now=first.clock.now)
    assert accepted.stage is Stage.HELLO
    before = replayed.data_to_send()
    with monkeypatch.context() as patch:
        patch.setattr(Point, "parse", None)
        [closed] = replayed.receive(first.opening(), now=first.clock.now + 59)
    assert isinstance(closed, Closed)
    assert (closed.reason, closed.cause) == (None, "an auth that was sent before")
    assert before == replayed.data_to_send() == b""


def test_an_auth_that_failed_may_come_again() -> None:
    """Only what was accepted is remembered: whoever forges auths must not fill the memory for them."""
    first = RawPeer()
    setup = first.recipe.setup()
    auth = bytearray(first.opening())
    auth[-1] ^= 1
    Session(setup, now=first.clock.now).receive(bytes(auth), now=first.clock.now)
    assert len(setup.node.seen_auths) == 0


def test_a_message_is_named_by_capability_and_id() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    assert peer.session.kind("eth", 3).topic == "eth.GetBlockHeaders"
    with pytest.raises(NotSharedError):
        peer.session.kind("les", 3)
