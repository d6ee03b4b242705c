from __future__ import annotations

import pytest

from rlpx.protocol.cluster.records import (
    Claim,
    Heartbeat,
    Lease,
    Shard,
    decode,
    encode,
    host_key,
    host_of,
    note_key,
    noted_peer,
    peer_key,
    shard_key,
    shard_of,
)
from rlpx.protocol.lifecycle import Direction

PEER = bytes(range(64))


def test_a_key_names_what_it_is_of() -> None:
    assert host_of(host_key("a")) == "a"
    assert host_of(peer_key(PEER)) is None
    assert host_of(host_key("a=b")) is host_of(host_key("a" * 65)) is None
    assert shard_of(shard_key(Direction.INBOUND, 12)) == (Direction.INBOUND, 12)
    assert noted_peer(note_key("a", PEER), "a") == PEER
    assert noted_peer(note_key("a", PEER), "b") is None


@pytest.mark.parametrize(
    "key", ["places.inbound", "places.up.1", "places.inbound.x", "host.inbound.1", "places.inbound.1.2"]
)
def test_a_key_that_is_no_shard(key: str) -> None:
    assert shard_of(key) is None


def test_a_note_about_nonsense_is_none() -> None:
    assert noted_peer("note.a.zz", "a") is None


def test_a_record_is_read_as_it_was_written() -> None:
    shard = Shard({"a": Lease("a1", 64)})
    assert decode(Shard, encode(shard)) == shard
    assert decode(Heartbeat, encode(Heartbeat("a1", {Direction.INBOUND: 3}))) == Heartbeat("a1", {Direction.INBOUND: 3})


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"[]", b'{"leases":{"a":["a1",-1]}}', b"[" * 100_000])
def test_nonsense_is_no_record(value: bytes | None) -> None:
    assert decode(Shard, value) is None


def test_leases_are_of_one_epoch() -> None:
    shard = Shard({"a": Lease("a1", 64), "b": Lease("b1", 1)})
    assert shard.leased == 65
    assert shard.places_of("a", "a1") == 64
    assert shard.places_of("a", "a2") == 0
    assert shard.places_of("c", "c1") == 0
    assert shard.replaced("a", None) == Shard({"b": Lease("b1", 1)})
    assert shard.replaced("a", Lease("a2", 2)).places_of("a", "a2") == 2


def test_of_two_claims_one_is_older_whatever_host_asks() -> None:
    first, second, same = Claim("b", "b1", 1, 5), Claim("a", "a1", 9, 6), Claim("a", "a1", 9, 5)
    assert first.is_older(second)
    assert not second.is_older(first)
    assert same.is_older(first)
    assert not first.is_older(same)
