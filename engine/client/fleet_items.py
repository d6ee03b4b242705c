"""What a feed of a fleet asks for, and what it gives: events, gaps, snapshots and losses, each with its host."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, TypeAlias

import msgspec

from rlpx.engine.client.batch_reader import Event, Gap, Malformed
from rlpx.engine.client.errors import own_error
from rlpx.engine.client.topics import KNOWN, checked_prefixes, sub_protocol_of, warn_of_unknown
from rlpx.protocol.bus.events import AUTHENTICATED, CLOSED, DIAL_FAILED, ESTABLISHED, LIFECYCLE, OPENED
from rlpx.protocol.bus.results import SessionObject
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.eth.kinds import TAP

# The topics that hosts publish to the fleet's stream.
STREAM_TOPICS: Final = tuple(
    sorted(
        topic
        for topic in LIFECYCLE
        if topic in {OPENED, AUTHENTICATED, ESTABLISHED, CLOSED, DIAL_FAILED} or topic.startswith(("worker.", "engine."))
    )
)
# The bytes that wait for the program to read them. Traffic that does not fit is lost; lives wait in the stream.
CREDIT_BYTES: Final = 8 * 1024 * 1024
# A wish names a sub-protocol, and these are those of any fleet. Misconduct of peers travels with traffic.
_PEER: Final = "peer"
_USUAL: Final = (eth.NAME, snap.NAME, _PEER)


class HostEvent(Event, frozen=True):
    """An event and its host. `run`, `worker` and `ordinal` are those of the host."""

    host: str = ""


class HostGap(Gap, frozen=True):
    """`missed` events of a topic, a worker and a host are missing here, from the ordinal `first` on.

    Without a topic: the host could not keep as many events of its sessions while NATS was away.
    """

    host: str = ""


class HostSnapshot(msgspec.Struct, frozen=True):
    """The sessions of one host at this place in the feed. They replace what was known of the host.

    It comes first, once for each host, and again for each host that is new, was started again, or was lost and is back.
    """

    host: str
    run: str
    sessions: tuple[SessionObject, ...]


class HostLost(msgspec.Struct, frozen=True):
    """A host is not there, or does not answer: nobody knows its sessions. A `HostSnapshot` follows if it is back."""

    host: str
    cause: str


FleetItem: TypeAlias = HostSnapshot | HostEvent | HostGap | HostLost | Malformed


class FleetOpening(msgspec.Struct, frozen=True):
    """What a feed asks for: topics of the stream, and wishes for traffic; `since` is where the stream is replayed from."""

    prefixes: tuple[str, ...]
    lives: tuple[str, ...]
    wishes: tuple[str, ...]
    # Ends of the subjects of the wishes.
    subjects: tuple[str, ...]
    since: datetime | None
    has_snapshot: bool
    credit: int


def fleet_opening(topics: Iterable[str], since: datetime | float | None, credit: int, *, has_snapshot: bool) -> FleetOpening:
    """The opening of a feed. It warns of topics that there are not, in the caller of its caller.

    Raises `TypeError`, and `InvalidParamsError` for topics that hosts do not publish over NATS.
    """
    prefixes = tuple(_without_covered(checked_prefixes(topics)))
    if not prefixes:
        raise TypeError("topics: a feed has at least one")
    own = [found for prefix in prefixes if (found := sub_protocol_of(prefix)) is not None]
    warn_of_unknown(prefixes, own, stacklevel=3)
    lives = tuple(topic for topic in STREAM_TOPICS if topic.startswith(prefixes))
    wishes: dict[str, None] = {}
    for prefix in prefixes:
        wanted = _wishes(prefix)
        if not wanted and not any(topic.startswith(prefix) for topic in lives):
            raise own_error(ErrorName.INVALID_PARAMS, f"topics: hosts of a fleet do not publish '{prefix}' over NATS")
        wishes |= dict.fromkeys(wanted)
    if isinstance(since, int | float):
        since = datetime.fromtimestamp(since, UTC)
    return FleetOpening(prefixes, lives, tuple(wishes), _subjects(wishes), since, has_snapshot and since is None, credit)


def _without_covered(prefixes: list[str]) -> list[str]:
    """The prefixes that have none of the others as their beginning."""
    unique = list(dict.fromkeys(prefixes))
    return [prefix for prefix in unique if not any(other != prefix and prefix.startswith(other) for other in unique)]


def _wishes(prefix: str) -> list[str]:
    """The traffic that a prefix may mean, as hosts take it."""
    name, dot, _ = prefix.partition(".")
    if not dot:
        return [f"{usual}." for usual in _USUAL if usual.startswith(prefix)]
    if name in {topic.partition(".")[0] for topic in STREAM_TOPICS} or prefix.startswith(TAP):
        return []
    return [f"{_PEER}."] if name == _PEER else [prefix]


def _subjects(wishes: Iterable[str]) -> tuple[str, ...]:
    """One subject for each message, or for all messages of a sub-protocol: none twice."""
    whole = {wish.partition(".")[0] for wish in wishes if wish not in KNOWN}
    named = [wish for wish in wishes if wish.partition(".")[0] not in whole]
    return (*(f"{name}.*" for name in sorted(whole)), *named)
