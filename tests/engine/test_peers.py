"""Peers that the user has named: when static ones are dialled, whom limits do not stop, who is kept out."""

from __future__ import annotations

import pytest

from engine.admission import parse_address
from engine.dialer import Enode
from engine.peers import DIALLED_SECONDS, PeerBook
from protocol.crypto import PrivateKey
from protocol.errors import Severity

ONE = Enode(PrivateKey(b"\x01" * 32).id, "192.0.2.1", 30303)


def never() -> float:
    """No chance."""
    return 0.0


TWO = Enode(PrivateKey(b"\x02" * 32).id, "192.0.2.2", 30303)


def test_a_static_peer_is_due_at_once_and_again_after_the_redial_time() -> None:
    book = PeerBook([ONE], draw=never)
    assert book.due(now=5) == [ONE]
    assert book.due(now=5 + DIALLED_SECONDS - 0.1) == []
    assert book.due(now=5 + DIALLED_SECONDS) == [ONE]


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
    assert book.listed(now=10) == [(str(ONE), True, False, 20, "gone"), (TWO.id.hex(), False, True, None, None)]
    assert book.remove(ONE.id)
    assert book.remove(TWO.id)
    assert not book.remove(TWO.id)
    assert book.due(now=1000) == []
    assert not book.has_trusted


def test_a_banned_peer_is_not_due_until_its_ban_ends() -> None:
    book = PeerBook([ONE], draw=never)
    book.ban(ONE.id, 60, now=0)
    assert book.due(now=59) == []
    assert book.due(now=60) == [ONE]


def test_a_ban_ends_by_time_or_by_zero_seconds() -> None:
    book = PeerBook(draw=never)
    address = parse_address("192.0.2.1")
    book.ban(address, 10, now=0)
    book.ban(ONE.id, 20, now=0)
    assert book.bans(now=4) == [("192.0.2.1", 6), (ONE.id.hex(), 16)]
    assert book.is_banned(address, now=9.9)
    assert not book.is_banned(address, now=10)
    book.ban(ONE.id, 0, now=11)
    assert not book.is_banned(ONE.id, now=11)
    assert book.bans(now=11) == []


def test_chance_keeps_two_nodes_that_dial_each_other_apart() -> None:
    book = PeerBook([ONE], draw=lambda: 0.5)
    assert book.ended(ONE.id, Severity.LOW, "already connected", now=0) == 33
    assert book.due(now=32.9) == []
    assert book.due(now=33) == [ONE]
