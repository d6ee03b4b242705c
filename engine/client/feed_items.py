"""What a feed gives: snapshots, events, gaps and losses; and how the messages of one worker become these.

It knows the frames and the ordinals, and has no socket.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from rlpx.engine.client.batch_reader import Event, Gap
from rlpx.protocol.bus.results import SessionObject


class Snapshot(msgspec.Struct, frozen=True):
    """The sessions of one worker that match, at this place in the feed. They replace what was known of the worker.

    It comes first, once for each worker, and again for each worker that replaced another one or came back with the engine.
    """

    run: str
    worker: int
    sessions: tuple[SessionObject, ...]


class Lost(msgspec.Struct, frozen=True):
    """The connection to a worker has ended. What the worker had not sent is missing, and nobody knows how much that is.

    Its sessions have ended with it if it was replaced. A `Snapshot` follows as soon as there is a worker again.
    """

    run: str
    worker: int
    cause: str


FeedItem: TypeAlias = Snapshot | Event | Gap | Lost


class FeedHead(msgspec.Struct, frozen=True, gc=False):
    """The head of a worker's message to a feed. Which fields it has says what it is."""

    feed: int
    run: str | None = None
    worker: int | None = None
    sessions: tuple[SessionObject, ...] = ()
    first: int = 0
    dropped: int = 0
    events: list[dict[str, Any]] | None = None
    closed: str | None = None
    error: dict[str, str] | None = None


read_head: Final = msgspec.json.Decoder(FeedHead).decode


class PartReader:
    """The messages of one worker's part of a feed, in order. `missed` counts the events that are known to be missing."""

    def __init__(self, worker: int) -> None:
        self.worker = worker
        # Known from the confirmation on.
        self.run: str | None = None
        self.received = 0
        self.missed = 0

    def read(self, head: FeedHead, body: bytes) -> list[FeedItem]:
        """The items of one message that is no error."""
        if head.run is not None:
            self.run = head.run
            return [Snapshot(head.run, self.worker, head.sessions)]
        items: list[FeedItem] = []
        missing = head.first - self.received - self.missed
        if missing > 0:
            items.append(Gap("", self.worker, missing, head.first - missing))
            self.missed += missing
        if head.closed is not None:
            items.append(self.lost(head.closed))
        if head.events:
            items += self._events(head.first, head.events, body)
            self.received += len(head.events)
        return items

    def lost(self, cause: str) -> Lost:
        """The item for the end of the connection, or of the feed at this worker."""
        return Lost(self.run or "", self.worker, cause)

    def _events(self, first: int, read: list[dict[str, Any]], body: bytes) -> list[Event]:
        events: list[Event] = []
        offset, ordinal, run, worker = 0, first, self.run or "", self.worker
        for fields in read:
            topic = fields.pop("topic")
            # Events without a payload have no size.
            size = fields.get("size", 0)
            payload = body[offset : offset + size] if size else b""
            events.append(Event(topic, worker, fields, payload, run, ordinal))
            offset += size
            ordinal += 1
        return events
