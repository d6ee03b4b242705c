"""Published events as users receive them: batched by topic, numbered, three frames `topic | head | body`.

It knows the layout and the numbers, not the socket. What the socket refuses is dropped whole, and every later batch of the
topic says how many events were lost so far.
"""

from __future__ import annotations

from typing import Final

import orjson

# Version of the head's layout, `v` in it.
HEAD_VERSION: Final = 1
_SUBSCRIBE: Final = b"\x01"
_UNSUBSCRIBE: Final = b"\x00"
# In front of the topics of what we send. A subscription has to name it, with or without the point.
_TAP: Final = b"tap."

EventFields = dict[str, object]


class Interest(dict[str, bool]):
    """Whether anybody subscribed to a topic: ZeroMQ's prefix match, worked out once per topic and change."""

    def __init__(self) -> None:
        super().__init__()
        self._prefixes: set[bytes] = set()

    def __missing__(self, topic: str) -> bool:
        name = topic.encode()
        # Whoever reads everything reads what peers send: what we send is for those who name it.
        least = len(_TAP) - 1 if name.startswith(_TAP) else 0
        wanted = self[topic] = any(name.startswith(prefix) and len(prefix) >= least for prefix in self._prefixes)
        return wanted

    def change(self, frame: bytes) -> None:
        """Take a message of an XPUB: 1 or 0, then the prefix."""
        kind, prefix = frame[:1], frame[1:]
        if kind == _SUBSCRIBE:
            self._prefixes.add(prefix)
        elif kind == _UNSUBSCRIBE:
            self._prefixes.discard(prefix)
        else:
            return  # an XPUB passes on whatever else a subscriber's socket sends
        self.clear()


class Batch:
    """What waits of one topic, and its numbers."""

    __slots__ = ("bodies", "dropped", "events", "seq", "since_us", "topic", "worker")

    def __init__(self, topic: str, worker: int | None, since_us: int) -> None:
        self.topic = topic
        self.worker = worker
        self.since_us = since_us
        # JSON objects.
        self.events: list[str] = []
        self.bodies: list[bytes] = []
        self.seq = 0
        self.dropped = 0

    def frames(self) -> tuple[bytes, bytes, bytes]:
        """The batch as it goes out, with the number that `sent` will confirm."""
        worker = "null" if self.worker is None else self.worker
        head = (
            f'{{"v":{HEAD_VERSION},"worker":{worker},"since_us":{self.since_us},"seq":{self.seq + 1},'
            f'"dropped":{self.dropped},"events":[{",".join(self.events)}]}}'
        )
        return self.topic.encode(), head.encode(), b"".join(self.bodies)

    def sent(self) -> None:
        """The socket took it."""
        self.seq += 1
        self._begin()

    def refused(self) -> int:
        """The socket did not take it: its events are lost and counted. Gives how many."""
        lost = len(self.events)
        self.dropped += lost
        self._begin()
        return lost

    def _begin(self) -> None:
        self.events, self.bodies = [], []


class Batches:
    """The batches of one publisher. `worker` is its index, `None` for the engine; `since_us` is when it started.

    A worker that was replaced counts from one again: by its start a subscriber tells the two apart.
    """

    __slots__ = ("_by_topic", "_since_us", "_waiting", "_worker", "waiting_bytes")

    def __init__(self, worker: int | None, since_us: int) -> None:
        self._worker = worker
        self._since_us = since_us
        self._by_topic: dict[str, Batch] = {}
        self._waiting: list[Batch] = []
        self.waiting_bytes = 0

    def add(self, topic: str, event: EventFields) -> None:
        """Enter one event."""
        self.add_encoded(topic, orjson.dumps(event).decode())

    def add_encoded(self, topic: str, event: str, payload: bytes = b"") -> None:
        """Enter one event, a JSON object, with its payload, whose size it already states."""
        batch = self._by_topic.get(topic)
        if batch is None:
            batch = self._by_topic[topic] = Batch(topic, self._worker, self._since_us)
        if not batch.events:
            self._waiting.append(batch)
        batch.events.append(event)
        if payload:
            batch.bodies.append(payload)
            self.waiting_bytes += len(payload)

    def take(self) -> list[Batch]:
        """The batches that wait; each wants `sent` or `refused`."""
        waiting, self._waiting = self._waiting, []
        self.waiting_bytes = 0
        return waiting
