"""The feeds of all programs at this worker: opening and closing them, and every event on its way into those that want it.

Opening is one act in one loop iteration: what waits for the group leaves, the sessions are listed, and the feed joins. So
every event is either in the snapshot or follows it. Openings wait for each other, as a snapshot may be long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final, Protocol

import msgspec

from rlpx.protocol.bus import feeds, zmtp
from rlpx.protocol.bus.batches import Interest, Publisher
from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.events import Event
from rlpx.protocol.bus.feed_filters import MessageFacts
from rlpx.protocol.bus.feeds import CloseFeed, FeedError, GrantCredit, OpenFeed, read_feed_message
from rlpx.protocol.bus.link import HIGH_WATER_BYTES, Link
from rlpx.protocol.bus.results import FeedsStatus, HoldingFeedStatus
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.eth.kinds import MessageKind
from rlpx.protocol.settings import EventSettings, FeedSettings
from rlpx.workers.audience import Readers
from rlpx.workers.audiences import Audiences
from rlpx.workers.budget import Budget, largest
from rlpx.workers.connection import Connection
from rlpx.workers.feed import Feed, FeedBounds, FeedEvent, FeedTotals
from rlpx.workers.feed_group import Group
from rlpx.workers.shown import ShownSessions

# The time for opening feeds in one loop iteration: at least one is opened.
OPENING_SECONDS: Final = 0.002
# Between two flushes is at least this many times the duration of the first one, so that many feeds leave time for peers.
FLUSH_PAUSE: Final = 3
# The most lossless feeds that `status` lists: those that hold connections for longest.
LISTED_HOLDING: Final = 16


class Timer(Protocol):
    """A scheduled call of the loop."""

    def cancel(self) -> None:
        """Cancel the call."""


class Clock(msgspec.Struct, frozen=True):
    """The loop's calls: in the next iteration, and after a number of seconds."""

    call_soon: Callable[[Callable[[], None]], object]
    call_later: Callable[[float, Callable[[], None]], Timer]


class Program:
    """One connected program and its feeds. `ready` are those that wait for room in the connection, in turn."""

    __slots__ = ("feeds", "ready")

    def __init__(self) -> None:
        self.feeds: dict[int, Feed] = {}
        self.ready: dict[Feed, None] = {}


class Feeds:
    """See the module. `connections` are those whose sessions live. Drive it with `turn` as time passes."""

    def __init__(
        self,
        publisher: Publisher,
        settings: tuple[EventSettings, FeedSettings],
        budget: Budget,
        clock: Clock,
        subscribed: Interest,
    ) -> None:
        self._publisher = publisher
        self._events, self._settings = settings
        self._clock = clock
        self.totals = FeedTotals()
        self._bounds = FeedBounds(self._settings, self.totals, budget)
        self._connections: Mapping[SessionId, Connection] = {}
        self._programs: dict[Link, Program] = {}
        self._count = 0
        self._audiences = Audiences(subscribed)
        self.widest = self._audiences.widest
        self._group_of: dict[Feed, Group] = {}
        # Groups whose last feed has ended: they are removed together, as each removal concerns all sessions.
        self._empty: dict[Group, None] = {}
        # Feeds that are to be opened, the one that has waited longest first.
        self._openings: deque[tuple[Link, OpenFeed, Feed]] = deque()
        self._is_opening_due = False
        self._shown = ShownSessions(monotonic)
        # Groups with events that wait for their batch, and the timers that are set meanwhile.
        self._waiting: dict[Group, None] = {}
        self._timer: Timer | None = None
        self._life_timer: Timer | None = None
        # The duration of the last flush.
        self._flush_seconds = 0.0

    def begin(self, connections: Mapping[SessionId, Connection]) -> None:
        """Set the connections whose sessions are listed."""
        self._connections = connections
        self._audiences.begin(connections)

    @property
    def count(self) -> int:
        """The number of feeds, including those that are to be opened."""
        return self._count

    def relieve(self, budget: Budget, largest_bytes: int) -> bool:
        """The worker's budget is used up: end the lossless feed with the most; returns whether one was ended.

        A session that holds more, `largest_bytes`, goes first, unless lossless feeds hold half of the budget.
        """
        lossless = [feed for feed in self._group_of if feed.booked_bytes]
        feed = largest(lossless)
        if feed is None:
            return False
        if feed.booked_bytes < largest_bytes and sum(each.booked_bytes for each in lossless) * 2 < budget.limit_bytes:
            return False
        text = f"{feed.booked_bytes} bytes wait for its program, the most of all feeds when a worker's {budget.limit_bytes}"
        self._end(self._programs[feed.link], feed, f"{text} were used")
        return True

    def pulse(self, *, now: float) -> FeedsStatus:
        """What `status` says of feeds."""
        holding = sorted((feed for feed in self._group_of if feed.held), key=lambda feed: min(feed.held.values()))
        return FeedsStatus(
            open=self._count,
            queued_bytes=sum(feed.queued_bytes for feed in self._group_of),
            sent_events=self.totals.sent_events,
            missed_events=self.totals.missed_events,
            held_sessions=len({connection for feed in holding for connection in feed.held}),
            holding=tuple(
                HoldingFeedStatus(
                    program=feed.link.number,
                    remote=feed.link.remote,
                    user=feed.link.user,
                    feed=feed.number,
                    sessions=len(feed.held),
                    held_ms=int((now - min(feed.held.values())) * 1000),
                    queued_bytes=feed.queued_bytes,
                )
                for feed in holding[:LISTED_HOLDING]
            ),
        )

    # -- events -------------------------------------------------------------------------------------------------------------

    def on_subscriptions_changed(self) -> None:
        """The engine's subscribers read other topics."""
        self._audiences.clear()

    def classify(self, connection: Connection) -> None:
        """A session is established: from now on it is known which feeds its messages are for."""
        self._audiences.classify(connection)

    def forget(self, connection: Connection) -> None:
        """A session has ended."""
        self._shown.forget(connection)
        for feed in connection.holders or ():
            feed.held.pop(connection, None)
        connection.holders = None

    def add_lifecycle(self, topic: str, view: SessionView, event: Event) -> None:
        """Enter an event of a session's life into the feeds that want it."""
        entered: FeedEvent | None = None
        for group in self._audiences:
            if group.topics[topic] and group.matches(view):
                if entered is None:
                    text = feeds.with_topic(topic, msgspec.json.encode(event).decode())
                    entered = FeedEvent(text, b"", is_life=True)
                group.add(entered, None)
                self._waiting[group] = None
        if entered is not None and self._life_timer is None:
            self._life_timer = self._flush_later(self._events.lifecycle_batch_ms)

    def wanting(self, connection: Connection, readers: Readers, kind: MessageKind, payload: bytes) -> Sequence[Group]:
        """The groups among the readers of a message that it passes into."""
        groups: Sequence[Group] = readers.groups
        if connection.audience is self.widest:
            view = connection.view
            groups = [group for group in groups if view is not None and group.matches(view)]
        if readers.is_selective:
            facts = MessageFacts(kind, payload)
            groups = [group for group in groups if group.passes(facts)]
        return groups

    def add(self, connection: Connection, groups: Sequence[Group], event: FeedEvent) -> None:
        """Enter a message of a connection into these groups."""
        for group in groups:
            if group.add(event, connection):
                self._hold_all(group)
            if group.waiting_bytes >= self._events.batch_bytes:
                group.flush()
                self._waiting.pop(group, None)
            else:
                self._waiting[group] = None
        if self._timer is None and self._waiting:
            self._timer = self._flush_later(self._events.batch_ms)

    def _hold_all(self, group: Group) -> None:
        """Hold all connections whose messages are for a group; those whose sessions are not established send none."""
        for connection in self._connections.values():
            audience = connection.audience
            if audience is not self.widest and (group in audience.narrow or not group.is_narrow):
                group.hold(connection)

    def flush(self) -> None:
        """Give all feeds the events that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._life_timer is not None:
            self._life_timer.cancel()
            self._life_timer = None
        waiting, self._waiting = self._waiting, {}
        started = monotonic()
        for group in waiting:
            group.flush()
        self._flush_seconds = monotonic() - started

    def turn(self) -> None:
        """Send what waits although its connection is not full: all queues together were, or a loss is to be shown."""
        for link, program in self._programs.items():
            program.ready.update((feed, None) for feed in program.feeds.values() if feed.is_ready)
            if program.ready:
                self._send(link, program)
        if self._openings:
            self._open_soon()
        else:
            self._shown.expire()

    def close(self) -> None:
        """End all feeds, because the worker is ending."""
        self.flush()
        for program in self._programs.values():
            for feed in list(program.feeds.values()):
                self._end(program, feed, "the worker is ending")

    def _flush_later(self, milliseconds: float) -> Timer:
        """Flush after this time, or later if the last flush took long, as there are many feeds."""
        return self._clock.call_later(max(milliseconds / 1000, self._flush_seconds * FLUSH_PAUSE), self.flush)

    # -- the data endpoint --------------------------------------------------------------------------------------------------

    def on_message(self, link: Link, frames: list[bytes]) -> str | None:
        """A program opens a feed, grants credit or ends a feed."""
        try:
            self._take(link, read_feed_message(frames[0]))
        except FeedError as error:
            link.offer(zmtp.encode([feeds.refused(error)]))
        return None

    def refuse(self, link: Link, frames: list[bytes], text: str) -> None:
        """Refuse a message of a program that has not the right to read events."""
        try:
            number = read_feed_message(frames[0]).feed
        except FeedError as error:
            number = error.feed
        link.offer(zmtp.encode([feeds.refused(FeedError(number, ErrorName.REFUSED, text))]))

    def on_room(self, link: Link) -> None:
        """A program has read what it was sent: its feeds take turns."""
        program = self._programs.get(link)
        if program is None:
            return
        program.ready.update((feed, None) for feed in program.feeds.values() if feed.is_ready)
        self._send(link, program)
        if self._openings:
            self._open_soon()

    def on_gone(self, link: Link) -> None:
        """A program has disconnected, and its feeds end."""
        program = self._programs.pop(link, None)
        if program is not None:
            for feed in list(program.feeds.values()):
                self._forget(program, feed)

    # -- inside -------------------------------------------------------------------------------------------------------------

    def _take(self, link: Link, message: feeds.FeedMessage) -> None:
        program = self._programs.get(link)
        if program is None:
            program = self._programs[link] = Program()
        feed = program.feeds.get(message.feed)
        if isinstance(message, OpenFeed):
            self._request(link, program, message)
        elif feed is None:
            raise FeedError(
                message.feed, ErrorName.INVALID_PARAMS, f"feed: no feed {message.feed} is open in this connection"
            )
        elif isinstance(message, CloseFeed):
            self._end(program, feed, "closed by its program")
        else:
            self._grant(link, program, feed, message)

    def _request(self, link: Link, program: Program, opening: OpenFeed) -> None:
        number, settings = opening.feed, self._settings
        if number in program.feeds:
            raise FeedError(number, ErrorName.INVALID_PARAMS, f"feed: feed {number} is open already in this connection")
        if len(program.feeds) >= settings.max_of_connection:
            text = f"{settings.max_of_connection} feeds are open in this connection, which is the limit"
            raise FeedError(number, ErrorName.REFUSED, text)
        if self._count >= settings.max_feeds:
            raise FeedError(
                number, ErrorName.REFUSED, f"{settings.max_feeds} feeds are open at this worker, which is the limit"
            )
        feed = program.feeds[number] = Feed(link, opening, self._bounds)
        self._count += 1
        self._openings.append((link, opening, feed))
        self._open_soon()

    def _grant(self, link: Link, program: Program, feed: Feed, message: GrantCredit) -> None:
        feed.credit = min(feed.credit + message.credit, feeds.MAX_CREDIT_BYTES)
        if feed.is_ready:
            program.ready[feed] = None
            self._send(link, program)

    def _send(self, link: Link, program: Program) -> None:
        """Let the feeds of a program that have something to send take turns, while its connection has room."""
        ready = program.ready
        while ready and link.queued_bytes <= HIGH_WATER_BYTES:
            feed = next(iter(ready))
            del ready[feed]
            if feed.send_next() and feed.is_ready:
                ready[feed] = None

    def _end(self, program: Program, feed: Feed, cause: str) -> None:
        """End a feed, and tell its program."""
        group = self._group_of.get(feed)
        if group is not None:
            group.flush()
        while feed.send_next():
            pass
        self._forget(program, feed)
        feed.link.offer(zmtp.encode([feeds.closed(feed.number, cause, feed.next, feed.missed_events)]))

    def _forget(self, program: Program, feed: Feed) -> None:
        del program.feeds[feed.number]
        program.ready.pop(feed, None)
        self._count -= 1
        feed.close()
        group = self._group_of.pop(feed, None)
        if group is None:
            return  # it was to be opened
        group.leave(feed)
        if not group.feeds:
            self._drop_soon(group)

    def _drop_soon(self, group: Group) -> None:
        if not self._empty:
            self._clock.call_soon(self._drop)
        self._empty[group] = None

    def _drop(self) -> None:
        """Remove the groups that have no feeds, unless they have one again."""
        empty, self._empty = self._empty, {}
        groups = [group for group in empty if not group.feeds]
        for group in groups:
            self._waiting.pop(group, None)
        if groups:
            self._audiences.remove(*groups)

    # -- opening ------------------------------------------------------------------------------------------------------------

    def _open_soon(self) -> None:
        if not self._is_opening_due:
            self._is_opening_due = True
            self._clock.call_soon(self._open)

    def _open(self) -> None:
        """Open feeds that wait and whose programs read, for a while."""
        self._is_opening_due = False
        ends_at = monotonic() + OPENING_SECONDS
        for _ in range(len(self._openings)):
            link, opening, feed = self._openings.popleft()
            if feed.is_closed:
                continue
            if link.queued_bytes > HIGH_WATER_BYTES:
                self._openings.append((link, opening, feed))  # `on_room` comes when the program has read
                continue
            if opening.snapshot and not self._shown.write(self._connections.values(), ends_at):
                self._openings.appendleft((link, opening, feed))
                self._open_soon()
                return
            self._confirm(link, opening, feed)
            if monotonic() >= ends_at:
                if self._openings:
                    self._open_soon()
                return

    def _confirm(self, link: Link, opening: OpenFeed, feed: Feed) -> None:
        """Let a feed join its group, and list the sessions that match."""
        group = self._audiences.group((frozenset(opening.topics), opening.where))
        group.flush()
        self._waiting.pop(group, None)
        sessions: list[bytes] = []
        for connection in self._connections.values() if opening.snapshot else ():
            view = connection.view
            if view is not None and group.matches(view) and (text := self._shown.json(connection)):
                sessions.append(text)
        if not link.offer(zmtp.encode([feeds.confirmation(feed.number, self._publisher, sessions)])):
            program = self._programs[link]
            self._forget(program, feed)
            if not group.feeds:
                self._drop_soon(group)
            error = FeedError(
                feed.number, ErrorName.QUEUE_FULL, "the list of sessions has no room in the queues of programs"
            )
            link.offer(zmtp.encode([feeds.refused(error)]))
            return
        group.join(feed)
        self._group_of[feed] = group
