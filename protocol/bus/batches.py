"""Published events as users receive them: batched by topic, numbered, in three frames `topic | head | body`.

It knows the layout, the numbers and the order, but not where batches are sent. A refused batch is dropped whole; its events
keep their ordinals, so that every reader sees exactly how many are missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Final

import msgspec

from rlpx.protocol.bus.events import AUTHENTICATED, CLOSED, DIAL_FAILED, ESTABLISHED, OPENED, Event
from rlpx.protocol.bus.zmtp import MORE, frame_head
from rlpx.protocol.eth.kinds import TAP

# The version of the head's layout, its field `v`.
HEAD_VERSION: Final = 2
# The order of batches within one flush. As flushes do not overlap and no session's number is used twice, the events of each
# session arrive in this order over all topics.
RANKS: Final = {OPENED: 0, AUTHENTICATED: 1, ESTABLISHED: 2, CLOSED: 4, DIAL_FAILED: 5}
_MESSAGE_RANK: Final = 3


def prefixes_of(topic: str) -> list[bytes]:
    """Return every subscription that asks for a topic, by ZeroMQ's prefix match.

    A subscription to everything means peers' messages: our own (`tap.`) go only to subscribers that name them.
    """
    name = topic.encode()
    least = len(TAP) - 1 if topic.startswith(TAP) else 0
    return [name[:length] for length in range(least, len(name) + 1)]


class Interest(dict[str, bool]):
    """Whether a topic has a subscriber. It is worked out once per topic and change, whatever the number of subscriptions."""

    def __init__(self) -> None:
        super().__init__()
        self._prefixes: set[bytes] = set()

    def __missing__(self, topic: str) -> bool:
        wanted = self[topic] = not self._prefixes.isdisjoint(prefixes_of(topic))
        return wanted

    def change(self, added: Iterable[bytes], removed: Iterable[bytes] = ()) -> None:
        """Add prefixes with a new subscription, and remove others."""
        self._prefixes.difference_update(removed)
        self._prefixes.update(added)
        self.clear()


class Numbers(msgspec.Struct, frozen=True, array_like=True):
    """A publisher's position in a topic: batches sent, the ordinal of the next event (from 0), and events dropped."""

    seq: int = 0
    next: int = 0
    dropped: int = 0


_START: Final = Numbers()


class Publisher(msgspec.Struct, frozen=True):
    """The source of events: the engine's run, and the worker's index, or `None` for the engine itself."""

    run: str
    worker: int | None

    def head(self, numbers: Numbers, first: int, events: str, more: str = "") -> bytes:
        """Return the head of a batch. `events` are JSON objects, comma-separated, `more` are fields, each after a comma."""
        worker = "null" if self.worker is None else self.worker
        return (
            f'{{"v":{HEAD_VERSION},"run":"{self.run}","worker":{worker},"seq":{numbers.seq},"first":{first},'
            f'"dropped":{numbers.dropped},{more}"events":[{events}]}}'
        ).encode()


class Batch:
    """The waiting events of one topic, and its numbers. `sessions` have opened or ended, even if nothing reads that."""

    __slots__ = ("_publisher", "bodies", "events", "is_owing", "numbers", "rank", "sessions", "topic", "wire_topic")

    def __init__(self, topic: str, publisher: Publisher, numbers: Numbers) -> None:
        self.topic = topic
        self.rank = RANKS.get(topic, _MESSAGE_RANK)
        self._publisher = publisher
        # The first frame, encoded once.
        name = topic.encode()
        self.wire_topic = frame_head(MORE, len(name)) + name
        # The position after the last batch that was sent or refused.
        self.numbers = numbers
        # Events were dropped, and no later batch has shown that to readers.
        self.is_owing = False
        # JSON objects.
        self.events: list[str] = []
        self.bodies: list[bytes] = []
        self.sessions: list[int] = []

    @property
    def is_life(self) -> bool:
        """Whether these are lifecycle events, which are never refused: the engine's ledger bounds them."""
        return self.rank != _MESSAGE_RANK

    def wire(self) -> bytes:
        """Return the message for readers, with the numbers that `sent` will confirm; empty without events."""
        if not self.events:
            return b""
        numbers, bodies = self.numbers, self.bodies
        head = self._publisher.head(self._after(), numbers.next, ",".join(self.events))
        body_bytes = sum(map(len, bodies))
        start = (self.wire_topic, frame_head(MORE, len(head)), head, frame_head(0, body_bytes))
        return b"".join((*start, *bodies))

    def reminder(self) -> bytes:
        """Return an empty batch: its `first` shows a reader how many events it has missed."""
        return empty_batch(self.topic.encode(), self._publisher, self.numbers)

    def sent(self) -> None:
        """Note that the batch was sent, and begin the next one."""
        if self.events:
            self.numbers, self.is_owing = self._after(), False
        self._begin()

    def refused(self) -> int:
        """Count the events of the refused batch as dropped, and keep their ordinals; returns their number."""
        seq, following, dropped = self.numbers.seq, self.numbers.next, self.numbers.dropped
        lost = len(self.events)
        self.numbers, self.is_owing = Numbers(seq, following + lost, dropped + lost), True
        self._begin()
        return lost

    def _after(self) -> Numbers:
        numbers = self.numbers
        return Numbers(numbers.seq + 1, numbers.next + len(self.events), numbers.dropped)

    def _begin(self) -> None:
        self.events, self.bodies, self.sessions = [], [], []


class Batches:
    """The batches of one publisher. `numbers` are those of the worker that this one replaces, with the same index."""

    __slots__ = ("_by_topic", "_numbers", "_publisher", "_waiting", "waiting_bytes")

    def __init__(self, publisher: Publisher, numbers: dict[str, Numbers] | None = None) -> None:
        self._publisher = publisher
        self._numbers = numbers or {}
        self._by_topic: dict[str, Batch] = {}
        self._waiting: list[Batch] = []
        self.waiting_bytes = 0

    def add(self, topic: str, event: Event) -> None:
        """Add one event."""
        self.add_encoded(topic, msgspec.json.encode(event).decode())

    def add_encoded(self, topic: str, event: str, payload: bytes = b"") -> None:
        """Add one event, a JSON object that already states the size of its payload."""
        batch = self._by_topic.get(topic) or self._make(topic)
        events = batch.events
        if not events and not batch.sessions:
            self._waiting.append(batch)
        events.append(event)
        if payload:
            batch.bodies.append(payload)
        self.waiting_bytes += len(event) + len(payload)

    def mark(self, topic: str, session: int) -> None:
        """Note that a session was opened or has ended. If the event itself is also added, call this first."""
        batch = self._by_topic.get(topic) or self._make(topic)
        if not batch.events and not batch.sessions:
            self._waiting.append(batch)
        batch.sessions.append(session)

    def take(self) -> list[Batch]:
        """Return the waiting batches in the order in which they must leave. Call `sent` or `refused` on each."""
        waiting, self._waiting = self._waiting, []
        self.waiting_bytes = 0
        if len(waiting) > 1:
            waiting.sort(key=attrgetter("rank"))
        return waiting

    def owing(self) -> list[Batch]:
        """Return the batches whose last events were dropped and that have sent nothing since to show it."""
        return [batch for batch in self._by_topic.values() if batch.is_owing]

    def _make(self, topic: str) -> Batch:
        batch = self._by_topic[topic] = Batch(topic, self._publisher, self._numbers.get(topic, _START))
        return batch


def empty_batch(topic: bytes, publisher: Publisher, numbers: Numbers, more: str = "") -> bytes:
    """Return a message without events that states a publisher's position. `more` is as in `Publisher.head`."""
    head = publisher.head(numbers, numbers.next, "", more)
    frames = (frame_head(MORE, len(topic)), topic, frame_head(MORE, len(head)), head, frame_head(0, 0))
    return b"".join(frames)
