"""Peers that the user has named: when static ones are dialled, and which ones pass the limits."""

from __future__ import annotations

import pytest

from rlpx.engine.ledger.peers import MAX_ENDPOINTS, REFUSED_SECONDS, PeerBook
from rlpx.protocol.bus.results import NamedPeer
from rlpx.protocol.errors import Severity
from rlpx.protocol.rlpx.crypto import PrivateKey
from rlpx.protocol.rlpx.enode import Endpoint, Enode

ONE = Enode(PrivateKey(b"\x01" * 32).id, (Endpoint("192.0.2.1", 30303),))


def never() -> float:
    """No randomness."""
    return 0.0


TWO = Enode(PrivateKey(b"\x02" * 32).id, (Endpoint("192.0.2.2", 30303),))


def at(*hosts: str) -> Enode:
    """The first peer at these addresses."""
    return Enode(ONE.id, tuple(Endpoint(host, 30303) for host in hosts))


def test_a_static_peer_is_due_until_it_is_dialled_and_again_after_its_end() -> None:
    book = PeerBook([ONE], draw=never)
    assert book.due(now=5) == [ONE]
    assert book.due(now=6) == [ONE]
    book.dialled(ONE.id)
    assert book.due(now=1000) == []
    book.ended(ONE.id, Severity.LOW, "gone", now=1000)
    assert book.due(now=1029.9) == []
    assert book.due(now=1030) == [ONE]
    # A dial of a peer that is not named changes nothing.
    book.dialled(TWO.id)


def test_a_peer_that_we_refuse_stays_due_is_looked_at_again_soon_and_told_of_once() -> None:
    book = PeerBook([ONE], draw=never)
    assert book.refused(ONE.id, "denied", now=0)
    assert book.due(now=REFUSED_SECONDS - 0.1) == []
    assert book.due(now=REFUSED_SECONDS) == [ONE]
    assert not book.refused(ONE.id, "denied", now=1)
    assert book.refused(ONE.id, "no place", now=1)
    assert not book.refused(TWO.id, "denied", now=1)
    [listed] = book.listed(now=1)
    assert (listed.why_not, listed.last_end, listed.next_try_s) == ("no place", None, 0)
    book.reconsider()
    assert book.due(now=1) == [ONE]
    book.dialled(ONE.id)
    assert book.listed(now=1)[0].why_not is None


def test_why_nobody_is_dialled_now_is_said_of_those_that_are_due() -> None:
    book = PeerBook([ONE, TWO], draw=never)
    book.dialled(ONE.id)
    book.waits_for = "all 1 places for dials are taken"
    assert [item.why_not for item in book.listed(now=0)] == [None, "all 1 places for dials are taken"]


def test_a_peer_with_two_addresses_keeps_both_and_each_has_its_turn() -> None:
    book = PeerBook([at("192.0.2.1"), TWO, at("192.0.2.9")], draw=never)
    assert book.due(now=0) == [at("192.0.2.1", "192.0.2.9"), TWO]
    book.ended(ONE.id, Severity.LOW, "gone", now=0)
    assert book.due(now=30)[0] == at("192.0.2.9", "192.0.2.1")


def test_a_new_address_of_a_peer_is_the_first_one_to_be_tried() -> None:
    book = PeerBook([ONE], draw=never)
    assert not book.add(ONE, is_static=True, is_trusted=False)
    assert book.add(at("192.0.2.9"), is_static=True, is_trusted=False)
    assert book.due(now=0) == [at("192.0.2.9", "192.0.2.1")]
    assert not book.add(at("192.0.2.1"), is_static=True, is_trusted=False)
    assert not book.add(TWO, is_static=True, is_trusted=False)
    assert not book.add(TWO, is_static=False, is_trusted=True)
    for number in range(20):
        book.add(at(f"192.0.2.{number}"), is_static=True, is_trusted=False)
    assert len(book.due(now=0)[0].endpoints) == MAX_ENDPOINTS


@pytest.mark.parametrize(
    ("severity", "most"), [(Severity.LOW, 30), (Severity.MEDIUM, 180), (Severity.HIGH, 900), (Severity.FATAL, 43_200)]
)
def test_a_peer_is_left_alone_twice_as_long_each_time_up_to_what_its_end_deserves(severity: Severity, most: float) -> None:
    book = PeerBook([ONE], draw=never)
    book.due(now=0)
    waits = [book.ended(ONE.id, severity, "gone", now=100) for _ in range(20)]
    assert waits == [min(30 * 2.0**number, most) for number in range(20)]
    assert book.due(now=100 + most - 0.1) == []
    assert book.due(now=100 + most) == [ONE]


def test_once_it_is_established_what_was_before_is_forgiven() -> None:
    book = PeerBook([ONE], draw=never)
    assert [book.ended(ONE.id, Severity.HIGH, "refused", now=0) for _ in range(3)] == [30, 60, 120]
    assert book.ended(ONE.id, Severity.LOW, "gone", now=0) == 30
    assert book.ended(ONE.id, Severity.MEDIUM, "late", now=0) == 180
    book.established(ONE.id)
    assert book.ended(ONE.id, Severity.MEDIUM, "late", now=0) == 30


def test_a_peer_that_says_in_each_session_that_we_are_of_no_use_is_asked_ever_more_seldom() -> None:
    book = PeerBook([ONE], draw=never)
    waits = []
    for _ in range(12):
        book.established(ONE.id)
        waits.append(book.ended(ONE.id, Severity.FATAL, "useless_peer", now=0))
    assert waits == [min(30 * 2.0**number, 43_200) for number in range(12)]
    # A session that ends otherwise shows that we are of use.
    book.established(ONE.id)
    assert book.ended(ONE.id, Severity.LOW, "gone", now=0) == 30
    book.established(ONE.id)
    assert book.ended(ONE.id, Severity.FATAL, "useless_peer", now=0) == 30


def test_a_trusted_peer_is_never_left_alone_for_long() -> None:
    book = PeerBook([ONE], [ONE.id], never)
    assert [book.ended(ONE.id, severity, "gone", now=0) for severity in Severity] == [30] * 4


def test_a_peer_that_is_named_again_is_due_at_once() -> None:
    book = PeerBook([ONE], draw=never)
    book.ended(ONE.id, Severity.FATAL, "another network", now=0)
    book.add(ONE, is_static=True, is_trusted=False)
    assert book.due(now=1) == [ONE]


def test_the_end_of_anybody_else_is_no_reason_to_dial() -> None:
    book = PeerBook([ONE], draw=never)
    assert book.ended(TWO.id, Severity.LOW, "gone", now=0) is None
    book.established(TWO.id)
    assert book.due(now=1000) == [ONE]


def test_a_peer_that_was_added_is_due_and_one_that_was_removed_is_not() -> None:
    book = PeerBook(draw=never)
    book.add(ONE, is_static=True, is_trusted=False)
    book.add(TWO, is_static=False, is_trusted=True)
    assert book.due(now=0) == [ONE]
    assert (book.is_trusted(ONE.id), book.is_trusted(TWO.id), book.has_trusted) == (False, True, True)
    book.ended(ONE.id, Severity.LOW, "gone", now=0)
    assert book.listed(now=10) == [
        NamedPeer(str(ONE), True, False, 20, "gone", None, ["192.0.2.1:30303"]),
        NamedPeer(TWO.id.hex(), False, True),
    ]
    assert book.remove(ONE.id)
    assert book.remove(TWO.id)
    assert not book.remove(TWO.id)
    assert book.due(now=1000) == []
    assert not book.has_trusted


def test_chance_keeps_two_nodes_that_dial_each_other_apart() -> None:
    book = PeerBook([ONE], draw=lambda: 0.5)
    assert book.ended(ONE.id, Severity.LOW, "already connected", now=0) == 33
    assert book.due(now=32.9) == []
    assert book.due(now=33) == [ONE]
