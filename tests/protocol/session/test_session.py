"""A session, as its peer and its driver meet it: every stage, every rule of a stage, every way to end."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.protocol.errors import DisconnectReason, HandshakeError, NotSharedError, severity_of
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.kinds import BYTES_IN, BYTES_OUT, CODES, OUT
from rlpx.protocol.eth.status import Head, LocalRange
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage
from rlpx.protocol.rlpx.capabilities import Capability, SubProtocol
from rlpx.protocol.rlpx.p2p import Hello, inflate
from rlpx.protocol.session.events import (
    Authenticated,
    Closed,
    Established,
    Event,
    MessageReceived,
    Misconduct,
)
from rlpx.protocol.session.sending import Multicast
from rlpx.protocol.session.session import MAX_EARLY_BYTES, Session
from tests.generated import examples
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
    Rlp,
    SessionSpec,
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
from tests.protocol.session.checks import (
    BLOCK_RANGE_UPDATE,
    BREACH,
    ETH_69,
    GET_BLOCK_HEADERS,
    MAX_FRAME_BYTES,
    NEW_BLOCK,
    OTHER_CHAIN,
    PENDING,
    SNAP_1,
    TIMED,
    TIMEOUTS,
    TRANSACTIONS,
    Mistake,
    check_end,
    is_dialer,
    offering,
)

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
    assert (pair.dialer.session.direction, pair.listener.session.direction) == (Direction.OUTBOUND, Direction.INBOUND)


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
    peer = RawPeer.at(Stage.STATUS, SessionSpec(wall_seconds=70))
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
        offering("eth/66", "eth/68", "eth/69"),
        SessionSpec(seed=2, protocols=offering("eth/67", "eth/68", "eth/72").protocols),
    )
    pair.establish()
    assert [str(item.capability) for item in pair.dialer.established.shared] == ["eth/68"]


def test_a_capability_before_eth_in_the_alphabet_moves_its_codes() -> None:
    recipe = SessionSpec(protocols=(*offering("snap/1", "eth/68").protocols, SubProtocol(Capability("aaa", 1), 3)))
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
    check_end(peer, BREACH, "Status: a second one", Stage.ACTIVE)


def test_a_user_s_capability_has_the_limit_of_the_frame_alone() -> None:
    recipe = SessionSpec(protocols=(*DIALER.protocols, SubProtocol(Capability("zzz", 1), 1)), interest=NOBODY)
    peer = RawPeer.at(Stage.ACTIVE, recipe, offer=(Capability("eth", 66), Capability("zzz", 1)))
    assert peer.says(0x21, says_to_inflate_to(MAX_FRAME_BYTES), is_snappy=False) == []
    peer.says(0x21, says_to_inflate_to(MAX_FRAME_BYTES + 1), is_snappy=False)
    check_end(peer, BREACH, "16777216 bytes", Stage.ACTIVE)


def test_whom_an_initiator_dials_is_known_from_the_start() -> None:
    peer = RawPeer(is_dialer=False)
    assert (peer.session.stage, peer.session.peer, peer.session.direction) == (Stage.ACK, peer.key.id, Direction.OUTBOUND)
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
    peer.gives(peer.sealed(PING, bytes(17)) + peer.sealed(TRANSACTIONS))
    events = peer.is_admitted()
    assert [type(event) for event in events] == [Established, MessageReceived, Closed]
    check_end(peer, BREACH, "inflates to 17 bytes", Stage.ACTIVE)


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
    peer.session.data_to_send()
    closed = Closed(EndedBy.US, None, "told to", stage)
    assert peer.is_disconnected(DisconnectReason.CLIENT_QUITTING) == [closed]
    assert peer.session.data_to_send() == b""


def test_an_end_says_who_decided_it() -> None:
    session = RawPeer.at(Stage.ACTIVE).session
    reason = DisconnectReason.CLIENT_QUITTING
    assert session.disconnect(reason, "bye", by=EndedBy.ENGINE) == [Closed(EndedBy.ENGINE, reason, "bye", Stage.ACTIVE)]


# -- a refusal from the start -------------------------------------------------------------------------------------------


def test_a_refusal_stands_uncompressed_in_the_place_of_hello() -> None:
    peer = RawPeer(SessionSpec(refusal=DisconnectReason.TOO_MANY_PEERS))
    events = peer.authenticates()
    refused = Closed(EndedBy.US, DisconnectReason.TOO_MANY_PEERS, "refused before Hello", Stage.HELLO)
    assert events[-1] == refused
    assert peer.heard == [(DISCONNECT, b"\xc1\x04")]
    assert peer.says_hello() == []
    assert peer.hears() == []


def test_a_refusal_is_understood_by_our_own_sessions() -> None:
    pair = Pair(DIALER, SessionSpec(seed=2, refusal=DisconnectReason.TOO_MANY_PEERS))
    pair.establish()
    assert pair.dialer.closed == Closed(EndedBy.PEER, DisconnectReason.TOO_MANY_PEERS, "the peer said goodbye", Stage.HELLO)


def test_garbage_behind_the_auth_of_a_refused_peer_changes_nothing() -> None:
    peer = RawPeer(SessionSpec(refusal=DisconnectReason.TOO_MANY_PEERS))
    peer.gives(peer.opening() + bytes(64))
    assert (peer.closed.ended_by, peer.closed.reason) == (EndedBy.US, DisconnectReason.TOO_MANY_PEERS)


def test_a_hello_behind_the_ack_of_a_refused_peer_changes_nothing() -> None:
    peer = RawPeer(SessionSpec(refusal=DisconnectReason.TOO_MANY_PEERS), is_dialer=False)
    peer.gives(peer.opening() + peer.sealed(HELLO))
    assert (peer.closed.ended_by, peer.closed.reason) == (EndedBy.US, DisconnectReason.TOO_MANY_PEERS)
    assert peer.goodbye == DisconnectReason.TOO_MANY_PEERS


def test_a_refused_peer_that_says_nothing_has_no_more_time_than_others() -> None:
    peer = RawPeer(msgspec.structs.replace(TIMED, refusal=DisconnectReason.TOO_MANY_PEERS))
    assert peer.waits(TIMEOUTS.handshake_s - 0.001) == []
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
    peer.session.data_to_send()
    assert peer.gives(bytes(packet)) == [Closed(EndedBy.US, None, "an ECIES message with a wrong tag", stage)]
    assert peer.session.data_to_send() == b""


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


HELLO_MISTAKES: Final = {
    "no id": Mistake(lambda peer: peer.says_hello(node_id=b""), DisconnectReason.INVALID_IDENTITY, "Hello.node_id: "),
    "a null id": Mistake(
        lambda peer: peer.says_hello(node_id=bytes(64)), DisconnectReason.INVALID_IDENTITY, "Hello.node_id: "
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


def test_a_cause_that_quotes_a_long_hello_is_kept_short() -> None:
    peer = RawPeer.at(Stage.HELLO)
    peer.says_hello(offer=[[b"\xff" * 40, version] for version in range(40)])
    closed = peer.events[-1]
    assert isinstance(closed, Closed)
    assert closed.cause.startswith("no shared version of eth; the peer offers ")
    assert (len(closed.cause), closed.cause[-3:]) == (128, "...")


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
    pair = Pair(SessionSpec(hello=msgspec.structs.replace(truth, node_id=key(5).id)))
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
    "an empty frame": Mistake(lambda peer: peer.gives(peer.cipher.seal(b"")), BREACH, "an empty frame"),
    "a ping of 17 bytes": Mistake(lambda peer: peer.says(PING, bytes(17)), BREACH, "inflates to 17 bytes where 16"),
}


@pytest.mark.parametrize("mistake", STATUS_MISTAKES.values(), ids=STATUS_MISTAKES)
@pytest.mark.parametrize("dials", [True, False])
def test_a_wrong_status_is_answered_with_its_reason(mistake: Mistake, *, dials: bool) -> None:
    peer = RawPeer.at(Stage.STATUS, is_dialer=dials)
    mistake.does(peer)
    check_end(peer, mistake.reason, mistake.cause, Stage.STATUS)


CAUSES: Final = {
    # Stage, what the peer says, and the whole cause.
    "a Hello": (Stage.HELLO, HELLO, [5, b"x", [[b"eth"]], 0, b"\x01" * 64], "Hello.capabilities: a capability without name"),
    "a Hello's version": (
        Stage.HELLO,
        HELLO,
        [[], b"x", [], 0, b"\x01" * 64],
        "Hello.version: a list where a string belongs",
    ),
    "a Hello's port": (
        Stage.HELLO,
        HELLO,
        [5, b"x", [], [], b"\x01" * 64],
        "Hello.listen_port: a list where a string belongs",
    ),
    "a Hello's client": (Stage.HELLO, HELLO, [5, [], [], 0, b"\x01" * 64], "Hello.client: a list where a string belongs"),
    "a Status": (Stage.STATUS, ETH, b"abc", "Status: a string where a list belongs"),
    "a Status's genesis": (
        Stage.STATUS,
        ETH,
        [69, 1, b"", [b"1234", 0], 1, 2, b"1" * 32],
        "Status.genesis: a string of 0 bytes",
    ),
    "a Status's fork id": (
        Stage.STATUS,
        ETH,
        [69, 1, b"1" * 32, [b"1", 0], 1, 2, b"1" * 32],
        "Status.fork_id: a string of 1 ",
    ),
    "a request": (Stage.ACTIVE, GET_BLOCK_HEADERS, b"abc", "GetBlockHeaders: a string where a list belongs"),
    "a request id": (Stage.ACTIVE, GET_BLOCK_HEADERS, [[]], "GetBlockHeaders.request_id: a list where an integer belongs"),
    "a block range": (
        Stage.ACTIVE,
        BLOCK_RANGE_UPDATE,
        [1, [], b"1"],
        "BlockRangeUpdate.latest: a list where a string belongs",
    ),
    "a block range's hash": (
        Stage.ACTIVE,
        BLOCK_RANGE_UPDATE,
        [1, 2, b"1"],
        "BlockRangeUpdate.latest_hash: a string of 1 bytes",
    ),
    "a snap message": (Stage.ACTIVE, SNAP_1.offset, b"abc", "GetAccountRange: a string where a list belongs"),
}


@pytest.mark.parametrize(("stage", "code", "item", "cause"), CAUSES.values(), ids=CAUSES)
def test_a_cause_names_the_message_and_the_field(stage: Stage, code: int, item: Rlp, cause: str) -> None:
    peer = RawPeer.at(stage)
    peer.says(code, encoded(item), is_snappy=code != HELLO)
    assert peer.closed.cause.startswith(cause)


def test_what_is_no_snappy_names_the_message_as_well() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    peer.says(TRANSACTIONS, b"\x09garbage", is_snappy=False)
    assert peer.closed.cause == "Transactions: a payload that is not Snappy"


def test_a_peer_without_snappy_is_refused_in_a_form_that_it_can_read() -> None:
    peer = RawPeer.at(Stage.HELLO)
    peer.says_hello(version=4)
    assert peer.hears()[-1] == (DISCONNECT, encoded([DisconnectReason.INCOMPATIBLE_VERSION]))


FOREIGN: Final = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP in place of a handshake packet"),
    "a JSON-RPC call": (b"POST / HTTP/1.1\r\n", "HTTP in place of a handshake packet"),
    "an HTTP answer": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP in place of a handshake packet"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS in place of a handshake packet"),
    "a TLS alert": (b"\x15\x03\x03\x00\x02\x02\x32", "TLS in place of a handshake packet"),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH in place of a handshake packet"),
    "PROXY 1": (b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 30303\r\n", "a PROXY protocol header"),
    "PROXY 2": (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12), "a PROXY protocol header in place of"),
    "an auth before EIP-8": (b"\x04" + seeded(4)(306), "a handshake packet in the form before EIP-8"),
    "an ack before EIP-8": (b"\x04" + seeded(5)(209), "a handshake packet in the form before EIP-8"),
    "noise": (b"\x01\x80" + seeded(6)(100), "a handshake packet that starts with no point"),
}


@pytest.mark.parametrize(("data", "cause"), FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.ACK])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_another_protocol_in_the_handshake_s_place_is_named_however_it_is_cut(
    data: bytes, cause: str, stage: Stage, size: int
) -> None:
    peer = RawPeer(is_dialer=is_dialer(stage))
    for start in range(0, len(data), size):
        peer.gives(data[start : start + size])
    assert peer.closed.cause.startswith(cause)
    assert (peer.closed.reason, peer.closed.stage) == (None, stage)


@pytest.mark.parametrize("stage", [Stage.AUTH, Stage.ACK])
@pytest.mark.parametrize("length", [307, 210])
def test_an_old_packet_whose_third_byte_could_be_a_new_one_s_is_guessed_by_its_length(stage: Stage, length: int) -> None:
    data = b"\x04\xff\x04" + bytes(length - 3)
    hint = ": what it sent has the length of a handshake packet in the form before EIP-8"
    patient, gone = RawPeer(TIMED, is_dialer=is_dialer(stage)), RawPeer(TIMED, is_dialer=is_dialer(stage))
    assert patient.gives(data) == gone.gives(data) == []
    patient.waits(TIMEOUTS.handshake_s)
    assert patient.closed.cause == f"the peer took too long at {stage}{hint}"
    [closed] = gone.session.connection_lost("eof")
    assert isinstance(closed, Closed)
    assert closed.cause == f"eof{hint}"


def test_a_dialled_peer_that_says_nothing_may_be_another() -> None:
    peer = RawPeer(TIMED, is_dialer=False)
    peer.waits(TIMEOUTS.handshake_s)
    help_ = "it may have another id than the one dialled, or refuse us"
    assert peer.closed.cause == f"the peer took too long at ack before it sent a byte: {help_}"


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
    "a reason without a name": (b"\xc1\x11", DisconnectReason(0x11)),
    "a large reason": (b"\xc9\x88" + b"\xff" * 8, DisconnectReason((1 << 64) - 1)),
    "a list in a list": (b"\xc2\xc1\x04", DisconnectReason.TOO_MANY_PEERS),
    "bytes behind the list": (b"\xc1\x04\x00", DisconnectReason.TOO_MANY_PEERS),
    "broken RLP": (b"\xf9\x01", None),
}


def left(reason: DisconnectReason | None, stage: Stage, payload: bytes = b"") -> Closed:
    """The end of a session whose peer left, with this payload where that gives no reason."""
    if reason is not None and reason.is_known:
        cause = "the peer said goodbye"
    elif reason is not None:
        cause = f"the peer left with reason 0x{reason:x}, which is unknown"
    elif payload in {b"", b"\xc0"}:
        cause = "the peer left without a reason"
    else:
        cause = f"the peer left with a Disconnect that cannot be read: 0x{payload.hex()}"
    return Closed(EndedBy.PEER, reason, cause, stage, severity_of(reason))


@pytest.mark.parametrize(("payload", "reason"), [*SPELLINGS.values(), (b"", None)], ids=[*SPELLINGS, "nothing"])
def test_a_goodbye_before_hello_is_understood_in_every_spelling(payload: bytes, reason: DisconnectReason | None) -> None:
    peer = RawPeer.at(Stage.HELLO)
    peer.says(DISCONNECT, payload, is_snappy=False)
    assert peer.closed == left(reason, Stage.HELLO, payload)
    assert peer.goodbye is None


@pytest.mark.parametrize(("payload", "reason"), SPELLINGS.values(), ids=SPELLINGS)
def test_a_goodbye_before_hello_may_be_deflated(payload: bytes, reason: DisconnectReason | None) -> None:
    peer = RawPeer.at(Stage.HELLO)
    peer.says(DISCONNECT, payload)
    assert peer.closed == left(reason, Stage.HELLO, payload)
    assert peer.goodbye is None


@pytest.mark.parametrize(("payload", "reason"), SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("stage", [Stage.STATUS, Stage.ACTIVE])
@pytest.mark.parametrize("is_snappy", [True, False])
def test_a_goodbye_after_hello_is_understood_in_every_spelling(
    payload: bytes, reason: DisconnectReason | None, stage: Stage, *, is_snappy: bool
) -> None:
    peer = RawPeer.at(stage)
    assert peer.says(DISCONNECT, payload, is_snappy=is_snappy) == [left(reason, stage, payload)]
    assert peer.goodbye is None


def test_a_goodbye_that_is_a_bomb_is_a_goodbye() -> None:
    peer = RawPeer.at(Stage.ACTIVE)
    bomb = says_to_inflate_to(0xFFFFFFFF)
    assert peer.says(DISCONNECT, bomb, is_snappy=False) == [left(None, Stage.ACTIVE, bomb)]


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
    help_ = ": it may have another id than the one dialled, or refuse us" if stage is Stage.ACK else ""
    cause = f"eof before it sent a byte{help_}"
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
    "a breach": lambda peer: peer.says(0x00),
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
    assert session.approve(now=now) + session.tick(now=now) == []
    assert session.disconnect(DisconnectReason.CLIENT_QUITTING, "again") + session.connection_lost("again") == []
    assert (session.stage, session.is_closed, session.is_held) == (Stage.CLOSED, True, False)
    assert session.data_to_send() == b""
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


# -- cutting and harming the stream -------------------------------------------------------------------------------------


class Recording(NamedTuple):
    """One side of a conversation: who heard it, the bytes that came to it, what it told and what it wrote."""

    recipe: SessionSpec
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
    return recorded._replace(written=end.session.data_to_send())


def _play(end: End, chunks: list[bytes], *, verdict_at: int) -> None:
    for index, chunk in enumerate(chunks):
        end.keep(end.session.receive(chunk, now=1000.0))
        if index == verdict_at:
            end.keep(end.session.approve(now=1000.0))


@pytest.mark.parametrize("side", ["dialer", "listener"])
@given(cuts=st.lists(st.integers(1, 700), min_size=1, max_size=30), verdict_at=st.integers(0, 40))
def test_cutting_the_stream_anywhere_changes_nothing(side: str, cuts: list[int], verdict_at: int) -> None:
    recorded = recording(side)
    end = End(recorded.session(), Wire())
    chunks = list(Wire(cuts).carry(recorded.stream))
    _play(end, chunks, verdict_at=min(verdict_at, len(chunks) - 1))
    assert end.events == recorded.events
    assert end.session.data_to_send() == recorded.written


@pytest.mark.parametrize("side", ["dialer", "listener"])
@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 31, 32, 33, 64, 1000])
def test_a_stream_in_chunks_of_one_size_changes_nothing(side: str, size: int) -> None:
    recorded = recording(side)
    end = End(recorded.session(), Wire())
    chunks = list(Wire([size]).carry(recorded.stream))
    _play(end, chunks, verdict_at=0)
    assert end.events == recorded.events
    assert end.session.data_to_send() == recorded.written


@examples(50)
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
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(range=known))
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
    recipe = SessionSpec(protocols=(eth.sub_protocol(68),), range=LocalRange(Head(10_000_000, b"\x44" * 32)))
    assert ranges(RawPeer.at(Stage.ACTIVE, recipe, offer=(Capability("eth", 68),)), 1000) == []


@pytest.mark.parametrize("code", [ETH + 0x01, NEW_BLOCK])
def test_block_gossip_is_a_breach_where_the_chain_is_proof_of_stake(code: int) -> None:
    chain = msgspec.structs.replace(CHAIN, refuses_blocks=True)
    peer = RawPeer.at(Stage.ACTIVE, SessionSpec(chain=chain, interest=NOBODY))
    peer.says(code)
    check_end(peer, BREACH, "on a chain of proof of stake", Stage.ACTIVE)


# -- how long the stages take -------------------------------------------------------------------------------------------


def test_each_stage_that_is_passed_is_told_with_the_time_it_took() -> None:
    passed: list[tuple[Direction, Stage, float]] = []
    peer = RawPeer(SessionSpec(on_passed=lambda *stage: passed.append(stage)))
    for seconds, step in (
        (0.5, peer.authenticates),
        (1.0, peer.says_hello),
        (1.5, peer.says_status),
        (0.25, peer.is_admitted),
    ):
        peer.waits(seconds)
        step()
    assert passed == [
        (Direction.INBOUND, Stage.AUTH, 0.5),
        (Direction.INBOUND, Stage.HELLO, 1.0),
        (Direction.INBOUND, Stage.STATUS, 1.5),
        (Direction.INBOUND, Stage.VERDICT, 0.25),
    ]


def test_the_end_passes_no_stage_and_a_refused_peer_passes_none_at_all() -> None:
    passed: list[Stage] = []
    recipe = SessionSpec(on_passed=lambda _direction, stage, _seconds: passed.append(stage))
    peer = RawPeer.at(Stage.STATUS, recipe)
    peer.is_disconnected(DisconnectReason.TOO_MANY_PEERS)
    assert passed == [Stage.AUTH, Stage.HELLO]
    refused = RawPeer(msgspec.structs.replace(recipe, refusal=DisconnectReason.TOO_MANY_PEERS))
    refused.authenticates()
    assert refused.session.is_closed
    assert passed == [Stage.AUTH, Stage.HELLO]


# -- sub-protocols beside eth -------------------------------------------------------------------------------------------

WIT: Final = SubProtocol(Capability("wit", 0), 4)
WITH_WIT: Final = (Capability("eth", 69), Capability("wit", 0))


def beside(**recipe: object) -> SessionSpec:
    """A session that speaks eth/69 and a sub-protocol of the user's; the latter's codes follow eth's."""
    return SessionSpec(protocols=(eth.sub_protocol(69), WIT), **recipe)  # type: ignore[arg-type]  # a test knows its fields


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


def counted(peer: RawPeer, *, are_out: bool) -> dict[int, int]:
    """The messages by code of a table that no other test uses."""
    assert peer.session.shared is not None
    counters = peer.session.shared.counters
    start = OUT if are_out else 0
    return {code: counters[start + code] for code in range(CODES) if counters[start + code]}


def test_every_message_is_counted_once_in_the_table_that_sessions_share() -> None:
    spec = SessionSpec(protocols=(eth.sub_protocol(69), SubProtocol(Capability("wit", 7), 4)))
    peer = RawPeer.at(Stage.STATUS, spec, offer=(Capability("eth", 69), Capability("wit", 7)))
    peer.says(ETH + 18 + 2, b"\xc1\x05")
    peer.says_status()
    peer.is_admitted()
    for _ in range(3):
        peer.says(TRANSACTIONS, encoded([]))
    peer.says(PING)
    peer.session.send("wit", 1, b"\xc0")
    peer.hears()
    assert counted(peer, are_out=False) == {HELLO: 1, ETH: 1, ETH + 18 + 2: 1, TRANSACTIONS: 3, PING: 1}
    assert counted(peer, are_out=True) == {HELLO: 1, ETH: 1, ETH + 18 + 1: 1, PONG: 1}
    assert sum(counted(peer, are_out=False).values()) == peer.session.messages_in
    assert sum(counted(peer, are_out=True).values()) == peer.session.messages_out


def test_the_bytes_of_messages_are_those_of_their_frames_contents() -> None:
    spec = SessionSpec(protocols=(eth.sub_protocol(69), SubProtocol(Capability("wit", 8), 4)))
    offer = (Capability("eth", 69), Capability("wit", 8))
    dialer, listener = (RawPeer.at(Stage.ACTIVE, spec, offer=offer) for _ in range(2))
    table = dialer.session.shared
    assert table is not None
    assert table is listener.session.shared
    payload = encoded([b"transaction" * 9])
    for peer in (dialer, listener):
        peer.says(TRANSACTIONS, payload)
        peer.session.send("eth", 2, payload)
        peer.hears()
    size = 1 + len(snappied(payload))
    assert (table.counters[BYTES_IN + TRANSACTIONS], table.counters[BYTES_OUT + TRANSACTIONS]) == (2 * size, 2 * size)


def test_a_message_that_ends_the_session_is_counted_too() -> None:
    spec = SessionSpec(protocols=(eth.sub_protocol(69), SubProtocol(Capability("wit", 9), 4)))
    peer = RawPeer.at(Stage.ACTIVE, spec, offer=(Capability("eth", 69), Capability("wit", 9)))
    table = peer.session.shared
    assert table is not None
    peer.says(TRANSACTIONS, b"\x09garbage", is_snappy=False)
    assert peer.session.is_closed
    assert (table.counters[TRANSACTIONS], table.counters[OUT + DISCONNECT]) == (1, 1)


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
    node = SessionSpec(protocols=(eth.sub_protocol(69), WIT), required=frozenset({"wit"}))
    peer = RawPeer.at(Stage.HELLO, node, offer=(Capability("eth", 69),))
    peer.says_hello()
    check_end(peer, DisconnectReason.USELESS_PEER, "no shared version of wit", Stage.HELLO)
    RawPeer.at(Stage.ACTIVE, node, offer=WITH_WIT)
