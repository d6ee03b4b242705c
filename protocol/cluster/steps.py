"""What a member of the fleet asks of the store and of its engine, and the store's answers.

Every write names the revision that it replaces. The store refuses it if the key has another revision by then, so that a
write which is late or repeated does no harm.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Direction


class Put(msgspec.Struct, frozen=True):
    """Write a key whose revision is `expected`, 0 if it is to be missing. The store forgets the key after `ttl_s`."""

    call: int
    key: str
    value: bytes
    expected: int
    ttl_s: float | None = None


class Erase(msgspec.Struct, frozen=True):
    """Erase a key whose revision is `expected`."""

    call: int
    key: str
    expected: int


class Read(msgspec.Struct, frozen=True):
    """Read a key as it is at this moment, which a replica that lags behind cannot tell."""

    call: int
    key: str


class Scan(msgspec.Struct, frozen=True):
    """Read up to `limit` keys that begin with `key`, in the order of their revisions, from `first_revision` on.

    What is read may be older than what others have written.
    """

    call: int
    key: str
    first_revision: int
    limit: int


class Entry(msgspec.Struct, frozen=True):
    """A key with its revision and value."""

    key: str
    revision: int
    value: bytes


class Outcome(StrEnum):
    """`CONFLICT`: the key has another revision. `LOST`: nobody answered in time; a write may take effect even later."""

    DONE = "done"
    CONFLICT = "conflict"
    LOST = "lost"


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The answer to a call. After a read and a conflict: the revision and value of the key; none and 0 if it is missing.

    After a scan: the `entries`, and the revision at which the next page begins, 0 if there is none.
    """

    call: int
    outcome: Outcome
    revision: int = 0
    value: bytes | None = None
    entries: tuple[Entry, ...] = ()


class Joined(msgspec.Struct, frozen=True):
    """The host is a member now: nobody else has its name."""


class NameTaken(msgspec.Struct, frozen=True):
    """Another living engine has this host's name."""

    host: str


class HostLost(msgspec.Struct, frozen=True):
    """Another host has been silent for its time to live since its heartbeat of this revision."""

    host: str
    epoch: str
    revision: int


class Returned(msgspec.Struct, frozen=True):
    """We are heard again by the heartbeat of this revision, after a silence for which others may have given us up."""

    revision: int


class StoreLost(msgspec.Struct, frozen=True):
    """The store has forgotten our heartbeat before its time, and so probably all else: what we hold is written again."""


class Admitted(msgspec.Struct, frozen=True):
    """The session may become active."""

    session: int


class Refused(msgspec.Struct, frozen=True):
    """The session must not become active. The `reason` is for the peer, the `cause` for users."""

    session: int
    reason: DisconnectReason
    cause: str


class EndSession(msgspec.Struct, frozen=True):
    """An active session must end: its place or its peer belongs to another host."""

    session: int
    reason: DisconnectReason
    cause: str


class PlacesChanged(msgspec.Struct, frozen=True):
    """The host may have `leased` sessions in a direction, and may lease up to `elsewhere` more if nobody is faster."""

    direction: Direction
    leased: int
    elsewhere: int


Call = Put | Erase | Read
# All that is asked of the store.
StoreCall = Call | Scan
Step = StoreCall | Joined | NameTaken | HostLost | Returned | StoreLost | Admitted | Refused | EndSession | PlacesChanged
