"""What the peer of an active session sends, and who is interested in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import pytest

from rlpx.protocol.eth.kinds import BYTES_IN, MessageKind, topics
from rlpx.protocol.eth.status import Head, LocalRange, encode_block_range
from rlpx.protocol.lifecycle import Stage
from rlpx.protocol.rlpx.capabilities import Capability
from rlpx.protocol.session.events import (
    Closed,
    Event,
    MessageReceived,
    Misconduct,
)
from rlpx.protocol.session.inbound import SMALL_FRAME_BYTES, Inbound
from rlpx.protocol.session.sending import Multicast
from rlpx.protocol.session.tallies import Tallies
from tests.pair import (
    CHAIN,
    DISCONNECT,
    EMPTY_LIST,
    ETH,
    EVERYBODY,
    NOBODY,
    PING,
    PONG,
    RawPeer,
    SessionSpec,
    encoded,
    says_to_inflate_to,
    seeded,
    snappied,
)
from tests.protocol.session.checks import (
    BLOCK_HEADERS,
    BLOCK_RANGE_UPDATE,
    BREACH,
    ETH_69,
    GET_BLOCK_HEADERS,
    MAX_ETH_BYTES,
    NEW_BLOCK,
    NEW_BLOCK_HASHES,
    SNAP_1,
    TRANSACTIONS,
    Mistake,
    check_end,
)

# -- an active session --------------------------------------------------------------------------------------------------


def test_a_message_is_told_whole() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    payload = encoded([[b"\x22" * 32, 5]] * 40)
    [event] = peer.says(NEW_BLOCK_HASHES, payload)
    assert isinstance(event, MessageReceived)
    assert (event.kind.topic, event.kind.id, event.kind.capability) == ("eth.NewBlockHashes", 1, ETH_69.capability)
    assert (event.payload, event.wire_bytes, event.request_id) == (payload, len(snappied(payload)), None)
    assert event.wire_bytes < len(payload)


@pytest.mark.parametrize("code", [GET_BLOCK_HEADERS, BLOCK_HEADERS, SNAP_1.offset])
def test_requests_and_responses_are_told_with_their_id(code: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    for request_id in (0, 1, 0x7F, (1 << 64) - 1):
        event, *rest = peer.says(code, encoded([request_id, []]))
        assert isinstance(event, MessageReceived)
        # A response that nobody asked for is told as such as well.
        assert [type(item) for item in rest] == ([] if event.kind.answer is not None else [Misconduct])
        assert event.request_id == request_id


ACTIVE_MISTAKES: Final = {
    "a second Hello": Mistake(lambda peer: peer.says_hello(), BREACH, "code 0x80, which no shared capability has"),
    "a second Status": Mistake(lambda peer: peer.says_status(), BREACH, "Status: a second one"),
    "a code behind the last": Mistake(lambda peer: peer.says(0x10 + 18 + 8), BREACH, "code 0x2a, which no shared"),
    "a code that eth/69 leaves free": Mistake(lambda peer: peer.says(ETH + 0x0B), BREACH, "code 0x1b, which no shared"),
    "a message that eth/66 had": Mistake(lambda peer: peer.says(ETH + 0x0D), BREACH, "code 0x1d, which no shared"),
    "a code over 0x7f": Mistake(lambda peer: peer.says(0xFF), BREACH, "code 0xff, which no shared capability has"),
    "an empty frame": Mistake(lambda peer: peer.gives(peer.cipher.seal(b"")), BREACH, "an empty frame"),
    "a ping of 17 bytes": Mistake(lambda peer: peer.says(PING, bytes(17)), BREACH, "inflates to 17 bytes where 16"),
    "a pong of 17 bytes": Mistake(lambda peer: peer.says(PONG, bytes(17)), BREACH, "inflates to 17 bytes where 16"),
    "a long ping": Mistake(
        lambda peer: peer.says(PING, b"\xff" * 33, is_snappy=False), BREACH, "a ping or pong of 33 bytes"
    ),
    "a message that is not Snappy": Mistake(
        lambda peer: peer.says(TRANSACTIONS, b"\x09garbage", is_snappy=False), BREACH, "not Snappy"
    ),
    "a message without a length": Mistake(
        lambda peer: peer.says(TRANSACTIONS, b"\xff" * 6, is_snappy=False), BREACH, "without a Snappy length"
    ),
    "a bomb": Mistake(
        lambda peer: peer.says(NEW_BLOCK, says_to_inflate_to(MAX_ETH_BYTES + 1, bytes(9)), is_snappy=False),
        BREACH,
        "10485761 bytes where 10485760",
    ),
    "a snap bomb": Mistake(
        lambda peer: peer.says(SNAP_1.offset, says_to_inflate_to(0xFFFFFFFF), is_snappy=False), BREACH, "4294967295 bytes"
    ),
    "a request that is a string": Mistake(
        lambda peer: peer.says(GET_BLOCK_HEADERS, b"\x83abc"), BREACH, "a string where a list belongs"
    ),
    "a request without an id": Mistake(lambda peer: peer.says(GET_BLOCK_HEADERS, EMPTY_LIST), BREACH, "ends early"),
    "a request id that is a list": Mistake(
        lambda peer: peer.says(GET_BLOCK_HEADERS, encoded([[]])), BREACH, "a list where an integer belongs"
    ),
    "a request id with a leading zero": Mistake(
        lambda peer: peer.says(GET_BLOCK_HEADERS, encoded([b"\x00\x01"])), BREACH, "leading zeros"
    ),
    "a request id of nine bytes": Mistake(
        lambda peer: peer.says(GET_BLOCK_HEADERS, encoded([1 << 64])), BREACH, "integer of 9 bytes"
    ),
    "a response without an id": Mistake(lambda peer: peer.says(BLOCK_HEADERS, EMPTY_LIST), BREACH, "ends early"),
    "a block range of two fields": Mistake(
        lambda peer: peer.says(BLOCK_RANGE_UPDATE, encoded([1, 2])), BREACH, "BlockRangeUpdate: 2 fields"
    ),
    "a block range that is reversed": Mistake(
        lambda peer: peer.says(BLOCK_RANGE_UPDATE, encoded([2, 1, b"\x01" * 32])), BREACH, "from 2 back to 1"
    ),
    "a block range with a hash of zero": Mistake(
        lambda peer: peer.says(BLOCK_RANGE_UPDATE, encoded([1, 2, bytes(32)])), BREACH, "latest hash is zero"
    ),
    "a block range that is no RLP": Mistake(lambda peer: peer.says(BLOCK_RANGE_UPDATE, b"\xc1"), BREACH, "ends early"),
}


@pytest.mark.parametrize("mistake", ACTIVE_MISTAKES.values(), ids=ACTIVE_MISTAKES)
def test_a_mistake_of_an_active_peer_is_answered_with_its_reason(mistake: Mistake) -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    mistake.does(peer)
    check_end(peer, mistake.reason, mistake.cause, Stage.ACTIVE)
    assert peer.gives(peer.sealed(PING)) == []


@pytest.mark.parametrize("stage", [Stage.STATUS, Stage.ACTIVE])
@pytest.mark.parametrize("code", range(0x04, 0x10))
def test_a_reserved_code_is_ignored(code: int, stage: Stage) -> None:
    peer = RawPeer.at(stage)
    peer.hears()
    assert peer.says(code, b"\x01\x02", is_snappy=False) == []
    assert peer.session.stage is stage
    assert peer.hears() == []


@pytest.mark.parametrize("code", [0x04, 0x0F])
def test_a_reserved_code_may_not_come_before_hello(code: int) -> None:
    peer = RawPeer.at(Stage.HELLO)
    peer.says(code)
    check_end(peer, BREACH, f"code 0x{code:02x}, which may not come at hello", Stage.HELLO)


def test_a_code_of_zero_written_as_a_byte_is_a_breach() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.says(0x00)
    check_end(peer, BREACH, "code 0x00, which may not come at active", Stage.ACTIVE)


@pytest.mark.parametrize("message", [0x06, 0x07])
def test_the_trie_nodes_of_snap_1_are_nobody_s_in_snap_2(message: int) -> None:
    before = RawPeer.at(Stage.ACTIVE)
    assert Closed not in map(type, before.says(SNAP_1.offset + message, encoded([5])))
    peer = RawPeer.at(Stage.ACTIVE, offer=(Capability("eth", 69), Capability("snap", 2)))
    peer.says(SNAP_1.offset + message, encoded([5]))
    check_end(peer, BREACH, "which no shared capability has", Stage.ACTIVE)


@pytest.mark.parametrize("code", [BLOCK_RANGE_UPDATE, ETH + 0x12])
def test_what_a_later_version_has_is_nobody_s_in_an_earlier_one(code: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE, offer=(Capability("eth", 68),))
    peer.says(code)
    check_end(peer, BREACH, f"code 0x{code:02x}, which no shared capability has", Stage.ACTIVE)


def test_an_active_peer_may_send_the_longest_frame_of_what_is_shared() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    longest = 1 + 32 + MAX_ETH_BYTES * 7 // 6
    assert peer.announces(longest) == []
    peer = RawPeer.at(Stage.ACTIVE)
    peer.announces(longest + 1)
    check_end(peer, BREACH, f"a frame of {longest + 1} bytes where {longest} are allowed", Stage.ACTIVE)


TOO_LONG: Final = [
    (ETH + 0x00, 1000, 5000, "Status: a frame of 5000 bytes where 1227 are allowed"),
    (ETH + 0x03, 1025, 1100, "GetBlockHeaders: a payload that says it inflates to 1025 bytes where 1024 are allowed"),
    (ETH + 0x03, 1000, 1228, "GetBlockHeaders: a frame of 1228 bytes where 1227 are allowed"),
    (ETH + 0x05, 10_000_000, 9_000_000, "GetBlockBodies: a frame of 9000000 bytes where 611702 are allowed"),
    (
        ETH + 0x05,
        524_289,
        100_000,
        "GetBlockBodies: a payload that says it inflates to 524289 bytes where 524288 are",
    ),
    (ETH + 0x06, MAX_ETH_BYTES + 1, 60_000, "BlockBodies: a payload that says it inflates to 10485761 bytes where"),
    (
        ETH + 0x08,
        10_000_000,
        500_000,
        "NewPooledTransactionHashes: a payload that says it inflates to 10000000 bytes where 655360",
    ),
    (BLOCK_RANGE_UPDATE, 10_000_000, 10_000_000, "BlockRangeUpdate: a frame of 10000000 bytes where 1227 are allowed"),
    (PING, 3, 3000, "message code 0x02 with 3000 bytes, where 2048 are allowed"),
    (0x0F, 3, 3000, "message code 0x0f with 3000 bytes, where 2048 are allowed"),
    (0x7F, 3, 5000, "message code 0x7f, which no shared capability has"),
]


@pytest.mark.parametrize(("code", "says", "size", "cause"), TOO_LONG)
@pytest.mark.parametrize("interest", [EVERYBODY, NOBODY])
def test_what_is_too_long_for_its_kind_is_refused_however_it_is_cut(
    code: int, says: int, size: int, cause: str, interest: Mapping[str, bool]
) -> None:
    """In one piece, or by its first 2 KiB: what follows those never has to be sent."""
    body = says_to_inflate_to(says)
    for most in (size + 1000, SMALL_FRAME_BYTES + 100):
        peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=interest))
        peer.gives(peer.cipher.seal(bytes([code]) + body + bytes(size - 1 - len(body)))[:most])
        check_end(peer, BREACH, cause, Stage.ACTIVE)


@pytest.mark.parametrize("code", [ETH + 0x01, ETH + 0x07])
def test_block_gossip_after_the_merge_is_refused_by_its_first_bytes(code: int) -> None:
    chain = msgspec.structs.replace(CHAIN, refuses_blocks=True)
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(chain=chain))
    peer.gives(peer.cipher.seal(bytes([code]) + snappied(bytes(seeded(1)(100_000))))[:3000])
    assert "on a chain of proof of stake" in peer.closed.cause
    peer = RawPeer.at(Stage.ACTIVE)
    assert peer.gives(peer.cipher.seal(bytes([code]) + snappied(bytes(seeded(1)(100_000))))[:3000]) == []


def test_a_base_message_just_within_its_limit_is_awaited() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    assert peer.gives(peer.cipher.seal(b"\x02" + bytes(SMALL_FRAME_BYTES - 2))[:-1]) == []


@pytest.mark.parametrize("code", [ETH + 0x06, BLOCK_RANGE_UPDATE + 4])
def test_a_long_message_within_its_limit_is_awaited_at_every_cut(code: int) -> None:
    payload = encoded([7, [seeded(3)(5000)]])
    frame_of = RawPeer.at(Stage.ACTIVE).sealed(code, payload)
    for cut in (1, 32, 33, 48, 49, 63, 64, 2079, 2080, 2081, 2112, len(frame_of) - 17, len(frame_of) - 1):
        peer = RawPeer.at(Stage.ACTIVE)
        whole = peer.sealed(code, payload)
        assert peer.gives(whole[:cut]) == []
        assert not any(isinstance(event, Closed) for event in peer.gives(whole[cut:])), cut


def test_the_longest_message_is_told() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    [event] = peer.says(TRANSACTIONS, bytes(MAX_ETH_BYTES))
    assert isinstance(event, MessageReceived)
    assert len(event.payload) == MAX_ETH_BYTES


def test_a_hundred_messages_in_one_chunk_are_told_in_their_order() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    payloads = [encoded([b"%d" % index]) for index in range(100)]
    events = peer.gives(b"".join(peer.sealed(TRANSACTIONS, payload) for payload in payloads))
    assert [event.payload for event in events if isinstance(event, MessageReceived)] == payloads


@pytest.mark.parametrize(
    ("code", "payload"),
    [
        (TRANSACTIONS, b""),
        (TRANSACTIONS, b"\xff\xff"),
        (NEW_BLOCK_HASHES, b"\x80"),
        (GET_BLOCK_HEADERS, b"\xc3\x07\xff\xff"),
        (GET_BLOCK_HEADERS, b"\xc1\x07rubbish behind the list"),
    ],
)
def test_a_body_that_is_no_message_is_the_readers_to_judge(code: int, payload: bytes) -> None:
    """Of what is not the session's own business, size and request id are looked at and nothing else."""
    peer = RawPeer.at(Stage.ACTIVE)
    [event] = peer.says(code, payload)
    assert isinstance(event, MessageReceived)
    assert event.payload == payload
    assert peer.session.stage is Stage.ACTIVE


def test_a_block_range_is_remembered_and_told() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    payload = encoded([5, 2000, b"\x33" * 32])
    [event] = peer.says(BLOCK_RANGE_UPDATE, payload)
    assert isinstance(event, MessageReceived)
    assert event.payload == payload
    assert peer.session.remote_range == (5, 2000, b"\x33" * 32)


# -- who is interested --------------------------------------------------------------------------------------------------


def test_what_nobody_reads_is_not_inflated() -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    assert peer.says(TRANSACTIONS) == []
    # Its length says ten bytes and what follows is no Snappy: whoever inflates it finds out.
    assert peer.says(TRANSACTIONS, b"\x0a\xff\xff", is_snappy=False) == []
    assert [type(event) for event in peer.says(BLOCK_HEADERS, b"\x0a\xff\xff", is_snappy=False)] == [Misconduct]
    assert peer.session.messages_in == 5


@pytest.mark.parametrize("code", [TRANSACTIONS, NEW_BLOCK, BLOCK_HEADERS, SNAP_1.offset + 1])
def test_what_nobody_reads_may_not_be_oversized(code: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    assert Closed not in map(type, peer.says(code, says_to_inflate_to(MAX_ETH_BYTES), is_snappy=False))
    peer.says(code, says_to_inflate_to(MAX_ETH_BYTES + 1), is_snappy=False)
    check_end(peer, BREACH, "10485761 bytes", Stage.ACTIVE)


def test_what_is_read_of_a_session_may_change() -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    session = peer.session
    peer.hears()
    session.read_for({**dict.fromkeys(topics(), True), "tap.eth.Transactions": True})
    assert len(peer.says(TRANSACTIONS)) == 1
    session.send("eth", 2, b"\xc0")
    peer.hears()
    assert [sent.kind.tap for sent in session.take_sent()] == ["tap.eth.Transactions"]
    session.read_for(NOBODY)
    assert peer.says(TRANSACTIONS) == []
    session.send("eth", 2, b"\xc0")
    peer.hears()
    assert session.take_sent() == []


@pytest.mark.parametrize("interest", [EVERYBODY, NOBODY])
def test_announcements_leave_a_session_settled(interest: Mapping[str, bool]) -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=interest))
    peer.hears()
    for count in (1, 1, 3):
        peer.gives(b"".join(peer.sealed(TRANSACTIONS) for _ in range(count)))
        assert peer.session.is_settled
        assert not peer.session.has_data_to_send


@pytest.mark.parametrize("interest", [EVERYBODY, NOBODY])
@pytest.mark.parametrize("code", [GET_BLOCK_HEADERS, BLOCK_HEADERS, BLOCK_RANGE_UPDATE, NEW_BLOCK, PING, PONG, DISCONNECT])
def test_everything_else_may_leave_something_to_do(code: int, interest: Mapping[str, bool]) -> None:
    payload = encoded([1, 2, b"\x01" * 32]) if code == BLOCK_RANGE_UPDATE else encoded([7, []])
    for around in (0, 1):
        peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=interest))
        peer.says(TRANSACTIONS)
        said = (*[TRANSACTIONS] * around, code, *[TRANSACTIONS] * around)
        peer.gives(b"".join([peer.sealed(each, payload if each == code else EMPTY_LIST) for each in said]))
        assert not peer.session.is_settled


@pytest.mark.parametrize("interest", [EVERYBODY, NOBODY])
def test_part_of_a_frame_is_held(interest: Mapping[str, bool]) -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=interest))
    peer.says(TRANSACTIONS)
    frame = peer.sealed(TRANSACTIONS) + peer.sealed(TRANSACTIONS)
    peer.gives(frame[:-1])
    assert not peer.session.is_settled
    peer.gives(frame[-1:])
    assert peer.session.is_settled


def test_a_session_is_not_settled_before_it_is_active_nor_after_its_end() -> None:
    peer = RawPeer.at(Stage.STATUS)
    peer.says_status()
    assert not peer.session.is_settled
    peer = RawPeer.at(Stage.ACTIVE)
    peer.says(TRANSACTIONS)
    peer.says(TRANSACTIONS, b"\x09garbage", is_snappy=False)
    assert not peer.session.is_settled
    assert peer.gives(peer.sealed(TRANSACTIONS)) == []
    assert not peer.session.is_settled


def test_a_session_leaves_unread_messages_to_the_tallies_of_its_readers() -> None:
    table = RawPeer.at(Stage.ACTIVE).session.shared
    assert table is not None
    first, second = Tallies(), Tallies()
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY, tallies=first))
    peer.says(TRANSACTIONS)
    content = bytes([TRANSACTIONS]) + snappied(EMPTY_LIST)
    assert first.of(table).takes(content)
    peer.session.read_for(EVERYBODY, second)
    assert len(peer.says(TRANSACTIONS)) == 1
    assert not second.of(table).takes(content)
    # Without tallies, each message is looked at.
    before = peer.session.messages_in
    peer.session.read_for(NOBODY)
    for _ in range(2):
        assert peer.says(TRANSACTIONS) == []
    assert not second.of(table).takes(content)
    assert peer.session.messages_in == before + 2


def test_what_is_read_may_be_set_before_a_session_is_active() -> None:
    peer = RawPeer.at(Stage.STATUS, SessionSpec(interest=NOBODY))
    peer.session.read_for({"tap.eth.Status": True})
    peer.is_admitted()
    peer.hears()
    peer.says_status(network=1)
    assert [sent.kind.name for sent in peer.session.take_sent()] == ["Status"]


@pytest.mark.parametrize("code", [GET_BLOCK_HEADERS, ETH + 0x05, ETH + 0x09, ETH + 0x0F, SNAP_1.offset])
def test_requests_are_told_whoever_is_interested(code: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    [event] = peer.says(code, encoded([7, []]))
    assert isinstance(event, MessageReceived)
    assert (event.kind.code, event.request_id) == (code, 7)


def test_a_reader_that_comes_gets_what_comes_after_it() -> None:
    interest, tallies = {"eth.Transactions": False}, Tallies()
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=interest, tallies=tallies))
    for is_read in (False, True, False, True):
        interest["eth.Transactions"] = is_read
        tallies.skip_nothing()
        for _ in range(3):
            assert len(peer.says(TRANSACTIONS)) == is_read


def test_messages_that_nobody_reads_are_counted_wherever_they_are() -> None:
    """The first one is looked at, the cipher takes the others."""
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    before = peer.session.messages_in
    table = peer.session.shared
    assert table is not None
    counted = table.counters[TRANSACTIONS], table.counters[BYTES_IN + TRANSACTIONS]
    frame = peer.sealed(TRANSACTIONS, encoded([b"a" * 100]))
    assert peer.gives(frame) == []
    more = [peer.sealed(TRANSACTIONS, encoded([b"a" * 100])) for _ in range(5)]
    content_bytes = 1 + len(snappied(encoded([b"a" * 100])))
    assert peer.gives(b"".join(more)) == []
    assert peer.session.messages_in == before + 6
    assert table.counters[TRANSACTIONS] - counted[0] == 6
    assert table.counters[BYTES_IN + TRANSACTIONS] - counted[1] == 6 * content_bytes
    peer.says(DISCONNECT, encoded([4]))
    assert peer.session.messages_in == before + 7


@pytest.mark.parametrize("code", [BLOCK_RANGE_UPDATE, NEW_BLOCK, ETH, BLOCK_HEADERS, GET_BLOCK_HEADERS])
def test_a_message_that_concerns_the_session_is_looked_at_each_time(code: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    seen: list[int] = []

    def note(_self: Inbound, kind: MessageKind, _content: bytes, _events: list[Event], _now: float) -> None:
        seen.append(kind.code)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Inbound, "_on_special", note)
        peer.says(code)
        peer.says(code)
    assert seen == [code, code]


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        (says_to_inflate_to(MAX_ETH_BYTES + 1), "10485761 bytes"),
        (b"\xff" * 9, "without a Snappy length"),
        (b"", "without a"),
    ],
)
def test_the_next_message_that_nobody_reads_is_held_to_the_same_bounds(payload: bytes, cause: str) -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    assert peer.says(TRANSACTIONS) == []
    assert peer.says(TRANSACTIONS) == []
    peer.says(TRANSACTIONS, payload, is_snappy=False)
    check_end(peer, BREACH, cause, Stage.ACTIVE)


class EveryTap(dict[str, bool]):
    """All taps are read, and no message of the peer."""

    def __missing__(self, topic: str) -> bool:
        return topic.startswith("tap.")


def test_every_message_that_leaves_is_told_whoever_made_it() -> None:
    head = LocalRange()
    peer = RawPeer.at(Stage.VERDICT, SessionSpec(interest=EveryTap(), range=head))
    session = peer.session
    peer.is_admitted()
    peer.hears()
    assert [sent.kind.tap for sent in session.take_sent()] == ["tap.eth.Status"]
    head.head = Head(5000, b"\x05" * 32)
    peer.waits(384.0)
    session.send("eth", 2, b"\xc0")
    session.send_multicast(Multicast("eth", 2, b"\xc1\x80"))
    [request] = peer.says(GET_BLOCK_HEADERS, encoded([7, [1, 1, 0, 0]]))
    assert isinstance(request, MessageReceived)
    session.answer(request, encoded([7, []]))
    session.request("eth", 0x05, encoded([9, []]), now=peer.clock.now)
    assert session.take_sent() == []
    peer.hears()
    assert session.has_sent
    sent = session.take_sent()
    assert [(item.kind.name, item.payload) for item in sent] == [
        ("BlockRangeUpdate", encode_block_range(head.head)),
        ("BlockHeaders", encoded([7, []])),
        ("GetBlockBodies", encoded([0, []])),
        ("Transactions", b"\xc0"),
        ("Transactions", b"\xc1\x80"),
    ]
    assert session.take_sent() == []


def test_announcements_that_leave_as_one_are_told_as_one() -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=EveryTap()), offer=(Capability("eth", 67),))
    peer.hears()
    peer.session.take_sent()
    for name in (b"\x01", b"\x02", b"\x01"):
        peer.session.send("eth", 8, encoded([name * 32]))
    assert len(peer.hears()) == 1
    [sent] = peer.session.take_sent()
    assert sent.payload == encoded([b"\x01" * 32, b"\x02" * 32])


def test_a_status_of_a_session_that_never_was_established_is_told_at_its_end() -> None:
    peer = RawPeer.at(Stage.STATUS, SessionSpec(interest=EveryTap()))
    peer.is_admitted()
    peer.hears()
    assert not peer.session.has_sent
    peer.says_status(network=1)
    assert [sent.kind.name for sent in peer.session.take_sent()] == ["Status"]


def test_a_block_range_is_read_whoever_is_interested() -> None:
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(interest=NOBODY))
    assert peer.says(BLOCK_RANGE_UPDATE, encoded([5, 2000, b"\x33" * 32])) == []
    assert peer.session.remote_range == (5, 2000, b"\x33" * 32)
    peer.says(BLOCK_RANGE_UPDATE, encoded([5, 4, b"\x33" * 32]))
    check_end(peer, BREACH, "from 5 back to 4", Stage.ACTIVE)
