"""The records that hosts share in a key-value store, and their keys. Every record is soft: hosts can write it again.

A record that does not decode is treated as missing, because anybody who may write to the store may write nonsense.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from rlpx.protocol.lifecycle import Direction

# Letters that are safe in a NATS subject and in a key. A name is part of both.
NAME_PATTERN: Final = "^[A-Za-z0-9_-]{1,64}$"

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Epoch = Annotated[str, Meta(min_length=1, max_length=32)]
Number = Annotated[int, Meta(ge=0, le=2**53)]

FLEET: Final = "fleet"
_HOST: Final = "host."
_PLACES: Final = "places."
PEERS: Final = "peer."
_NOTE: Final = "note."

R = TypeVar("R")


class Heartbeat(msgspec.Struct, frozen=True):
    """`host.<name>`: a host is there. `free` and `wants` count places by direction: unused ones, and missing ones.

    `epoch` names one start of the host. What another epoch of the same host held is void. A host that has left in good
    order holds nothing any more. `node` and `chain` say which node its peers see, and on which chain.
    """

    epoch: Epoch
    free: dict[Direction, Number] = {}
    wants: dict[Direction, Number] = {}
    has_left: bool = False
    node: Annotated[str, Meta(max_length=128)] = ""
    chain: Annotated[str, Meta(max_length=128, pattern="^[ -~]*$")] = ""


class Claim(msgspec.Struct, frozen=True):
    """`peer.<id>`: a host has a session with this peer since `since_us`, microseconds since 1970 by its clock."""

    host: Name
    epoch: Epoch
    session: Number
    since_us: Number

    def is_older(self, other: Claim) -> bool:
        """Whether this one stays if both sessions live. Both hosts give the same answer."""
        return (self.since_us, self.host) < (other.since_us, other.host)


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """The places that one epoch of a host has in a shard."""

    epoch: Epoch
    places: Number


class Shard(msgspec.Struct, frozen=True):
    """`places.<direction>.<number>`: a part of the fleet's places in one direction, and who has leased how many."""

    leases: dict[Name, Lease] = {}

    @property
    def leased(self) -> int:
        """The sum of all leases."""
        return sum(lease.places for lease in self.leases.values())

    def places_of(self, host: str, epoch: str) -> int:
        """The places of one epoch of a host."""
        lease = self.leases.get(host)
        return lease.places if lease is not None and lease.epoch == epoch else 0

    def replaced(self, host: str, lease: Lease | None) -> Shard:
        """The same shard with another lease of one host, or none."""
        others = {name: kept for name, kept in self.leases.items() if name != host}
        return Shard(others if lease is None else {**others, host: lease})


class Note(msgspec.Struct, frozen=True):
    """`note.<host>.<peer>`: the host must look at its claim of this peer again, because `sender` is about to replace it."""

    sender: Name


class Fleet(msgspec.Struct, frozen=True):
    """`fleet`: the limits in sum by direction, and in how many shards the places of each direction are kept."""

    limits: dict[Direction, Number]
    shards: Annotated[int, Meta(ge=1, le=64)]


def host_key(host: str) -> str:
    """The key of a host's heartbeat."""
    return _HOST + host


def shard_key(direction: Direction, number: int) -> str:
    """The key of a shard of the places in one direction."""
    return f"{_PLACES}{direction}.{number}"


def peer_key(peer: bytes) -> str:
    """The key of the claim of a peer, given its 64-byte id."""
    return PEERS + peer.hex()


def note_key(host: str, peer: bytes) -> str:
    """The key of a note to a host about a peer."""
    return f"{_NOTE}{host}.{peer.hex()}"


def host_of(key: str) -> str | None:
    """The host whose heartbeat has this key, if that is the name of a host."""
    name = key.removeprefix(_HOST)
    return name if key.startswith(_HOST) and re.search(NAME_PATTERN, name) else None


def shard_of(key: str) -> tuple[Direction, int] | None:
    """The direction and number of the shard with this key."""
    parts = key.removeprefix(_PLACES).split(".")
    if not key.startswith(_PLACES) or len(parts) != 2 or parts[0] not in tuple(Direction) or not parts[1].isdecimal():  # noqa: PLR2004 - direction and number
        return None
    return Direction(parts[0]), int(parts[1])


def noted_peer(key: str, host: str) -> bytes | None:
    """The peer that a note to this host with this key is about."""
    prefix = f"{_NOTE}{host}."
    try:
        return bytes.fromhex(key.removeprefix(prefix)) if key.startswith(prefix) else None
    except ValueError:
        return None


def encode(record: msgspec.Struct) -> bytes:
    """A record as JSON, which people can read with any NATS tool."""
    return msgspec.json.encode(record)


def decode(kind: type[R], value: bytes | None) -> R | None:
    """The record in a value, or nothing if there is none or it is not such a record."""
    if value is None:
        return None
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
