"""One feed of a program: its credit, its queue in bytes, and the ordinals of its events, so that every loss is exact.

Events come in chunks, which the feeds of a group share. A chunk leaves while the program has credit and its connection has
room, and waits otherwise. If it may not wait, its messages are dropped for this feed alone; its lifecycle events may wait a
little longer. A lossless feed drops nothing: the connections whose events cannot leave are held, which means not read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Final, Protocol

import msgspec

from rlpx.protocol.bus import feeds
from rlpx.protocol.bus.feeds import OpenFeed
from rlpx.protocol.bus.link import HIGH_WATER_BYTES, Link
from rlpx.protocol.bus.zmtp import MORE, Wire, frame_head
from rlpx.protocol.settings import FeedSettings
from rlpx.workers.budget import Budget

# Lifecycle events are few and small. They may fill the queue of a feed this much beyond its limit for messages.
LIFECYCLE_QUEUE_BYTES: Final = 1024 * 1024
# A lossless feed with a full queue holds each connection that adds to it, which may be one read of each. If they are so many
# that the queue grows to this many times its limit, all that may add to it are held at once.
OVERFULL: Final = 4
# Payloads of this size and more stay apart, so that no reader's copy is made. Smaller ones are joined, once for all feeds.
APART_BYTES: Final = 8 * 1024


class FeedEvent(msgspec.Struct, frozen=True, gc=False):
    """One event: its JSON with the topic, and its payload. `is_life`: it is an event of a session's life."""

    text: str
    payload: bytes
    is_life: bool


class Chunk:
    """Consecutive events, encoded for all feeds that get them. `cost_bytes` is their part of a message's size."""

    __slots__ = ("bodies", "body_bytes", "cost_bytes", "count", "text")

    def __init__(self, events: Sequence[FeedEvent]) -> None:
        self.count = len(events)
        self.text = ",".join([event.text for event in events]).encode()
        self.bodies = _bodies([event.payload for event in events if event.payload])
        self.body_bytes = sum(map(len, self.bodies))
        self.cost_bytes = len(self.text) + self.body_bytes


class Held(Protocol):
    """A connection that a lossless feed can stop reading from."""

    def hold(self, feed: Feed) -> None:
        """Read nothing until `release`."""

    def release(self, feed: Feed) -> None:
        """Read again, unless another feed holds it."""


class FeedTotals:
    """Sums over all feeds of a worker: `queued_bytes` of those that may lose events, and how many they are."""

    __slots__ = ("lossy", "missed_events", "queued_bytes", "sent_events")

    def __init__(self) -> None:
        self.lossy = 0
        self.queued_bytes = 0
        self.sent_events = 0
        self.missed_events = 0


class FeedBounds(msgspec.Struct, frozen=True):
    """What all feeds of a worker share: the settings, the sums, and the worker's budget, which lossless feeds use."""

    settings: FeedSettings
    totals: FeedTotals
    budget: Budget


class Feed:
    """See the module. It is a `Holder` for the budget if it is lossless."""

    __slots__ = (
        "_bounds",
        "_queue",
        "booked_bytes",
        "credit",
        "held",
        "is_closed",
        "is_lossless",
        "link",
        "missed_events",
        "next",
        "number",
        "queued_bytes",
        "sent_events",
        "told",
    )

    def __init__(self, link: Link, opening: OpenFeed, bounds: FeedBounds) -> None:
        self.link = link
        self.number = opening.feed
        self.is_lossless = opening.lossless
        # Bytes that may still be sent. Below zero it is what the last message took beyond the credit.
        self.credit = opening.credit
        # The ordinal of the next event; how many were sent and missed; and the ordinal up to which the program knows all.
        self.next = 0
        self.sent_events = 0
        self.missed_events = 0
        self.told = 0
        self.queued_bytes = 0
        self.booked_bytes = 0
        self.is_closed = False
        # The connections that a lossless feed holds, and since when.
        self.held: dict[Held, float] = {}
        # Chunks that wait, each with the ordinal of its first event.
        self._queue: deque[tuple[int, Chunk]] = deque()
        self._bounds = bounds
        if not self.is_lossless:
            bounds.totals.lossy += 1

    # -- events in ----------------------------------------------------------------------------------------------------------

    def take(self, chunk: Chunk, events: Sequence[FeedEvent]) -> None:
        """Take the next events, encoded and one by one: send them, let them wait, or drop what may not wait."""
        first, self.next = self.next, self.next + chunk.count
        if not self._queue and self._may_send and self._send(first, chunk):
            return
        if self.is_lossless or self._has_room(chunk.cost_bytes):
            self._enter(first, chunk)
        else:
            self._take_lives(first, events)

    def hold_if_full(self, connection: Held, waiting_bytes: int) -> bool:
        """Hold a connection that adds to a lossless feed whose queue is full, with `waiting_bytes` in the next chunk.

        Returns whether all others must be held too, before they add to it.
        """
        queued, limit = self.queued_bytes + waiting_bytes, self._bounds.settings.queue_bytes
        if queued < limit:
            return False
        self.hold(connection)
        return queued >= OVERFULL * limit

    def hold(self, connection: Held) -> None:
        """Hold a connection, if it is not held already."""
        if connection not in self.held:
            self.held[connection] = monotonic()
            connection.hold(self)

    # -- bytes out ----------------------------------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether something waits that may be sent now: events, or the news of a loss."""
        return (bool(self._queue) or self.told < self.next) and self._may_send

    def send_next(self) -> bool:
        """Send the next message, if it may be sent; returns whether it was."""
        if not self._may_send:
            return False
        if not self._queue:
            return self.told < self.next and self._send(self.next, _NOTHING)
        first, chunk = self._queue[0]
        if not self._send(first, chunk):
            return False
        self._queue.popleft()
        self._count(-chunk.cost_bytes)
        if self.held and self.queued_bytes <= self._bounds.settings.queue_bytes // 2:
            self._release_all()
        return True

    def close(self) -> None:
        """Forget everything: what waits counts as missed, and held connections are read again."""
        if self.is_closed:
            return
        self.is_closed = True
        waiting = sum(chunk.count for _, chunk in self._queue)
        self._miss(waiting)
        self._queue.clear()
        self._count(-self.queued_bytes)
        self._release_all()
        if not self.is_lossless:
            self._bounds.totals.lossy -= 1

    # -- inside -------------------------------------------------------------------------------------------------------------

    @property
    def _may_send(self) -> bool:
        return self.credit > 0 and self.link.queued_bytes <= HIGH_WATER_BYTES

    def _send(self, first: int, chunk: Chunk) -> bool:
        start = feeds.batch_start(self.number, first, first - self.sent_events)
        head_bytes = len(start) + len(chunk.text) + len(feeds.BATCH_END)
        # The body is a frame of its own, even if it is empty.
        parts: list[Wire] = [frame_head(MORE, head_bytes), start, chunk.text, feeds.BATCH_END]
        parts.append(frame_head(0, chunk.body_bytes))
        parts += chunk.bodies
        if not self.link.offer_parts(parts):
            return False
        self.credit -= head_bytes + chunk.body_bytes
        self.sent_events += chunk.count
        self._bounds.totals.sent_events += chunk.count
        self.told = first + chunk.count
        return True

    def _has_room(self, more_bytes: int, extra_bytes: int = 0) -> bool:
        """Whether this much more may wait. An empty queue takes any one chunk, unless all queues together are full."""
        settings, totals = self._bounds.settings, self._bounds.totals
        queued = self.queued_bytes
        if queued and queued + more_bytes > settings.queue_bytes + extra_bytes:
            return False
        if totals.queued_bytes + more_bytes <= settings.total_queue_bytes:
            return True
        return queued + more_bytes <= settings.total_queue_bytes // totals.lossy

    def _enter(self, first: int, chunk: Chunk) -> None:
        self._queue.append((first, chunk))
        self._count(chunk.cost_bytes)

    def _take_lives(self, first: int, events: Sequence[FeedEvent]) -> None:
        """Keep the lifecycle events of a chunk that has no room, as far as they may wait, and drop the others."""
        run: list[FeedEvent] = []
        kept = 0
        for index, event in enumerate((*events, None)):
            if event is not None and event.is_life:
                run.append(event)
                continue
            if run:
                chunk = Chunk(run)
                if self._has_room(chunk.cost_bytes, LIFECYCLE_QUEUE_BYTES):
                    self._enter(first + index - len(run), chunk)
                    kept += chunk.count
                run = []
        self._miss(len(events) - kept)

    def _miss(self, count: int) -> None:
        self.missed_events += count
        self._bounds.totals.missed_events += count

    def _count(self, more_bytes: int) -> None:
        self.queued_bytes += more_bytes
        if self.is_lossless:
            self._bounds.budget.book(self, self.queued_bytes)
        else:
            self._bounds.totals.queued_bytes += more_bytes

    def _release_all(self) -> None:
        held, self.held = self.held, {}
        for connection in held:
            connection.release(self)


def _bodies(payloads: list[bytes]) -> tuple[bytes, ...]:
    """The payloads one after another: small ones joined, large ones as they are."""
    bodies: list[bytes] = []
    small: list[bytes] = []
    for payload in payloads:
        if len(payload) < APART_BYTES:
            small.append(payload)
            continue
        if small:
            bodies.append(b"".join(small))
            small = []
        bodies.append(payload)
    if small:
        bodies.append(b"".join(small))
    return tuple(bodies)


_NOTHING: Final = Chunk(())
