"""Which hosts are there: our own heartbeat, and those of the others.

A heartbeat is a lease on everything that a host holds. We count ours from the moment at which we send it; the others count
it from the moment at which they see it, which is later. So a host knows that it may have been given up before anybody gives
it up. Only intervals on each host's own monotonic clock matter: a clock that is set does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from rlpx.protocol.cluster.records import Heartbeat, decode, host_key
from rlpx.protocol.cluster.steps import Answer, Joined, NameTaken, Outcome, Returned, Step, StoreLost
from rlpx.protocol.cluster.store import Store
from rlpx.protocol.lifecycle import Direction

# How often a host that cannot join yet tries again.
JOIN_SECONDS: Final = 1.0

# A heartbeat that hurries leaves so long after the one before it at the earliest: sessions wait for what it asks for.
HURRY_SECONDS: Final = 0.25
# Heartbeats that hurry are no more than this in the whole fleet, because each of them goes to all hosts.
HURRIED_BEATS_PER_SECOND: Final = 100

# So many heartbeats of another epoch of our name may be of an engine that has ended.
MAX_LATE_BEATS: Final = 2


class Timing(msgspec.Struct, frozen=True):
    """Seconds: between heartbeats, until a host without one is gone, and by which a host doubts itself earlier.

    The margin covers clocks that run at different speeds: 1 s in 15 is far more than any two differ. What a host without
    heartbeats held is erased after `over_s`, and claims are looked through for it with pauses of `sweep_s`.
    """

    beat_s: float = 5.0
    ttl_s: float = 15.0
    margin_s: float = 1.0
    over_s: float = 600.0
    sweep_s: float = 300.0


class Me(msgspec.Struct, frozen=True):
    """The name of a host, and the epoch that names one start of it."""

    host: str
    epoch: str


class Other(msgspec.Struct):
    """A host as we see it: its last heartbeat, and since when we have seen no later one.

    It is stale from a return of the store until the next one, which may have a lower revision: a store that has lost its
    latest writes counts from there again.
    """

    revision: int
    beat: Heartbeat
    seen_at: float
    is_stale: bool = False


class Hosts:
    """See the module. `describe` makes our heartbeat; `on_return` is called when we join or may have been given up.

    `on_loss` is called when the store has lost what it had.
    """

    def __init__(self, me: Me, timing: Timing, store: Store, steps: list[Step]) -> None:
        self.me = me
        self.timing = timing
        self.is_connected = False
        self.is_joined = False
        self.has_left = False
        # Whether we were silent for so long before the last heartbeat that others may have erased what we held.
        self.was_silent = False
        self.describe: Callable[[], Heartbeat] = lambda: Heartbeat(me.epoch)
        self.on_return: Callable[[float], None] = lambda _now: None
        self.on_loss: Callable[[float], None] = lambda _now: None
        self._store = store
        self._steps = steps
        self.others: dict[str, Other] = {}
        # The hosts whose last heartbeat said that they lack places.
        self._wanting: dict[Direction, set[str]] = {way: set() for way in Direction}
        # When each host was heard last, for as long as what it held is not erased.
        self._heard_at: dict[str, float] = {}
        # Since when hosts that we have never seen would have been seen.
        self._watching_since = 0.0
        self._revision = 0
        self._is_asking = False
        self._next_at = 0.0
        # When the last heartbeat that was confirmed left, and whether a later one is known to be lost.
        self._sent_at: float | None = None
        self._is_lost = False
        self._ticked_at: float | None = None
        # The heartbeat of another epoch that keeps us from joining, and since when we have seen no later one.
        self._rival = (0, 0.0)
        self._rival_beats = 0

    # -- our own heartbeat --------------------------------------------------------------------------------------------------

    def on_connected(self, now: float) -> None:
        """The store can be reached again. What we know of the others is old, so they get their time anew."""
        self.is_connected = True
        self._is_lost = False
        self._look_anew(now)
        self.expect_any()
        self._next_at = now
        self.tick(now)

    def expect_any(self) -> None:
        """The next heartbeats of the others may have lower revisions."""
        for other in self.others.values():
            other.is_stale = True

    def on_disconnected(self) -> None:
        """The store cannot be reached."""
        self.is_connected = False

    def tick(self, now: float) -> None:
        """Send a heartbeat if one is due, and forget hosts that are long gone."""
        if self._ticked_at is not None and now - self._ticked_at >= self.timing.beat_s:
            # We were stopped ourselves: heartbeats of others may be waiting unread.
            self._look_anew(now)
        self._ticked_at = now
        for host in [host for host, other in self.others.items() if now >= other.seen_at + 2 * self.timing.ttl_s]:
            del self.others[host]
            for wanting in self._wanting.values():
                wanting.discard(host)
        for host in [host for host, heard_at in self._heard_at.items() if now >= heard_at + self.timing.over_s]:
            del self._heard_at[host]
        if self.is_connected and not self._is_asking and now >= self._next_at:
            self._is_asking = True
            self._next_at = now + (self.timing.beat_s if self.is_joined else JOIN_SECONDS)
            self._store.put(
                host_key(self.me.host),
                self.describe(),
                self._revision,
                lambda answer, then: self._on_beat(answer, now, then),
                ttl_s=self.timing.ttl_s,
            )

    def hurry(self, now: float) -> None:
        """Others wait for what our next heartbeat says: send it soon, at most four a second, and fewer in a large fleet."""
        pause_s = max(HURRY_SECONDS, len(self.others) / HURRIED_BEATS_PER_SECOND)
        self._next_at = min(self._next_at, max(now, (self._sent_at or 0.0) + pause_s))

    def leave(self, now: float) -> None:
        """We hold nothing any more: our last heartbeat says so."""
        self.has_left = True
        self._next_at = now
        self.tick(now)

    def is_firm(self, now: float) -> bool:
        """Whether nobody can have given us up: our last confirmed heartbeat is younger than its time to live."""
        is_young = self._sent_at is not None and now < self._sent_at + self.timing.ttl_s - self.timing.margin_s
        return is_young and not self.has_left

    @property
    def revision(self) -> int:
        """The revision of our last confirmed heartbeat. What the store has above it is younger."""
        return self._revision

    @property
    def is_away(self) -> bool:
        """Whether the store is known not to answer."""
        return not self.is_connected or self._is_lost

    def _on_beat(self, answer: Answer, sent_at: float, now: float) -> None:
        self._is_asking = False
        if answer.outcome is Outcome.LOST:
            # If we were stopped ourselves meanwhile, the store may well have answered: ask again before we judge.
            self._is_lost = now < sent_at + self.timing.beat_s
            self._next_at = min(self._next_at, now + JOIN_SECONDS) if self._is_lost else now
        elif answer.outcome is Outcome.CONFLICT:
            self._on_conflict(answer, now)
        else:
            is_doubted = self.is_joined and not self.has_left and not self.is_firm(now)
            is_return = self._is_lost or not self.is_firm(now)
            # Half of the time, because a heartbeat that we believe lost may be done late.
            self.was_silent = self._sent_at is not None and sent_at >= self._sent_at + self.timing.over_s / 2
            self._revision, self._sent_at, self._is_lost = answer.revision, sent_at, False
            if is_doubted:
                self._steps.append(Returned(answer.revision))
            if not self.is_joined:
                self.is_joined = True
                self._next_at = now + self.timing.beat_s
                self._steps.append(Joined())
            if is_return:
                self.on_return(now)

    def _on_conflict(self, answer: Answer, now: float) -> None:
        """Our key is not as we left it: it has expired, a lost write was done after all, or another engine has our name."""
        beat = decode(Heartbeat, answer.value)
        if answer.value is None or (beat is not None and (beat.epoch == self.me.epoch or beat.has_left)):
            # While we are sure of it, it cannot have expired.
            is_forgotten = answer.value is None and self.is_joined and self.is_firm(now)
            self._revision, self._next_at = answer.revision, now
            self.tick(now)
            if is_forgotten:
                self._steps.append(StoreLost())
                self.on_loss(now)
            return
        revision, since = self._rival
        self._next_at = min(self._next_at, now + JOIN_SECONDS)
        if revision != answer.revision:
            self._rival = answer.revision, now
            self._rival_beats += 1
            # One more than we found may be a late write of an engine that has ended. Two are not.
            if self._rival_beats > MAX_LATE_BEATS:
                self._steps.append(NameTaken(self.me.host))
        elif now - since >= self.timing.ttl_s:
            self._revision, self._next_at, self._rival_beats = answer.revision, now, 0
            self.tick(now)

    # -- the others ---------------------------------------------------------------------------------------------------------

    def on_seen(self, host: str, revision: int, value: bytes | None, now: float) -> None:
        """A heartbeat has been written. That one has expired says nothing: its host's time is measured by our own clock.

        Our own come back to us as well.
        """
        if host == self.me.host:
            return
        beat = decode(Heartbeat, value)
        known = self.others.get(host)
        if beat is not None and (known is None or known.is_stale or revision > known.revision):
            self.others[host] = Other(revision, beat, now)
            for way, wanting in self._wanting.items():
                (wanting.add if beat.wants.get(way) else wanting.discard)(host)
            self._heard_at[host] = now

    def is_dead(self, host: str, epoch: str, now: float) -> bool:
        """Whether an epoch of a host is over as far as we have seen. Confirm it before you act on it."""
        if host == self.me.host:
            return epoch != self.me.epoch
        other = self.others.get(host)
        if other is None:
            return now >= self._watching_since + self.timing.ttl_s
        return other.beat.epoch != epoch or other.beat.has_left or now >= other.seen_at + self.timing.ttl_s

    def is_over(self, host: str, epoch: str, now: float) -> bool:
        """Whether what an epoch of a host has left may be erased, as far as we have seen. Confirm it before you do so."""
        if host == self.me.host:
            return epoch != self.me.epoch
        other = self.others.get(host)
        if other is not None and (other.beat.epoch != epoch or other.beat.has_left):
            return True
        heard_at = max(self._watching_since, self._heard_at.get(host, 0.0))
        return now >= heard_at + self.timing.over_s

    def confirm_dead(self, host: str, epoch: str, then: Callable[[bool, float], None]) -> None:
        """Ask the store whether the host has sent a heartbeat that we have not seen; `then` gets whether it is dead."""
        self._confirm(host, lambda now: self.is_dead(host, epoch, now), then)

    def confirm_over(self, host: str, epoch: str, then: Callable[[bool, float], None]) -> None:
        """Ask the store likewise; `then` gets whether the epoch is over."""
        self._confirm(host, lambda now: self.is_over(host, epoch, now), then)

    def _confirm(self, host: str, judge: Callable[[float], bool], then: Callable[[bool, float], None]) -> None:
        def on_read(answer: Answer, now: float) -> None:
            if answer.outcome is Outcome.DONE:
                self.on_seen(host, answer.revision, answer.value, now)
            then(answer.outcome is Outcome.DONE and judge(now), now)

        self._store.read(host_key(host), on_read)

    def lacks(self, host: str, direction: Direction) -> bool:
        """Whether the last heartbeat of another host said that it lacks places."""
        return host in self._wanting[direction]

    def wanted(self, direction: Direction, now: float) -> int:
        """The places that other hosts lack. Only those that lack some are looked at, because there may be a thousand."""
        wanting = self._wanting[direction]
        return sum(self.others[host].beat.wants[direction] for host in wanting if self._is_alive(host, now))

    def alive(self, now: float) -> Mapping[str, Heartbeat]:
        """The other hosts that are there."""
        return {host: other.beat for host, other in self.others.items() if self._is_alive(host, now)}

    def is_first(self, now: float) -> bool:
        """Whether we do what one host does for all: the first by name. Two that both think so do no harm."""
        return not self.is_away and self.is_firm(now) and self.me.host <= min(self.alive(now), default=self.me.host)

    def _is_alive(self, host: str, now: float) -> bool:
        other = self.others[host]
        return not other.beat.has_left and now < other.seen_at + self.timing.ttl_s

    def _look_anew(self, now: float) -> None:
        self._watching_since = now
        for other in self.others.values():
            other.seen_at = now
