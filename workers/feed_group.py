"""The feeds with the same topics and the same filter: an event is tested and written once for all of them."""

from __future__ import annotations

from rlpx.protocol.bus.batches import Interest
from rlpx.protocol.bus.feed_filters import MessageFacts, message_test, session_test
from rlpx.protocol.bus.feeds import Where
from rlpx.protocol.bus.sessions import SessionView
from rlpx.workers.feed import Chunk, Feed, FeedEvent, Held


class Group:
    """See the module. `topics` says of a topic whether the feeds want it."""

    __slots__ = (
        "_events",
        "_lossless",
        "_message_test",
        "_sample",
        "_seen",
        "_session_test",
        "feeds",
        "is_narrow",
        "is_selective",
        "key",
        "topics",
        "waiting_bytes",
    )

    def __init__(self, key: tuple[frozenset[str], Where]) -> None:
        topics, where = key
        self.key = key
        self.topics = Interest()
        self.topics.change(topic.encode() for topic in topics)
        self._session_test = session_test(where)
        self._message_test = message_test(where)
        self._sample = where.sample
        self._seen = 0
        # Whether some sessions do not match.
        self.is_narrow = self._session_test is not None
        # Whether some messages do not pass.
        self.is_selective = self._message_test is not None or where.sample > 1
        self.feeds: dict[Feed, None] = {}
        self._lossless: list[Feed] = []
        self._events: list[FeedEvent] = []
        self.waiting_bytes = 0

    def join(self, feed: Feed) -> None:
        """Let a feed have every event from now on. Call `flush` first: what waits is older."""
        self.feeds[feed] = None
        if feed.is_lossless:
            self._lossless.append(feed)

    def leave(self, feed: Feed) -> None:
        """Let a feed have nothing more."""
        del self.feeds[feed]
        if feed.is_lossless:
            self._lossless.remove(feed)

    def matches(self, view: SessionView) -> bool:
        """Whether a session matches, by what is known of it now."""
        return self._session_test is None or self._session_test(view)

    def passes(self, facts: MessageFacts) -> bool:
        """Whether a message of a session that matches passes; of those, the first of each `sample`."""
        if self._message_test is not None and not self._message_test(facts):
            return False
        if self._sample == 1:
            return True
        self._seen += 1
        return self._seen % self._sample == 1

    def add(self, event: FeedEvent, connection: Held | None) -> bool:
        """Enter an event of a connection; if it cannot leave, a lossless feed holds the connection.

        Returns whether all connections must be held: call `hold` for those whose messages are for this group.
        """
        self._events.append(event)
        self.waiting_bytes += len(event.text) + len(event.payload)
        is_overfull = False
        for feed in self._lossless:
            if connection is not None and feed.hold_if_full(connection, self.waiting_bytes):
                is_overfull = True
        return is_overfull

    def hold(self, connection: Held) -> None:
        """Let the lossless feeds hold a connection."""
        for feed in self._lossless:
            feed.hold(connection)

    def flush(self) -> None:
        """Give all feeds what waits."""
        events, self._events = self._events, []
        self.waiting_bytes = 0
        if events:
            chunk = Chunk(events)
            for feed in self.feeds:
                feed.take(chunk, events)
