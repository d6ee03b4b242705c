"""A session, as its peer and its driver meet it: every stage, every rule of a stage, every way to end."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import eth, rlp, snap
from protocol.capabilities import Shared, SubProtocol
from protocol.errors import DisconnectReason, HandshakeError, NotSharedError, QueueFullError, UsageError, severity_of
from protocol.eth import Head, LocalRange
from protocol.events import Authenticated, Closed, EndedBy, Established, Event, MessageReceived, Misconduct, Stage
from protocol.outgoing import Multicast
from protocol.p2p import Capability, Hello, inflate
from protocol.session import MAX_EARLY_BYTES, Role, Session, Timeouts
from tests.pair import (
    CHAIN,
    DIALER,
    DISCONNECT,
    EMPTY_LIST,
    ETH,
    GENESIS,
    HEAD,
    HELLO,
    LISTENER,
    NOBODY,
    PING,
    PONG,
    End,
    Pair,
    RawPeer,
    Recipe,
    Rlp,
    Wire,
    encoded,
    handshake_packet,
    held_bytes,
    inflated,
    key,
    says_to_inflate_to,
    seeded,
    snappied,
    status_fields,
)

BREACH: Final = DisconnectReason.PROTOCOL_BREACH
TIMEOUT: Final = DisconnectReason.PING_TIMEOUT
OTHER_CHAIN: Final = DisconnectReason.SUBPROTOCOL_ERROR

TIMEOUTS: Final = Timeouts(handshake=3, pending=7, ping_interval=20, ping=11)
TIMED: Final = Recipe(timeouts=TIMEOUTS)

NEW_BLOCK_HASHES: Final = ETH + 0x01
TRANSACTIONS: Final = ETH + 0x02
GET_BLOCK_HEADERS: Final = ETH + 0x03
BLOCK_HEADERS: Final = ETH + 0x04
NEW_BLOCK: Final = ETH + 0x07
BLOCK_RANGE_UPDATE: Final = ETH + 0x11

MAX_FRAME_BYTES: Final = 0xFFFFFF
MAX_ETH_BYTES: Final = 10 * 1024 * 1024

# The raw peer's Hello names eth/69 and snap/1.
ETH_69: Final = Shared(Capability("eth", 69), ETH, 18, 10 << 20)
SNAP_1: Final = Shared(Capability("snap", 1), ETH + 18, 8, 10 << 20)

PENDING: Final = (Stage.AUTH, Stage.ACK, Stage.HELLO, Stage.STATUS, Stage.VERDICT)


def is_dialer(stage: Stage) -> bool:
    """The role of the peer that lets the session come to a stage."""
    return stage is not Stage.ACK


def offering(*names: str) -> Recipe:
    """A session that speaks these only, `eth/68` or `snap/1`."""
    known = {"eth": eth.sub_protocol, "snap": snap.sub_protocol}
    pairs = [name.split("/") for name in names]
    return Recipe(protocols=tuple(known[name](int(version)) for name, version in pairs))


def check_end(peer: RawPeer, reason: DisconnectReason | None, cause: str, stage: Stage) -> None:
    """We ended it at `stage`, for that cause, and what we say of the reason is what the peer was told."""
    closed = peer.closed
    assert cause in closed.cause
    assert (closed.ended_by, closed.reason, closed.stage) == (EndedBy.US, reason, stage)
    assert peer.goodbye == reason
    assert peer.session.is_closed


# -- the way up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [66, 67, 68, 69, 70, 71, 72])
@pytest.mark.parametrize("snap_version", [None, 1, 2])
def test_both_roles_establish_and_say_with_whom(version: int, snap_version: int | None) -> None:
    names = [f"eth/{version}"] + ([f"snap/{snap_version}"] if snap_version else [])
    recipe = offering(*names)
    pair = Pair(recipe, msgspec.structs.replace(recipe, seed=2))
    pair.establish()
    for end, other in (pair.ends, pair.ends[::-1]):
        own, remote = end.session, other.session
        assert [type(event) for event in end.events] == [Authenticated, Established]
        assert own.stage is Stage.ACTIVE
        assert not own.is_held
        assert end.established.hello == own.hello
        assert end.established.status == own.status
        assert own.shared is not None
        assert end.established.shared == own.shared.shared
        assert [str(item.capability) for item in end.established.shared] == names
        assert own.hello is not None
        assert own.hello.node_id == own.peer
        assert Authenticated(own.hello.node_id) == end.events[0]
        assert remote.shared is own.shared
    assert (pair.dialer.session.peer, pair.listener.session.peer) == (key(2).id, key(1).id)
    assert (pair.dialer.session.role, pair.listener.session.role) == (Role.INITIATOR, Role.RESPONDER)


@pytest.mark.parametrize("version", [66, 68, 69, 72])
def test_the_status_is_told_as_the_peer_sent_it(version: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE, offer=(Capability("eth", version),))
    fields = status_fields(version)
    status = peer.session.status
    assert status is not None
    assert peer.events[-1] == Established(peer.session.hello, status=status, shared=peer.session.shared.shared)  # type: ignore[arg-type,union-attr]  # both are there
    assert (status.version, status.network_id, status.genesis) == (version, CHAIN.network_id, GENESIS)
    assert [status.fork_id.hash, status.fork_id.next] == fields["fork_id"]
    assert status.head == HEAD.hash
    assert (status.total_difficulty, status.earliest) == ((None, 7) if version >= 69 else (131072, None))
    assert peer.session.remote_range == ((7, 1000, HEAD.hash) if version >= 69 else None)


@pytest.mark.parametrize("version", [66, 69])
def test_our_own_status_is_right(version: int) -> None:
    peer = RawPeer.at(Stage.STATUS, offer=(Capability("eth", version),))
    assert peer.is_admitted() == []
    [(code, payload)] = peer.hears()
    assert code == ETH
    assert inflated(payload) == encoded(list(status_fields(version).values()))


def test_our_status_tells_the_forks_of_the_wall_clock() -> None:
    peer = RawPeer.at(Stage.STATUS, Recipe(wall_seconds=70))
    peer.is_admitted()
    [(_, payload)] = peer.hears()
    fork = CHAIN.forks.at(HEAD.number, 70)
    assert fork.next == 120
    assert inflated(payload) == encoded(list((status_fields(69) | {"fork_id": [fork.hash, 120]}).values()))


def test_our_hello_comes_first_and_uncompressed() -> None:
    peer = RawPeer.at(Stage.HELLO)
    [(code, payload)] = peer.heard
    assert code == HELLO
    offer: Rlp = [[item.capability.name.encode(), item.capability.version] for item in DIALER.protocols]
    assert payload == encoded([5, b"tests/1", offer, 30303, key(1).id])


def test_the_highest_shared_version_is_taken() -> None:
    pair = Pair(
        offering("eth/66", "eth/68", "eth/69"), Recipe(seed=2, protocols=offering("eth/67", "eth/68", "eth/72").protocols)
    )
    pair.establish()
    assert [str(item.capability) for item in pair.dialer.established.shared] == ["eth/68"]


def test_a_capability_before_eth_in_the_alphabet_moves_its_codes() -> None:
    recipe = Recipe(protocols=(*offering("snap/1", "eth/68").protocols, SubProtocol(Capability("aaa", 1), 3)))
    offer = (Capability("eth", 68), Capability("snap", 1), Capability("aaa", 1))
    peer = RawPeer.at(Stage.ACTIVE, recipe, offer=offer)
    assert peer.session.shared is not None
    assert [(str(item.capability), item.offset) for item in peer.session.shared.shared] == [
        ("aaa/1", 0x10),
        ("eth/68", 0x13),
        ("snap/1", 0x24),
    ]
    [own] = peer.says(0x12, b"\x83abc")
    [transactions] = peer.says(0x15)
    [account_range] = peer.says(0x24, encoded([5]))
    assert isinstance(own, MessageReceived)
    assert (own.kind.topic, own.kind.id, own.payload, own.request_id) == ("aaa.2", 2, b"\x83abc", None)
    assert isinstance(transactions, MessageReceived)
    assert transactions.kind.topic == "eth.Transactions"
    assert isinstance(account_range, MessageReceived)
    assert (account_range.kind.topic, account_range.request_id) == ("snap.GetAccountRange", 5)
    peer.hears()
    peer.session.send("aaa", 1, b"\x80")
    peer.session.send("eth", 2, EMPTY_LIST)
    assert [code for code, _ in peer.hears()] == [0x11, 0x15]
    peer.says(0x13, encoded(list(status_fields(68).values())))
    check_end(peer, BREACH, "a second Status", Stage.ACTIVE)


def test_a_user_s_capability_has_the_limit_of_the_frame_alone() -> None:
    recipe = Recipe(protocols=(*DIALER.protocols, SubProtocol(Capability("zzz", 1), 1)), interest=NOBODY)
    peer = RawPeer.at(Stage.ACTIVE, recipe, offer=(Capability("eth", 66), Capability("zzz", 1)))
    assert peer.says(0x21, says_to_inflate_to(MAX_FRAME_BYTES), is_snappy=False) == []
    peer.says(0x21, says_to_inflate_to(MAX_FRAME_BYTES + 1), is_snappy=False)
    check_end(peer, BREACH, "16777216 bytes", Stage.ACTIVE)


def test_whom_an_initiator_dials_is_known_from_the_start() -> None:
    peer = RawPeer(is_dialer=False)
    assert (peer.session.stage, peer.session.peer, peer.session.role) == (Stage.ACK, peer.key.id, Role.INITIATOR)
    assert RawPeer().session.peer is None


def test_an_initiator_cannot_dial_what_is_no_key() -> None:
    with pytest.raises(HandshakeError):
        Session(DIALER.setup(b"\x01" * 64), now=0.0)


def test_an_ack_and_what_follows_it_may_come_in_one_chunk() -> None:
    peer = RawPeer(is_dialer=False)
    ack = peer.opening()
    offer: Rlp = [[b"eth", 69]]
    hello = peer.sealed(HELLO, encoded([5, b"", offer, 0, peer.key.id]), is_snappy=False)
    status = peer.sealed(ETH, encoded(list(status_fields(69).values())))
    assert peer.gives(ack + hello + status) == [Authenticated(peer.key.id)]
    assert peer.session.is_held


# -- the verdict --------------------------------------------------------------------------------------------------------


def test_nothing_is_established_without_a_verdict() -> None:
    peer = RawPeer.at(Stage.VERDICT)
    assert [type(event) for event in peer.events] == [Authenticated]
    assert peer.session.is_held
    assert not peer.session.is_closed
    with pytest.raises(NotSharedError, match="not active but at verdict"):
        peer.session.send("eth", 2, EMPTY_LIST)


def test_the_verdict_makes_it_active() -> None:
    peer = RawPeer.at(Stage.VERDICT)
    [event] = peer.is_admitted()
    assert isinstance(event, Established)
    assert not peer.session.is_held
    assert peer.is_admitted() == []


@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.ACK, Stage.HELLO, Stage.STATUS])
def test_a_verdict_may_come_before_the_status(stage: Stage) -> None:
    peer = RawPeer.at(stage, is_dialer=is_dialer(stage))
    assert peer.is_admitted() == []
    for step in (peer.authenticates, peer.says_hello)[PENDING[1:].index(stage) if stage is not Stage.AUTH else 0 :]:
        step()
    [event] = peer.says_status()
    assert isinstance(event, Established)
    assert peer.session.stage is Stage.ACTIVE


def test_what_comes_before_the_verdict_is_held_and_comes_after_it_in_order() -> None:
    peer = RawPeer.at(Stage.VERDICT)
    peer.hears()
    assert peer.says(TRANSACTIONS, encoded([b"one"])) == []
    assert peer.gives(peer.sealed(PING) + peer.sealed(TRANSACTIONS, encoded([b"two"]))) == []
    large = encoded([bytes(3000)])
    assert peer.says(NEW_BLOCK, large, is_snappy=True) == []
    assert peer.hears() == []
    first, *others = peer.is_admitted()
    assert isinstance(first, Established)
    assert [event.payload for event in others if isinstance(event, MessageReceived)] == [
        encoded([b"one"]),
        encoded([b"two"]),
        large,
    ]
    assert [code for code, _ in peer.hears()] == [ETH, PONG]


def test_our_status_waits_for_the_verdict_and_goes_out_once() -> None:
    peer = RawPeer.at(Stage.STATUS)
    assert peer.hears() == []
    peer.is_admitted()
    assert peer.is_admitted() == []
    assert [code for code, _ in peer.hears()] == [ETH]


def test_what_was_deflated_before_is_sent_as_it_is() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    peer.session.send_deflated("eth", 2, b"\xc1\x05", snappied(b"\xc1\x05"))
    assert peer.hears() == [(TRANSACTIONS, snappied(b"\xc1\x05"))]


def test_what_goes_to_many_goes_to_each_that_is_active() -> None:
    message = Multicast("eth", 2, b"\xc1\x05")
    for _ in range(2):
        peer = RawPeer.at(Stage.ACTIVE)
        peer.hears()
        assert peer.session.send_multicast(message).topic == "eth.Transactions"
        assert peer.hears() == [(TRANSACTIONS, snappied(b"\xc1\x05"))]
    with pytest.raises(NotSharedError, match="not active"):
        RawPeer.at(Stage.VERDICT).session.send_multicast(message)


def test_the_answer_to_a_request_that_went_to_many_is_one_that_was_asked_for() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.session.send_multicast(Multicast("eth", 3, encoded([7, [1, 1, 0, 0]])))
    assert [type(event) for event in peer.says(ETH + 4, encoded([7, []]))] == [MessageReceived]
    assert [type(event) for event in peer.says(ETH + 4, encoded([7, []]))] == [MessageReceived, Misconduct]


def test_what_is_held_may_be_a_breach() -> None:
    peer = RawPeer.at(Stage.VERDICT)
    peer.says(TRANSACTIONS)
    peer.gives(peer.sealed(PING, b"\xc1\x01") + peer.sealed(TRANSACTIONS))
    events = peer.is_admitted()
    assert [type(event) for event in events] == [Established, MessageReceived, Closed]
    check_end(peer, BREACH, "inflates to 2 bytes", Stage.ACTIVE)


def test_what_is_held_may_be_a_goodbye() -> None:
    peer = RawPeer.at(Stage.VERDICT)
    assert peer.says(DISCONNECT, b"\xc1\x04") == []
    established, closed = peer.is_admitted()
    assert isinstance(established, Established)
    assert closed == Closed(EndedBy.PEER, DisconnectReason.TOO_MANY_PEERS, "the peer said goodbye", Stage.ACTIVE)


def test_a_status_and_half_a_message_wait_for_the_verdict_together() -> None:
    peer = RawPeer.at(Stage.STATUS)
    status = peer.sealed(ETH, encoded(list(status_fields(69).values())))
    message = peer.sealed(TRANSACTIONS, encoded([b"whole"]))
    assert peer.gives(status + message[:20]) == []
    assert [type(event) for event in peer.is_admitted()] == [Established]
    [event] = peer.gives(message[20:])
    assert isinstance(event, MessageReceived)


@pytest.mark.parametrize("stage", [Stage.HELLO, Stage.STATUS, Stage.VERDICT, Stage.ACTIVE])
def test_a_verdict_of_no_is_told_at_any_stage(stage: Stage) -> None:
    peer = RawPeer.at(stage)
    reason = DisconnectReason.ALREADY_CONNECTED
    assert peer.is_disconnected(reason) == [Closed(EndedBy.US, reason, "told to", stage)]
    assert peer.goodbye == reason
    assert peer.is_admitted() == []


@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.ACK])
def test_nobody_is_told_before_there_is_a_cipher(stage: Stage) -> None:
    peer = RawPeer.at(stage, is_dialer=is_dialer(stage))
    peer.session.outgoing()
    closed = Closed(EndedBy.US, None, "told to", stage)
    assert peer.is_disconnected(DisconnectReason.CLIENT_QUITTING) == [closed]
    assert peer.session.outgoing() == b""


def test_an_end_says_who_decided_it() -> None:
    session = RawPeer.at(Stage.ACTIVE).session
    reason = DisconnectReason.CLIENT_QUITTING
    assert session.disconnect(reason, "bye", by=EndedBy.ENGINE) == [Closed(EndedBy.ENGINE, reason, "bye", Stage.ACTIVE)]


# -- a refusal from the start -------------------------------------------------------------------------------------------


def test_a_refusal_stands_uncompressed_in_the_place_of_hello() -> None:
    peer = RawPeer(Recipe(refusal=DisconnectReason.TOO_MANY_PEERS))
    events = peer.authenticates()
    refused = Closed(EndedBy.US, DisconnectReason.TOO_MANY_PEERS, "refused before Hello", Stage.HELLO)
    assert events[-1] == refused
    assert peer.heard == [(DISCONNECT, b"\xc1\x04")]
    assert peer.says_hello() == []
    assert peer.hears() == []


def test_a_refusal_is_understood_by_our_own_sessions() -> None:
    pair = Pair(DIALER, Recipe(seed=2, refusal=DisconnectReason.TOO_MANY_PEERS))
    pair.establish()
    assert pair.dialer.closed == Closed(EndedBy.PEER, DisconnectReason.TOO_MANY_PEERS, "the peer said goodbye", Stage.HELLO)


def test_garbage_behind_the_auth_of_a_refused_peer_changes_nothing() -> None:
    peer = RawPeer(Recipe(refusal=DisconnectReason.TOO_MANY_PEERS))
    peer.gives(peer.opening() + bytes(64))
    assert (peer.closed.ended_by, peer.closed.reason) == (EndedBy.US, DisconnectReason.TOO_MANY_PEERS)


def test_a_hello_behind_the_ack_of_a_refused_peer_changes_nothing() -> None:
    peer = RawPeer(Recipe(refusal=DisconnectReason.TOO_MANY_PEERS), is_dialer=False)
    peer.gives(peer.opening() + peer.sealed(HELLO))
    assert (peer.closed.ended_by, peer.closed.reason) == (EndedBy.US, DisconnectReason.TOO_MANY_PEERS)
    assert peer.goodbye == DisconnectReason.TOO_MANY_PEERS


def test_a_refused_peer_that_says_nothing_has_no_more_time_than_others() -> None:
    peer = RawPeer(msgspec.structs.replace(TIMED, refusal=DisconnectReason.TOO_MANY_PEERS))
    assert peer.waits(TIMEOUTS.handshake - 0.001) == []
    peer.waits(0.001)
    check_end(peer, None, "took too long at auth", Stage.AUTH)


# -- auth and ack -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.ACK])
@pytest.mark.parametrize("size", [0, 112, 2049, 0xFFFF])
def test_a_handshake_packet_of_an_impossible_size_ends_it_at_once(stage: Stage, size: int) -> None:
    peer = RawPeer.at(stage, is_dialer=is_dialer(stage))
    closed = Closed(EndedBy.US, None, f"a handshake packet of {size} bytes", stage)
    assert peer.gives(size.to_bytes(2, "big")) == [closed]


@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.ACK])
def test_a_handshake_packet_for_somebody_else_is_refused_without_a_word(stage: Stage) -> None:
    peer = RawPeer.at(stage, is_dialer=is_dialer(stage))
    packet = bytearray(peer.opening())
    packet[-1] ^= 1
    peer.session.outgoing()
    assert peer.gives(bytes(packet)) == [Closed(EndedBy.US, None, "an ECIES message with a wrong tag", stage)]
    assert peer.session.outgoing() == b""


@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.ACK])
def test_whoever_only_names_an_id_does_not_authenticate_it(stage: Stage) -> None:
    """The auth's signature is over a secret that its sender need not know, and an ack has none: any of them opens.

    Only a frame proves that the other side has the key, for nobody else can compute the MACs.
    """
    peer = RawPeer.at(stage, is_dialer=is_dialer(stage))
    entropy = seeded(3)
    signature = key(4).sign(entropy(32))
    auth: Rlp = [signature, key(5).id, entropy(32), 4]
    ack: Rlp = [key(6).id, entropy(32), 4]
    body = encoded(auth if stage is Stage.AUTH else ack) + bytes(100)
    assert peer.gives(handshake_packet(body, DIALER.key.point, entropy)) == []
    assert peer.session.stage is Stage.HELLO
    assert peer.session.peer == (None if stage is Stage.AUTH else peer.key.id)
    assert [type(event) for event in peer.gives(bytes(32))] == [Closed]


@pytest.mark.parametrize("dials", [True, False])
def test_the_first_frame_authenticates_whatever_it_says(*, dials: bool) -> None:
    peer = RawPeer.at(Stage.HELLO, is_dialer=dials)
    assert [type(event) for event in peer.gives(peer.cipher.seal(b""))] == [Authenticated, Closed]
    assert peer.session.peer == peer.key.id


def test_a_frame_that_is_not_authentic_ends_it_without_a_word() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    frame = bytearray(peer.sealed(PING))
    frame[-1] ^= 1
    peer.hears()
    peer.gives(bytes(frame))
    check_end(peer, None, "body whose MAC differs", Stage.ACTIVE)


def test_what_came_whole_before_a_bad_frame_is_told() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    events = peer.gives(peer.sealed(TRANSACTIONS) + peer.sealed(TRANSACTIONS) + bytes(32))
    assert [type(event) for event in events] == [MessageReceived, MessageReceived, Closed]
    check_end(peer, None, "header whose MAC differs", Stage.ACTIVE)


# -- Hello --------------------------------------------------------------------------------------------------------------


class Mistake(NamedTuple):
    """What a peer does wrong, what it is told, and what we say of it."""

    does: Callable[[RawPeer], object]
    reason: DisconnectReason
    cause: str


HELLO_MISTAKES: Final = {
    "no id": Mistake(lambda peer: peer.says_hello(node_id=b""), DisconnectReason.INVALID_IDENTITY, "without a node id"),
    "a null id": Mistake(
        lambda peer: peer.says_hello(node_id=bytes(64)), DisconnectReason.INVALID_IDENTITY, "without a node id"
    ),
    "another's id": Mistake(
        lambda peer: peer.says_hello(node_id=key(5).id), DisconnectReason.UNEXPECTED_IDENTITY, "another node id"
    ),
    "version 4": Mistake(
        lambda peer: peer.says_hello(version=4), DisconnectReason.INCOMPATIBLE_VERSION, "protocol version 4"
    ),
    "no capabilities": Mistake(
        lambda peer: peer.says_hello(offer=[]), DisconnectReason.USELESS_PEER, "the peer offers nothing"
    ),
    "an eth too old": Mistake(
        lambda peer: peer.says_hello(offer=[[b"eth", 65], [b"les", 4]]),
        DisconnectReason.USELESS_PEER,
        "the peer offers eth/65, les/4",
    ),
    "an ETH in capitals": Mistake(
        lambda peer: peer.says_hello(offer=[[b"ETH", 69]]), DisconnectReason.USELESS_PEER, "the peer offers ETH/69"
    ),
    "snap alone": Mistake(
        lambda peer: peer.says_hello(offer=[[b"snap", 1]]), DisconnectReason.USELESS_PEER, "no shared version of eth"
    ),
    "three fields": Mistake(
        lambda peer: peer.says(HELLO, encoded([5, b"", []]), is_snappy=False), BREACH, "3 of its 5 fields"
    ),
    "no RLP": Mistake(lambda peer: peer.says(HELLO, b"\xf9\xff", is_snappy=False), BREACH, "ends early"),
    "nothing": Mistake(lambda peer: peer.says(HELLO, b"", is_snappy=False), BREACH, "ends early"),
    "a code of zero written as zero": Mistake(lambda peer: peer.says(0x00), BREACH, "code 0x00"),
    "a ping before it": Mistake(lambda peer: peer.says(PING), BREACH, "code 0x02, which may not come at hello"),
    "a pong before it": Mistake(lambda peer: peer.says(PONG), BREACH, "code 0x03, which may not come at hello"),
    "a Status before it": Mistake(lambda peer: peer.says_status(), BREACH, "code 0x10, which may not come at hello"),
    "an empty frame": Mistake(lambda peer: peer.gives(peer.cipher.seal(b"")), BREACH, "an empty frame"),
    "a frame over 2048 bytes": Mistake(lambda peer: peer.announces(2049), BREACH, "2049 bytes where 2048"),
}


@pytest.mark.parametrize("mistake", HELLO_MISTAKES.values(), ids=HELLO_MISTAKES)
@pytest.mark.parametrize("dials", [True, False])
def test_a_wrong_hello_is_answered_with_its_reason(mistake: Mistake, *, dials: bool) -> None:
    peer = RawPeer.at(Stage.HELLO, is_dialer=dials)
    mistake.does(peer)
    check_end(peer, mistake.reason, mistake.cause, Stage.HELLO)


def test_a_first_frame_of_2048_bytes_is_awaited() -> None:
    peer = RawPeer.at(Stage.HELLO)
    assert peer.announces(2048) == []
    assert peer.session.stage is Stage.HELLO


def test_a_newer_base_protocol_and_more_fields_are_welcome() -> None:
    peer = RawPeer.at(Stage.HELLO)
    offer: Rlp = [[b"eth", 68, b"more"]]
    payload = encoded([6, b"new", offer, 0, peer.key.id, b"more", [b"and", b"more"]]) + bytes(40)
    peer.says(HELLO, payload, is_snappy=False)
    assert peer.session.stage is Stage.STATUS
    assert peer.session.hello is not None
    assert (peer.session.hello.client, peer.session.hello.version) == ("new", 6)


def test_capabilities_that_are_unknown_or_named_twice_are_no_mistake() -> None:
    peer = RawPeer.at(Stage.HELLO)
    peer.says_hello(offer=[[b"eth", 68], [b"les", 4], [b"eth", 69], [b"eth", 69], [b"eth", 1 << 40]])
    assert peer.session.stage is Stage.STATUS
    assert peer.session.shared is not None
    assert peer.session.shared.shared == (ETH_69,)


def test_a_session_that_lies_about_its_id_is_told_so() -> None:
    truth = Hello.decode(DIALER.setup().node.hello)
    pair = Pair(Recipe(hello=msgspec.structs.replace(truth, node_id=key(5).id)))
    pair.exchange()
    assert (pair.listener.closed.ended_by, pair.dialer.closed.ended_by) == (EndedBy.US, EndedBy.PEER)
    assert pair.listener.closed.reason is pair.dialer.closed.reason is DisconnectReason.UNEXPECTED_IDENTITY


# -- Status -------------------------------------------------------------------------------------------------------------


def status_of(size: int) -> bytes:
    """A right Status with EIP-8 rubbish behind it, `size` bytes in all."""
    payload = encoded(list(status_fields(69).values()))
    return payload + bytes(size - len(payload))


STATUS_MISTAKES: Final = {
    "another network": Mistake(lambda peer: peer.says_status(network=1), OTHER_CHAIN, "another network, 1"),
    "another genesis": Mistake(lambda peer: peer.says_status(genesis=b"\x01" * 32), OTHER_CHAIN, "another genesis, 0x0101"),
    "another version": Mistake(lambda peer: peer.says_status(version=68), OTHER_CHAIN, "eth/68 where eth/69 was negotiated"),
    "a stale fork id": Mistake(
        lambda peer: peer.says_status(fork_id=[b"\xde\xad\xbe\xef", 0]), OTHER_CHAIN, "fork id deadbeef/0"
    ),
    "a fork id of three fields": Mistake(
        lambda peer: peer.says_status(fork_id=[b"\xde\xad\xbe\xef", 0, 0]), OTHER_CHAIN, "a fork id of 3 fields"
    ),
    "a range that is reversed": Mistake(lambda peer: peer.says_status(earliest=1001), BREACH, "from 1001 back to 1000"),
    "a latest hash of zero": Mistake(lambda peer: peer.says_status(head=bytes(32)), BREACH, "latest hash is zero"),
    "a short genesis": Mistake(lambda peer: peer.says_status(genesis=b"\x01"), BREACH, "1 bytes where 32 belong"),
    "a network of nine bytes": Mistake(lambda peer: peer.says_status(network=1 << 64), BREACH, "integer of 9 bytes"),
    "the form of eth/68": Mistake(
        lambda peer: peer.says(ETH, encoded(list(status_fields(68).values()))), BREACH, "not eth/69's form"
    ),
    "a string": Mistake(lambda peer: peer.says(ETH, b"\x80"), BREACH, "a string where a list belongs"),
    "no Snappy": Mistake(lambda peer: peer.says(ETH, b"\x03\xff\xff\xff\xff", is_snappy=False), BREACH, "not Snappy"),
    "no payload": Mistake(lambda peer: peer.says(ETH, b"", is_snappy=False), BREACH, "without a Snappy length"),
    "a payload that inflates over 1024 bytes": Mistake(
        lambda peer: peer.says(ETH, status_of(1025)), BREACH, "1025 bytes where 1024"
    ),
    "a bomb": Mistake(
        lambda peer: peer.says(ETH, says_to_inflate_to(1 << 30), is_snappy=False), BREACH, "1073741824 bytes where 1024"
    ),
    "a frame over 2048 bytes": Mistake(lambda peer: peer.announces(2049), BREACH, "2049 bytes where 2048"),
    "a second Hello": Mistake(lambda peer: peer.says_hello(), BREACH, "code 0x80, which may not come at status"),
    "a message before it": Mistake(lambda peer: peer.says(TRANSACTIONS), BREACH, "code 0x12, which may not come"),
    "a snap message before it": Mistake(lambda peer: peer.says(0x22), BREACH, "code 0x22, which may not come"),
    "a reserved code": Mistake(lambda peer: peer.says(0x04), BREACH, "code 0x04, which may not come at status"),
    "an empty frame": Mistake(lambda peer: peer.gives(peer.cipher.seal(b"")), BREACH, "an empty frame"),
    "a ping with a payload": Mistake(lambda peer: peer.says(PING, b"\x01"), BREACH, "a ping or pong with a payload"),
}


@pytest.mark.parametrize("mistake", STATUS_MISTAKES.values(), ids=STATUS_MISTAKES)
@pytest.mark.parametrize("dials", [True, False])
def test_a_wrong_status_is_answered_with_its_reason(mistake: Mistake, *, dials: bool) -> None:
    peer = RawPeer.at(Stage.STATUS, is_dialer=dials)
    mistake.does(peer)
    check_end(peer, mistake.reason, mistake.cause, Stage.STATUS)


def test_a_difficulty_over_160_bits_is_a_breach() -> None:
    peer = RawPeer.at(Stage.STATUS, offer=(Capability("eth", 66),))
    peer.says_status(difficulty=1 << 160)
    check_end(peer, BREACH, "161 bits", Stage.STATUS)


def test_a_status_of_1024_bytes_is_long_enough() -> None:
    peer = RawPeer.at(Stage.STATUS)
    peer.says(ETH, status_of(1024))
    assert peer.session.is_held


def test_a_frame_of_2048_bytes_is_awaited_before_the_status() -> None:
    peer = RawPeer.at(Stage.STATUS)
    assert peer.announces(2048) == []
    assert peer.session.stage is Stage.STATUS


def test_pings_and_pongs_may_come_before_the_status() -> None:
    peer = RawPeer.at(Stage.STATUS)
    peer.hears()
    assert peer.says(PONG) + peer.says(PING) == []
    assert peer.hears() == [(PONG, b"\x01\x00\xc0")]
    peer.says_status()
    assert peer.session.is_held


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
    "a second Status": Mistake(lambda peer: peer.says_status(), BREACH, "a second Status"),
    "a code behind the last": Mistake(lambda peer: peer.says(0x10 + 18 + 8), BREACH, "code 0x2a, which no shared"),
    "a code that eth/69 leaves free": Mistake(lambda peer: peer.says(ETH + 0x0B), BREACH, "code 0x1b, which no shared"),
    "a message that eth/66 had": Mistake(lambda peer: peer.says(ETH + 0x0D), BREACH, "code 0x1d, which no shared"),
    "a code over 0x7f": Mistake(lambda peer: peer.says(0xFF), BREACH, "code 0xff, which no shared capability has"),
    "an empty frame": Mistake(lambda peer: peer.gives(peer.cipher.seal(b"")), BREACH, "an empty frame"),
    "a ping with a payload": Mistake(lambda peer: peer.says(PING, encoded([1])), BREACH, "inflates to 2 bytes where 1"),
    "a ping that is no list": Mistake(lambda peer: peer.says(PING, b"\x80"), BREACH, "a ping or pong with a payload"),
    "a ping without Snappy": Mistake(lambda peer: peer.says(PING, is_snappy=False), BREACH, "without a Snappy length"),
    "a pong with a payload": Mistake(lambda peer: peer.says(PONG, encoded([1])), BREACH, "inflates to 2 bytes where 1"),
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
        lambda peer: peer.says(BLOCK_RANGE_UPDATE, encoded([1, 2])), BREACH, "BlockRangeUpdate of 2 fields"
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


@pytest.mark.parametrize("code", [0x00, *range(0x04, 0x10)])
def test_a_reserved_code_is_a_breach(code: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.says(code)
    check_end(peer, BREACH, f"code 0x{code:02x}, which may not come at active", Stage.ACTIVE)


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


def test_an_active_peer_may_send_the_longest_frame() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    assert peer.announces(MAX_FRAME_BYTES) == []


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
    peer = RawPeer.at(Stage.ACTIVE, Recipe(interest=NOBODY))
    assert peer.says(TRANSACTIONS) == []
    # Its length says ten bytes and what follows is no Snappy: whoever inflates it finds out.
    assert peer.says(TRANSACTIONS, b"\x0a\xff\xff", is_snappy=False) == []
    assert [type(event) for event in peer.says(BLOCK_HEADERS, b"\x0a\xff\xff", is_snappy=False)] == [Misconduct]
    assert peer.session.messages_in == 5


@pytest.mark.parametrize("code", [TRANSACTIONS, NEW_BLOCK, BLOCK_HEADERS, SNAP_1.offset + 1])
def test_what_nobody_reads_may_not_be_oversized(code: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE, Recipe(interest=NOBODY))
    assert Closed not in map(type, peer.says(code, says_to_inflate_to(MAX_ETH_BYTES), is_snappy=False))
    peer.says(code, says_to_inflate_to(MAX_ETH_BYTES + 1), is_snappy=False)
    check_end(peer, BREACH, "10485761 bytes", Stage.ACTIVE)


@pytest.mark.parametrize("code", [GET_BLOCK_HEADERS, ETH + 0x05, ETH + 0x09, ETH + 0x0F, SNAP_1.offset])
def test_requests_are_told_whoever_is_interested(code: int) -> None:
    peer = RawPeer.at(Stage.ACTIVE, Recipe(interest=NOBODY))
    [event] = peer.says(code, encoded([7, []]))
    assert isinstance(event, MessageReceived)
    assert (event.kind.code, event.request_id) == (code, 7)


def test_interest_is_asked_for_each_message() -> None:
    interest = {"eth.Transactions": False}
    peer = RawPeer.at(Stage.ACTIVE, Recipe(interest=interest))
    assert peer.says(TRANSACTIONS) == []
    interest["eth.Transactions"] = True
    assert len(peer.says(TRANSACTIONS)) == 1


def test_a_block_range_is_read_whoever_is_interested() -> None:
    peer = RawPeer.at(Stage.ACTIVE, Recipe(interest=NOBODY))
    assert peer.says(BLOCK_RANGE_UPDATE, encoded([5, 2000, b"\x33" * 32])) == []
    assert peer.session.remote_range == (5, 2000, b"\x33" * 32)
    peer.says(BLOCK_RANGE_UPDATE, encoded([5, 4, b"\x33" * 32]))
    check_end(peer, BREACH, "from 5 back to 4", Stage.ACTIVE)


# -- time ---------------------------------------------------------------------------------------------------------------


def test_a_verdict_that_never_comes_is_not_the_peers_fault() -> None:
    peer = RawPeer.at(Stage.VERDICT, TIMED)
    peer.waits(TIMEOUTS.pending)
    closed = peer.closed
    assert (closed.ended_by, closed.reason, closed.cause) == (
        EndedBy.ENGINE,
        DisconnectReason.TOO_MANY_PEERS,
        "no verdict came in time",
    )
    assert peer.goodbye == DisconnectReason.TOO_MANY_PEERS


@pytest.mark.parametrize("stage", [stage for stage in PENDING if stage is not Stage.VERDICT])
def test_a_stage_that_takes_too_long_ends_at_its_deadline(stage: Stage) -> None:
    peer = RawPeer.at(stage, TIMED, is_dialer=is_dialer(stage))
    allowed = TIMEOUTS.handshake if stage in {Stage.AUTH, Stage.ACK} else TIMEOUTS.pending
    has_cipher = stage not in {Stage.AUTH, Stage.ACK}
    if not has_cipher:
        peer.session.outgoing()
    assert peer.session.deadline == peer.clock.now + allowed
    assert peer.waits(allowed - 0.001) == []
    assert peer.session.stage is stage
    peer.waits(0.001)
    check_end(peer, TIMEOUT if has_cipher else None, f"took too long at {stage}", stage)
    assert peer.session.deadline == math.inf
    assert peer.waits(1000) == []


@pytest.mark.parametrize("stage", [Stage.HELLO, Stage.STATUS, Stage.VERDICT])
def test_all_stages_of_a_pending_session_share_one_deadline(stage: Stage) -> None:
    peer = RawPeer(TIMED)
    deadline = peer.clock.now + TIMEOUTS.pending
    peer.waits(2.5)
    for step in (peer.authenticates, peer.says_hello, peer.says_status):
        if peer.session.stage is not stage:
            step()
            peer.waits(1.0)
    assert peer.session.deadline == deadline


def test_an_auth_that_drips_is_not_given_more_time() -> None:
    peer = RawPeer(TIMED)
    auth = peer.opening()
    for byte in auth[:29]:
        assert peer.gives(bytes([byte])) + peer.waits(0.1) == []
    peer.waits(0.2)
    check_end(peer, None, "took too long at auth", Stage.AUTH)


def test_an_active_session_pings_when_its_interval_is_over() -> None:
    peer = RawPeer.at(Stage.ACTIVE, TIMED)
    peer.hears()
    assert peer.session.deadline == peer.clock.now + TIMEOUTS.ping_interval
    assert peer.waits(TIMEOUTS.ping_interval - 0.5) == []
    assert peer.hears() == []
    assert peer.waits(0.5) == []
    assert peer.hears() == [(PING, b"\x01\x00\xc0")]
    assert peer.session.deadline == peer.clock.now + TIMEOUTS.ping


def test_the_interval_starts_with_the_verdict() -> None:
    peer = RawPeer.at(Stage.VERDICT, TIMED)
    peer.waits(2.0)
    peer.is_admitted()
    assert peer.session.deadline == peer.clock.now + TIMEOUTS.ping_interval


def test_a_pong_tells_the_round_trip_and_starts_the_interval_anew() -> None:
    peer = RawPeer.at(Stage.ACTIVE, TIMED)
    peer.waits(TIMEOUTS.ping_interval)
    peer.clock.passes(0.25)
    assert peer.says(PONG) == []
    assert peer.session.rtt_seconds == 0.25
    assert peer.session.deadline == peer.clock.now + TIMEOUTS.ping_interval
    peer.hears()
    assert peer.waits(TIMEOUTS.ping_interval) == []
    assert peer.hears() == [(PING, b"\x01\x00\xc0")]


def test_a_missed_pong_ends_it_at_once() -> None:
    peer = RawPeer.at(Stage.ACTIVE, TIMED)
    peer.waits(TIMEOUTS.ping_interval)
    peer.hears()
    peer.clock.passes(1.0)
    peer.says(TRANSACTIONS)
    assert peer.waits(TIMEOUTS.ping - 1.5) == []
    peer.waits(0.5)
    check_end(peer, TIMEOUT, "no pong within 11 s", Stage.ACTIVE)


def test_a_pong_that_nobody_asked_for_is_ignored() -> None:
    peer = RawPeer.at(Stage.ACTIVE, TIMED)
    deadline = peer.session.deadline
    peer.clock.passes(3.0)
    assert peer.says(PONG) == []
    assert peer.session.rtt_seconds is None
    assert peer.session.deadline == deadline


def test_five_pings_at_once_are_answered_and_a_sixth_is_a_flood() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    for _ in range(5):
        assert peer.says(PING) == []
    assert peer.hears() == [(PONG, b"\x01\x00\xc0")] * 5
    peer.says(PING)
    check_end(peer, BREACH, "pings faster than one a second", Stage.ACTIVE)


def test_a_ping_a_second_goes_on_for_ever() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    for _ in range(50):
        peer.clock.passes(1.0)
        assert peer.says(PING) == []
    assert peer.session.stage is Stage.ACTIVE


def test_pings_before_the_status_are_counted_as_well() -> None:
    peer = RawPeer.at(Stage.STATUS)
    for _ in range(6):
        peer.says(PING)
    check_end(peer, BREACH, "pings faster than one a second", Stage.STATUS)


# -- goodbyes -----------------------------------------------------------------------------------------------------------

SPELLINGS: Final = {
    "a list": (b"\xc1\x04", DisconnectReason.TOO_MANY_PEERS),
    "an integer": (b"\x04", DisconnectReason.TOO_MANY_PEERS),
    "a list with more": (b"\xc3\x04\x81\xff", DisconnectReason.TOO_MANY_PEERS),
    "zero as an integer": (b"\x80", DisconnectReason.DISCONNECT_REQUESTED),
    "zero as a byte": (b"\x00", DisconnectReason.DISCONNECT_REQUESTED),
    "zero in a list": (b"\xc1\x80", DisconnectReason.DISCONNECT_REQUESTED),
    "zero as a byte in a list": (b"\xc1\x00", DisconnectReason.DISCONNECT_REQUESTED),
    "the last reason": (b"\xc1\x10", DisconnectReason.SUBPROTOCOL_ERROR),
    "an empty list": (b"\xc0", None),
    "a reason without a name": (b"\xc1\x0c", None),
    "a large reason": (b"\xc9\x88" + b"\xff" * 8, None),
    "a list in a list": (b"\xc2\xc1\x04", None),
    "broken RLP": (b"\xf9\x01", None),
}


def left(reason: DisconnectReason | None, stage: Stage) -> Closed:
    """The end of a session whose peer left."""
    cause = "the peer left without a reason" if reason is None else "the peer said goodbye"
    return Closed(EndedBy.PEER, reason, cause, stage, severity_of(reason))


@pytest.mark.parametrize(("payload", "reason"), [*SPELLINGS.values(), (b"", None)], ids=[*SPELLINGS, "nothing"])
def test_a_goodbye_before_hello_is_understood_in_every_spelling(payload: bytes, reason: DisconnectReason | None) -> None:
    peer = RawPeer.at(Stage.HELLO)
    peer.says(DISCONNECT, payload, is_snappy=False)
    assert peer.closed == left(reason, Stage.HELLO)
    assert peer.goodbye is None


@pytest.mark.parametrize(("payload", "reason"), SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("stage", [Stage.STATUS, Stage.ACTIVE])
@pytest.mark.parametrize("is_snappy", [True, False])
def test_a_goodbye_after_hello_is_understood_in_every_spelling(
    payload: bytes, reason: DisconnectReason | None, stage: Stage, *, is_snappy: bool
) -> None:
    peer = RawPeer.at(stage)
    assert peer.says(DISCONNECT, payload, is_snappy=is_snappy) == [left(reason, stage)]
    assert peer.goodbye is None


def test_a_goodbye_before_hello_is_not_inflated() -> None:
    peer = RawPeer.at(Stage.HELLO)
    # As it stands this is an integer and rubbish; as Snappy it would be a 4.
    peer.says(DISCONNECT, b"\x01\x00\x04", is_snappy=False)
    assert peer.closed == left(None, Stage.HELLO)


def test_a_goodbye_that_is_a_bomb_is_a_goodbye() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    assert peer.says(DISCONNECT, says_to_inflate_to(0xFFFFFFFF), is_snappy=False) == [left(None, Stage.ACTIVE)]


def test_our_goodbye_is_understood_by_our_own_sessions() -> None:
    pair = Pair()
    pair.establish()
    pair.listener.keep(pair.listener.session.disconnect(DisconnectReason.CLIENT_QUITTING, "bye"))
    pair.exchange()
    assert pair.listener.closed == Closed(EndedBy.US, DisconnectReason.CLIENT_QUITTING, "bye", Stage.ACTIVE)
    assert pair.dialer.closed == left(DisconnectReason.CLIENT_QUITTING, Stage.ACTIVE)


@pytest.mark.parametrize("stage", [*PENDING, Stage.ACTIVE])
def test_a_connection_that_breaks_is_the_network_s_doing(stage: Stage) -> None:
    peer = RawPeer.at(stage, is_dialer=is_dialer(stage))
    peer.gives(b"\x01")
    before = peer.session.stage
    assert peer.session.connection_lost("reset") == [Closed(EndedBy.NETWORK, None, "reset", before)]
    assert peer.session.connection_lost("reset") == []


@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.ACK])
def test_a_connection_that_breaks_before_a_byte_says_so(stage: Stage) -> None:
    session = RawPeer.at(stage, is_dialer=is_dialer(stage)).session
    cause = "eof before it sent a byte"
    assert session.connection_lost("eof") == [Closed(EndedBy.NETWORK, None, cause, stage)]


def test_a_connection_that_we_cut_is_our_doing() -> None:
    session = RawPeer().session
    assert session.connection_lost("too slow", by=EndedBy.US) == [Closed(EndedBy.US, None, "too slow", Stage.AUTH)]


def falls_silent(peer: RawPeer) -> list[Event]:
    """Nothing comes of it any more, though it has read what was sent."""
    events = peer.waits(3600)
    peer.hears()
    return events + peer.waits(3600)


ENDS: Final[dict[str, Callable[[RawPeer], list[Event]]]] = {
    "a breach": lambda peer: peer.says(0x04),
    "a goodbye of the peer": lambda peer: peer.says(DISCONNECT),
    "a goodbye of ours": lambda peer: peer.is_disconnected(DisconnectReason.DISCONNECT_REQUESTED),
    "a lost connection": lambda peer: peer.session.connection_lost("reset"),
    "a stage or a pong that takes too long": falls_silent,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("stage", [Stage.STATUS, Stage.ACTIVE])
def test_nothing_follows_the_end(end: Callable[[RawPeer], list[Event]], stage: Stage) -> None:
    peer = RawPeer.at(stage)
    assert [type(event) for event in end(peer)] == [Closed]
    session = peer.session
    peer.hears()
    figures = session.bytes_in, session.messages_in, session.messages_out
    now = peer.clock.now + 3600
    assert peer.says(PONG) + peer.says(TRANSACTIONS) + peer.says(DISCONNECT) == []
    assert session.admit(now=now) + session.tick(now=now) == []
    assert session.disconnect(DisconnectReason.CLIENT_QUITTING, "again") + session.connection_lost("again") == []
    assert (session.stage, session.is_closed, session.is_held) == (Stage.CLOSED, True, False)
    assert session.outgoing() == b""
    assert figures == (session.bytes_in, session.messages_in, session.messages_out)
    with pytest.raises(NotSharedError):
        session.send("eth", 2, EMPTY_LIST)


def test_what_was_told_does_not_change_afterwards() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    nothing = peer.session.tick(now=peer.clock.now)
    [transactions] = told = peer.says(TRANSACTIONS)
    peer.says(DISCONNECT)
    assert (nothing, told) == ([], [transactions])


def test_nothing_behind_a_goodbye_is_read() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    events = peer.gives(peer.sealed(TRANSACTIONS) + peer.sealed(DISCONNECT, b"\xc1\x08") + peer.sealed(TRANSACTIONS))
    assert [type(event) for event in events] == [MessageReceived, Closed]


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
    session.outgoing()
    with pytest.raises(NotSharedError, match=f"not active but at {stage}"):
        session.send("eth", 0x02, EMPTY_LIST)
    assert session.outgoing() == b""


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
    assert peer.session.outgoing() == b""


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
    assert peer.session.outgoing() == b""


def test_an_answer_that_comes_after_the_end_is_nobody_s() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    [request] = peer.says(GET_BLOCK_HEADERS, encoded([7, []]))
    assert isinstance(request, MessageReceived)
    peer.says(DISCONNECT)
    peer.hears()
    peer.session.answer(request, EMPTY_LIST)
    assert peer.session.outgoing() == b""


# -- the figures --------------------------------------------------------------------------------------------------------


def test_bytes_are_counted_as_they_come_and_go() -> None:
    pair = Pair()
    pair.establish()
    pair.dialer.session.send("eth", 0x02, encoded([b"transaction"]))
    pair.exchange()
    for end, other in (pair.ends, pair.ends[::-1]):
        assert end.session.bytes_out == other.session.bytes_in == len(end.wire.carried)
        assert end.session.outgoing() == b""


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
    assert session.outgoing() != b""
    assert session.outgoing() == b""


# -- cutting and harming the stream -------------------------------------------------------------------------------------


class Recording(NamedTuple):
    """One side of a conversation: who heard it, the bytes that came to it, what it told and what it wrote."""

    recipe: Recipe
    dialled: bytes | None
    stream: bytes
    events: list[Event]
    written: bytes

    def session(self) -> Session:
        """The same session again: its entropy repeats itself."""
        return Session(self.recipe.setup(self.dialled), now=1000.0)


@cache
def recording(side: str) -> Recording:
    """What `side` of a busy conversation heard, to its goodbye."""
    pair = Pair()
    pair.establish()
    for end in pair.ends:
        end.session.send("eth", 0x02, encoded([[b"\x44" * 60]] * 3))
        end.session.send("eth", 0x11, encoded([1, 2000, b"\x55" * 32]))
        end.session.send("eth", 0x03, encoded([77, []]))
        end.session.send("snap", 0x00, encoded([78, b"root"]))
    pair.exchange()
    pair.passes(15.0)
    heard, spoke = pair.ends if side == "dialer" else pair.ends[::-1]
    spoke.session.send("eth", 0x07, encoded([bytes(range(256)) * 2]))
    pair.exchange()
    spoke.keep(spoke.session.disconnect(DisconnectReason.TOO_MANY_PEERS, "enough"))
    pair.exchange()
    assert heard.closed == left(DisconnectReason.TOO_MANY_PEERS, Stage.ACTIVE)
    assert [event.kind.name for event in heard.messages] == [
        "GetBlockHeaders",
        "GetAccountRange",
        "Transactions",
        "BlockRangeUpdate",
        "NewBlock",
    ]
    recipe, dialled = (DIALER, LISTENER.key.id) if side == "dialer" else (LISTENER, None)
    return _answering_only(Recording(recipe, dialled, spoke.wire.carried, heard.events, heard.wire.carried))


def _answering_only(recorded: Recording) -> Recording:
    """The same side as it writes when it only answers: no messages of its own, no pings."""
    end = End(recorded.session(), Wire())
    _play(end, [recorded.stream], verdict_at=0)
    assert end.events == recorded.events
    return recorded._replace(written=end.session.outgoing())


def _play(end: End, chunks: list[bytes], *, verdict_at: int) -> None:
    for index, chunk in enumerate(chunks):
        end.keep(end.session.receive(chunk, now=1000.0))
        if index == verdict_at:
            end.keep(end.session.admit(now=1000.0))


@pytest.mark.parametrize("side", ["dialer", "listener"])
@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 700), min_size=1, max_size=30), verdict_at=st.integers(0, 40))
def test_cutting_the_stream_anywhere_changes_nothing(side: str, cuts: list[int], verdict_at: int) -> None:
    recorded = recording(side)
    end = End(recorded.session(), Wire())
    chunks = list(Wire(cuts).carry(recorded.stream))
    _play(end, chunks, verdict_at=min(verdict_at, len(chunks) - 1))
    assert end.events == recorded.events
    assert end.session.outgoing() == recorded.written


@pytest.mark.parametrize("side", ["dialer", "listener"])
@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 31, 32, 33, 64, 1000])
def test_a_stream_in_chunks_of_one_size_changes_nothing(side: str, size: int) -> None:
    recorded = recording(side)
    end = End(recorded.session(), Wire())
    chunks = list(Wire([size]).carry(recorded.stream))
    _play(end, chunks, verdict_at=0)
    assert end.events == recorded.events
    assert end.session.outgoing() == recorded.written


@settings(deadline=None, max_examples=50)
@given(
    to_listener=st.lists(st.integers(1, 400), min_size=1, max_size=10),
    to_dialer=st.lists(st.integers(1, 400), min_size=1, max_size=10),
)
def test_two_sessions_establish_over_any_cuts(to_listener: list[int], to_dialer: list[int]) -> None:
    pair = Pair(from_dialer=Wire(to_listener), from_listener=Wire(to_dialer))
    pair.establish()
    assert [end.session.stage for end in pair.ends] == [Stage.ACTIVE, Stage.ACTIVE]


@pytest.mark.parametrize("side", ["dialer", "listener"])
def test_a_stream_that_ends_at_any_byte_tells_what_came_whole_and_then_the_end(side: str) -> None:
    recorded = recording(side)
    for size in range(len(recorded.stream)):
        end = End(recorded.session(), Wire())
        _play(end, list(Wire(drop=size).carry(recorded.stream)), verdict_at=0)
        told = len(end.events)
        assert end.events == recorded.events[:told], size
        end.keep(end.session.connection_lost("eof"))
        assert end.closed.ended_by is EndedBy.NETWORK, size
        end.keep(end.session.receive(recorded.stream[size:], now=1000.0))
        assert len(end.events) == told + 1, size


@pytest.mark.parametrize("side", ["dialer", "listener"])
def test_a_stream_harmed_at_any_byte_tells_what_came_before_and_never_more(side: str) -> None:
    recorded = recording(side)
    for at in range(len(recorded.stream)):
        end = End(recorded.session(), Wire())
        _play(end, list(Wire(flip=at).carry(recorded.stream)), verdict_at=0)
        told = end.events[:-1] if end.session.is_closed else end.events
        assert told == recorded.events[: len(told)], at
        assert len(told) < len(recorded.events), at
        # Only a size that grew leaves it waiting, for bytes that do not come: all else is found out.
        assert end.session.is_closed or at < 2, at
        if end.session.is_closed:
            assert (end.closed.ended_by, end.closed.reason) == (EndedBy.US, None), at
        end.keep(end.session.receive(recorded.stream[at:], now=1000.0))


def test_a_session_that_hears_a_harmed_byte_never_becomes_active() -> None:
    clean = Pair()
    clean.establish()
    for at in range(0, len(clean.dialer.wire.carried), 7):
        pair = Pair(from_dialer=Wire(flip=at))
        pair.establish()
        assert pair.listener.session.stage is not Stage.ACTIVE, at


# -- our block range ----------------------------------------------------------------------------------------------------

BLOCK_RANGE: Final = ETH + 0x11


def ranges(peer: RawPeer, seconds: float) -> list[bytes]:
    """Let time pass up to each deadline, answer every ping, and give the block ranges that were told."""
    told: list[bytes] = []
    ends_at = peer.clock.now + seconds
    while peer.session.deadline <= ends_at:
        peer.waits(peer.session.deadline - peer.clock.now)
        for code, payload in peer.hears():
            if code == PING:
                peer.says(PONG, EMPTY_LIST)
            elif code == BLOCK_RANGE:
                told.append(inflate(payload, 100))
    peer.waits(ends_at - peer.clock.now)
    return told


def test_our_range_is_told_every_384_seconds_when_it_has_moved_by_32_blocks() -> None:
    known = LocalRange()
    peer = RawPeer.at(Stage.ACTIVE, Recipe(range=known))
    number = CHAIN.head.number
    assert ranges(peer, 400) == []
    known.head = Head(number + 31, b"\x44" * 32)
    assert ranges(peer, 400) == []
    known.head = Head(number + 32, b"\x55" * 32, earliest=7)
    assert ranges(peer, 400) == [encoded([7, number + 32, b"\x55" * 32])]
    assert ranges(peer, 400) == []
    known.head = Head(number + 63, b"\x66" * 32)
    assert ranges(peer, 400) == []
    known.head = Head(number + 64, b"\x66" * 32)
    assert ranges(peer, 400) == [encoded([0, number + 64, b"\x66" * 32])]
    known.head = Head(number, b"\x77" * 32)
    assert ranges(peer, 400) == []


def test_below_eth_69_no_range_is_told() -> None:
    recipe = Recipe(protocols=(eth.sub_protocol(68),), range=LocalRange(Head(10_000_000, b"\x44" * 32)))
    assert ranges(RawPeer.at(Stage.ACTIVE, recipe, offer=(Capability("eth", 68),)), 1000) == []


@pytest.mark.parametrize("code", [ETH + 0x01, NEW_BLOCK])
def test_block_gossip_is_a_breach_where_the_chain_is_proof_of_stake(code: int) -> None:
    chain = msgspec.structs.replace(CHAIN, refuses_blocks=True)
    peer = RawPeer.at(Stage.ACTIVE, Recipe(chain=chain, interest=NOBODY))
    peer.says(code)
    check_end(peer, BREACH, "on a chain of proof of stake", Stage.ACTIVE)


# -- sub-protocols beside eth -------------------------------------------------------------------------------------------

WIT: Final = SubProtocol(Capability("wit", 0), 4)
WITH_WIT: Final = (Capability("eth", 69), Capability("wit", 0))


def beside(**recipe: object) -> Recipe:
    """A session that speaks eth/69 and a sub-protocol of the user's; the latter's codes follow eth's."""
    return Recipe(protocols=(eth.sub_protocol(69), WIT), **recipe)  # type: ignore[arg-type]  # a test knows its fields


def test_what_other_capabilities_send_before_the_status_comes_after_it_is_established() -> None:
    peer = RawPeer.at(Stage.STATUS, beside(), offer=WITH_WIT)
    assert peer.says(ETH + 18 + 2, b"\xc1\x05") == []
    assert peer.says(ETH + 18 + 3, b"\xc1\x06") == []
    peer.says_status()
    established, *messages = peer.is_admitted()
    assert isinstance(established, Established)
    assert [(m.kind.topic, m.payload) for m in messages if isinstance(m, MessageReceived)] == [
        ("wit.2", b"\xc1\x05"),
        ("wit.3", b"\xc1\x06"),
    ]


def test_what_comes_early_is_bounded() -> None:
    peer = RawPeer.at(Stage.STATUS, beside(), offer=WITH_WIT)
    message = bytes([ETH + 18]) + bytes(1023)
    for _ in range(MAX_EARLY_BYTES // len(message)):
        assert peer.gives(peer.cipher.seal(message)) == []
    peer.gives(peer.cipher.seal(bytes([ETH + 18])))
    check_end(peer, BREACH, "over 65536 bytes of other capabilities before the eth Status", Stage.STATUS)


def test_what_came_early_is_let_go_of_once_it_was_told() -> None:
    peer = RawPeer.at(Stage.STATUS, beside(), offer=WITH_WIT)
    for _ in range(30):
        peer.says(ETH + 18, seeded(1)(1900))
    peer.says_status()
    assert held_bytes(peer.session) > 30 * 1900
    assert len(peer.is_admitted()) == 31
    assert held_bytes(peer.session) < 30 * 1900


def test_what_comes_early_may_be_a_breach() -> None:
    peer = RawPeer.at(Stage.STATUS, beside(), offer=WITH_WIT)
    peer.says(ETH + 18, b"\x09garbage", is_snappy=False)
    peer.says_status()
    assert [type(event) for event in peer.is_admitted()] == [Established, Closed]
    check_end(peer, BREACH, "not Snappy", Stage.ACTIVE)


def test_nothing_is_told_of_the_capabilities_of_a_peer_that_never_becomes_active() -> None:
    peer = RawPeer.at(Stage.STATUS, beside(), offer=WITH_WIT)
    peer.says(ETH + 18, b"\xc1\x05")
    peer.says_status()
    peer.says(ETH + 18, b"\xc1\x06")
    assert [type(event) for event in peer.is_disconnected(DisconnectReason.ALREADY_CONNECTED)] == [Closed]


@pytest.mark.parametrize("dials", [True, False])
def test_nothing_is_told_of_the_capabilities_of_a_peer_that_lies_about_its_id(*, dials: bool) -> None:
    peer = RawPeer.at(Stage.HELLO, beside(), is_dialer=dials, offer=WITH_WIT)
    assert peer.is_admitted() == []
    offer: Rlp = [[b"eth", 69], [b"wit", 0]]
    hello = peer.sealed(HELLO, encoded([5, b"", offer, 0, key(5).id]), is_snappy=False)
    events = peer.gives(hello + peer.sealed(ETH + 18) + peer.sealed(ETH, encoded(list(status_fields(69).values()))))
    assert [type(event) for event in events] == [Authenticated, Closed]
    assert peer.session.peer == peer.key.id
    check_end(peer, DisconnectReason.UNEXPECTED_IDENTITY, "another node id", Stage.HELLO)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"genesis": b"\x01" * 32}, OTHER_CHAIN), ({"earliest": 1001}, BREACH), ({"head": bytes(32)}, BREACH)],
)
def test_a_wrong_status_beside_another_capability_is_answered_with_its_reason(
    changes: dict[str, Rlp], reason: DisconnectReason
) -> None:
    peer = RawPeer.at(Stage.STATUS, beside(), offer=WITH_WIT)
    peer.says_status(**changes)
    assert (peer.closed.reason, peer.goodbye) == (reason, reason)


def test_a_capability_that_is_required_and_not_shared_makes_a_peer_useless() -> None:
    node = Recipe(protocols=(eth.sub_protocol(69), WIT), required=frozenset({"wit"}))
    peer = RawPeer.at(Stage.HELLO, node, offer=(Capability("eth", 69),))
    peer.says_hello()
    check_end(peer, DisconnectReason.USELESS_PEER, "no shared version of wit", Stage.HELLO)
    RawPeer.at(Stage.ACTIVE, node, offer=WITH_WIT)


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
    peer = RawPeer.at(Stage.ACTIVE, Recipe(queue_bytes=1024))
    peer.hears()
    peer.session.send("eth", 0x04, seeded(1)(900))
    with pytest.raises(QueueFullError):
        peer.session.send("eth", 0x04, seeded(1)(900))


def test_as_much_is_sealed_as_there_is_room() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.hears()
    for _ in range(3):
        peer.session.send("eth", 0x02, encoded([bytes(range(100))]))
    first = peer.session.outgoing(1)
    assert [code for code, _ in peer.opens(first)] == [TRANSACTIONS]
    assert peer.session.has_outgoing
    assert peer.session.outgoing(0) == b""
    assert [code for code, _ in peer.hears()] == [TRANSACTIONS] * 2
    assert not peer.session.has_outgoing


def test_what_does_not_fit_is_refused_and_the_request_was_never_asked() -> None:
    peer = RawPeer.at(Stage.ACTIVE, Recipe(queue_bytes=1024))
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
