"""What a feed of a fleet asks for, and what it gives: events, gaps, snapshots and losses, each with its host."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, TypeAlias

import msgspec

from rlpx.engine.client.batch_reader import Event, Gap, Malformed
from rlpx.engine.client.errors import own_error
from rlpx.engine.client.feed_options import FILTERS, FilterOptions, where_of
from rlpx.engine.client.topics import KNOWN, checked_prefixes, sub_protocol_of, warn_of_unknown
from rlpx.protocol.bus.events import AUTHENTICATED, CLOSED, DIAL_FAILED, ESTABLISHED, LIFECYCLE, OPENED
from rlpx.protocol.bus.feeds import Where, key_of
from rlpx.protocol.bus.results import SessionObject
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.eth import eth, snap
from rlpx.protocol.eth.kinds import TAP
from rlpx.protocol.wording import nearest

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
_NO_LOSSLESS: Final = "lossless: NATS may lose messages between a host and a program; open the feed at each engine instead"


class HostEvent(Event, frozen=True):
    """An event and its host. `run`, `worker` and `ordinal` are those of the host."""

    host: str = ""


class HostGap(Gap, frozen=True):
    """`missed` events of a topic, a worker and a host are missing here, from the ordinal `first` on.

    Without a topic, but with a worker: messages that pass the filter of the feed, of any of its topics. With neither: the
    host could not keep as many events of its sessions while NATS was away.
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
    """A host was not there or was not heard for a time, and nobody knows how much is missing of it.

    A `HostSnapshot` follows as soon as it is heard again, if the feed has snapshots.
    """

    host: str
    cause: str


FleetItem: TypeAlias = HostSnapshot | HostEvent | HostGap | HostLost | Malformed


class FleetFeedOptions(FilterOptions, total=False):
    """The options of a feed of a fleet."""

    # A time, or seconds since 1970, from which the lives of sessions are replayed.
    since: datetime | float
    # Begin with the sessions of each host that match; on, if neither it nor `since` is given.
    snapshot: bool
    # The bytes that may wait for the program.
    credit: int


class FleetOpening(msgspec.Struct, frozen=True):
    """What a feed asks for: topics of the stream, and wishes for traffic; `since` is where the stream is replayed from."""

    prefixes: tuple[str, ...]
    lives: tuple[str, ...]
    wishes: tuple[str, ...]
    # Ends of the subjects of the wishes.
    subjects: tuple[str, ...]
    since: datetime | None
    # Whether the program gets snapshots.
    has_snapshot: bool
    credit: int
    where: Where = Where()

    @property
    def is_filtered(self) -> bool:
        """Whether not everything with these topics is wanted."""
        return self.where != Where()

    @property
    def tracked(self) -> tuple[str, ...]:
        """The topics of lives that must be read: also those that say what later events do not, if the filter asks that."""
        where = self.where
        if not any(topic.startswith("session.") for topic in self.lives) or not (
            where.direction or where.client or where.shared
        ):
            return self.lives
        return tuple(dict.fromkeys((*self.lives, OPENED, ESTABLISHED, CLOSED)))

    @property
    def takes_snapshots(self) -> bool:
        """Whether hosts are asked for their sessions, because the program wants that or the filter must know them."""
        return self.has_snapshot or (self.since is None and self.tracked != self.lives)


def fleet_opening(topics: Iterable[str], options: FleetFeedOptions) -> FleetOpening:
    """The opening of a feed. It warns of topics that there are not, in the caller of its caller.

    Raises `TypeError` for a name that is no option, `InvalidParamsError` for topics that hosts do not publish over NATS and
    for filters, and `RefusedError` for `lossless`.
    """
    for name in options:
        if name == "lossless":
            raise own_error(ErrorName.REFUSED, _NO_LOSSLESS)
        if name not in FleetFeedOptions.__annotations__:
            raise TypeError(f"a feed has no option '{name}'{nearest(name, FleetFeedOptions.__annotations__)}")
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
    where = where_of({name: value for name, value in options.items() if name in FILTERS})
    subjects = _subjects(wishes) if where == Where() else (f"feed.{key_of(wishes, where)}",)
    since = options.get("since")
    return FleetOpening(
        prefixes=prefixes,
        lives=lives,
        wishes=tuple(wishes),
        subjects=subjects if wishes else (),
        since=datetime.fromtimestamp(since, UTC) if isinstance(since, int | float) else since,
        has_snapshot=options.get("snapshot", True) and since is None,
        credit=options.get("credit", CREDIT_BYTES),
        where=where,
    )


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
