"""Bans end by time, or when they are lifted."""

from __future__ import annotations

from rlpx.engine.ledger.addresses import parse_address
from rlpx.engine.ledger.bans import Bans

ADDRESS = parse_address("192.0.2.1")
PEER = b"\x02" * 64


def test_a_ban_ends_by_time_and_is_forgotten_then() -> None:
    bans = Bans()
    bans.ban_address(ADDRESS, 10)
    bans.ban_peer(PEER, 20)
    assert bans.listed(now=4) == [(PEER.hex(), 16), ("192.0.2.1", 6)]
    assert bans.has_address(ADDRESS, now=9.9)
    assert not bans.has_address(ADDRESS, now=10)
    assert bans.has_peer(PEER, now=19.9)
    assert not bans.has_peer(PEER, now=20)
    # Even a clock that stood still would not bring the ban back.
    assert (bans.has_address(ADDRESS, now=0), bans.has_peer(PEER, now=0)) == (False, False)


def test_a_ban_that_has_ended_is_not_listed() -> None:
    bans = Bans()
    bans.ban_address(ADDRESS, 10)
    bans.ban_peer(PEER, 10)
    assert bans.listed(now=10) == []


def test_a_ban_is_lifted_for_whom_it_was_and_for_nobody_else() -> None:
    bans = Bans()
    bans.ban_address(ADDRESS, 10)
    bans.ban_peer(PEER, 10)
    bans.lift(None, ADDRESS)
    assert (bans.has_address(ADDRESS, now=0), bans.has_peer(PEER, now=0)) == (False, True)
    bans.lift(PEER, None)
    bans.lift(PEER, ADDRESS)
    assert bans.listed(now=0) == []
