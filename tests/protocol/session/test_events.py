"""The words of the interface, and the events of two sessions that talk to each other from first byte to end."""

from __future__ import annotations

from itertools import count

import orjson

from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.forkid import Chain, Forks
from rlpx.protocol.eth.status import Head, LocalChain, LocalRange, local_status
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage
from rlpx.protocol.rlpx.capabilities import Capability, Shared
from rlpx.protocol.rlpx.crypto import PrivateKey, keccak256
from rlpx.protocol.rlpx.p2p import Hello
from rlpx.protocol.session.events import Authenticated, Closed, Established, Event, MessageReceived
from rlpx.protocol.session.session import Session
from rlpx.protocol.session.setup import LocalNode, Setup

NOW = 1000.0
CHAIN = LocalChain(7, b"\xab" * 32, Forks(Chain("mine", 7, "ab" * 32)), Head(5, b"\xcd" * 32, time=50))
PROTOCOLS = (eth.sub_protocol(69),)
TRANSACTIONS = b"\xc1\xc0"
GET_HEADERS = bytes.fromhex("ca820457c682270f050580")


def node(name: str) -> LocalNode:
    """A peer that reads transactions; its randomness follows from its name."""
    key = PrivateKey(keccak256(name.encode()))
    draws = count()

    def entropy(size: int) -> bytes:
        return b"".join(keccak256(f"{name} {next(draws)}".encode()) for _ in range(-(-size // 32)))[:size]

    hello = Hello(name, tuple(protocol.capability for protocol in PROTOCOLS), 30303, key.id)
    topics = [f"{tap}eth.{kind.name}" for kind in eth.MESSAGES for tap in ("", "tap.")]
    interest = {topic: topic == "eth.Transactions" for topic in topics}
    return LocalNode(key, hello.encode(), PROTOCOLS, interest, entropy, LocalRange())


def exchange(left: Session, right: Session) -> tuple[list[Event], list[Event]]:
    """Carry bytes until nobody has any: what each of the two told."""
    told: tuple[list[Event], list[Event]] = ([], [])
    while True:
        to_right, to_left = left.data_to_send(), right.data_to_send()
        if not to_right and not to_left:
            return told
        if to_right:
            told[1].extend(right.receive(to_right, now=NOW))
        if to_left:
            told[0].extend(left.receive(to_left, now=NOW))


def test_stages_and_enders_are_the_words_of_the_interface() -> None:
    assert orjson.loads(orjson.dumps(list(Stage))) == [
        "connect",
        "auth",
        "ack",
        "hello",
        "status",
        "verdict",
        "active",
        "closed",
    ]
    assert orjson.loads(orjson.dumps(list(EndedBy))) == ["us", "peer", "network", "worker_lost", "engine"]
    assert f"{EndedBy.WORKER_LOST} at {Stage.VERDICT}" == "worker_lost at verdict"


def test_two_sessions_tell_who_came_what_was_agreed_what_was_said_and_how_it_ended() -> None:
    alice, bob = node("alice"), node("bob")
    dialling = Session(Setup(Direction.OUTBOUND, alice, CHAIN, 0, peer=bob.key.id), now=NOW)
    answering = Session(Setup(Direction.INBOUND, bob, CHAIN, 0), now=NOW)

    assert exchange(dialling, answering) == ([Authenticated(bob.key.id)], [Authenticated(alice.key.id)])

    shared = (Shared(Capability("eth", 69), 0x10, 18, 10 << 20),)
    status = local_status(69, CHAIN, 0)
    # Each sends its Status with its verdict.
    assert dialling.approve(now=NOW) == []
    assert answering.approve(now=NOW) == []
    assert exchange(dialling, answering) == (
        [Established(Hello.decode(bob.hello), shared, status)],
        [Established(Hello.decode(alice.hello), shared, status)],
    )

    dialling.send("eth", 0x03, GET_HEADERS)
    dialling.send("eth", 0x02, TRANSACTIONS)
    _, heard = exchange(dialling, answering)
    table = answering.shared
    assert table is not None
    # Three bytes and ten inflate from a length, a tag, and themselves.
    assert heard == [
        MessageReceived(table.find("eth", 0x03), GET_HEADERS, len(GET_HEADERS) + 2, request_id=1111),
        MessageReceived(table.find("eth", 0x02), TRANSACTIONS, len(TRANSACTIONS) + 2),
    ]

    assert dialling.disconnect(DisconnectReason.TOO_MANY_PEERS, "the place is needed") == [
        Closed(EndedBy.US, DisconnectReason.TOO_MANY_PEERS, "the place is needed", Stage.ACTIVE)
    ]
    assert exchange(dialling, answering) == (
        [],
        [Closed(EndedBy.PEER, DisconnectReason.TOO_MANY_PEERS, "the peer said goodbye", Stage.ACTIVE)],
    )
