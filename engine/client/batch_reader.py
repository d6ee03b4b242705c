"""Turns batches into events and, by their numbers, into exact gaps.

It knows the layout of version 2 and the numbers, and has no socket. A malformed batch is an item like any other.
"""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from rlpx.protocol.bus.batches import HEAD_VERSION, prefixes_of
from rlpx.protocol.bus.events import ENGINE_STARTED
from rlpx.protocol.errors import MessageError

if TYPE_CHECKING:
    from rlpx.protocol.eth.messages import EthMessage
    from rlpx.protocol.eth.snap_messages import SnapMessage


M = TypeVar("M")


class Event(msgspec.Struct, frozen=True):
    """One event: its topic, the worker that saw it (`None`: the engine), its fields and its payload.

    `ordinal` counts the events of its topic by its publisher, from 0, within the engine's `run`.
    """

    topic: str
    worker: int | None
    fields: dict[str, Any]
    payload: bytes
    run: str = ""
    ordinal: int = 0

    def decode(self) -> EthMessage | SnapMessage:
        """The payload as the typed message of its topic, in the form of the negotiated version.

        Raises `PeerError` if the payload is malformed, `ValueError` if the topic is not a message of eth or snap.
        """
        from rlpx.engine.client.decoding import decode  # noqa: PLC0415 - loads every message, for those who decode

        return decode(self.topic, self.fields.get("version"), self.payload)

    def decode_as(self, kind: type[M]) -> M:
        """The payload as a message of this kind. Raises `MessageError` if it is another one, else as `decode`."""
        message = self.decode()
        if not isinstance(message, kind):
            raise MessageError(f"{type(message).__name__} where {kind.__name__} was expected")
        return message


class Gap(msgspec.Struct, frozen=True):
    """`missed` events of a topic and a worker are missing here, from the ordinal `first` on."""

    topic: str
    worker: int | None
    missed: int
    first: int = 0


class Malformed(msgspec.Struct, frozen=True):
    """A batch that cannot be read, and why. Its events show as a `Gap` later."""

    topic: str
    cause: str


Item: TypeAlias = Event | Gap | Malformed


class Head(msgspec.Struct, frozen=True):
    """The second frame. Only confirmations have `next`: topic, worker, and the ordinal of the next event."""

    v: int
    run: str
    worker: int | None
    seq: int
    first: int
    dropped: int
    events: list[dict[str, Any]]
    next: list[tuple[str, int | None, int]] | None = None
    started_us: int | None = None


class BatchReader:
    """Turns batches into items. `run` names the engine's start, `confirmed` the prefixes in effect there."""

    def __init__(self) -> None:
        self.run: str | None = None
        self.confirmed: set[bytes] = set()
        # The ordinal of the next event, by topic and worker.
        self._next: dict[tuple[str, int | None], int] = {}
        self._has_told_run = False
        # True if an earlier run was read: then every event of this run is expected, from the first.
        self._is_restarted = False
        self._decoder = msgspec.json.Decoder(Head)

    def following(self, topic: str, worker: int | None) -> int:
        """The ordinal of the next event of a topic and a publisher. All before it were read, or are known to be missing."""
        return self._next.get((topic, worker), 0)

    def read(self, frames: list[bytes]) -> list[Item]:
        """The items of one message. Never raises, whatever the message is."""
        try:
            topic = frames[0].decode() if frames else ""
        except UnicodeDecodeError:
            return [Malformed(repr(frames[0]), "the topic is not UTF-8")]
        try:
            name, encoded, body = frames
            head = self._decoder.decode(encoded)
            if head.v != HEAD_VERSION:
                return [Malformed(topic, f"version {head.v} of the layout, this reads {HEAD_VERSION}")]
            events = _cut(name.decode(), head, body)
        except ValueError as error:  # msgspec's own are ValueErrors
            return [Malformed(topic, str(error))]
        items: list[Item] = []
        if head.run != self.run:
            self._on_run(head, items)
        if head.next is None:
            self._report_gap(topic, head.worker, head.first, items, is_new=not self._is_confirmed(topic))
            self._next[topic, head.worker] = head.first + len(events)
        else:
            for source, worker, following in head.next:
                self._report_gap(source, worker, following, items, is_new=not self._is_confirmed(source))
                self._next[source, worker] = following
            self.confirmed.add(frames[0])
        if topic == ENGINE_STARTED and events:
            # Another batch of this run may have come first; then the restart was reported with that batch.
            events = [] if self._has_told_run else events
            self._has_told_run = True
        items += events
        return items

    def _on_run(self, head: Head, items: list[Item]) -> None:
        """The engine was started again: sessions and numbers of the earlier run are void."""
        if self.run is not None:
            # If the head does not state the time of the start, use the time at which the restart is noticed.
            time_us = head.started_us or time_ns() // 1000
            fields = {"time_us": time_us, "session": None, "peer": None, "run": head.run}
            items.append(Event(ENGINE_STARTED, None, fields, b"", head.run))
        self._has_told_run = self._is_restarted = self.run is not None
        self.run = head.run
        self.confirmed.clear()
        self._next.clear()

    def _report_gap(self, topic: str, worker: int | None, first: int, items: list[Item], *, is_new: bool) -> None:
        """Report the events that are missing before `first`. `is_new`: the subscription may begin here."""
        expected = self._next.get((topic, worker), first if is_new and not self._is_restarted else 0)
        if first > expected:
            items.append(Gap(topic, worker, first - expected, expected))

    def _is_confirmed(self, topic: str) -> bool:
        return not self.confirmed.isdisjoint(prefixes_of(topic))


def _cut(topic: str, head: Head, body: bytes) -> list[Item]:
    """The events with their payloads. Raises `ValueError` if their sizes do not add up to the body's."""
    events: list[Item] = []
    offset, ordinal = 0, head.first
    for fields in head.events:
        size = fields.get("size", 0) if body else 0
        if type(size) is not int or size < 0:
            raise ValueError(f"size: {size!r} is no number of bytes")
        events.append(Event(topic, head.worker, fields, body[offset : offset + size], head.run, ordinal))
        offset += size
        ordinal += 1
    if offset != len(body):
        raise ValueError(f"the events' sizes add up to {offset} bytes, the body has {len(body)}")
    return events
