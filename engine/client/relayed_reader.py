"""Turns messages of a fleet's filtered feed into events and, by their numbers, into exact gaps. One host; it has no socket.

A host passes on what each of its workers sends to one feed, whose events have numbers from 0. A worker that was replaced
begins another one.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rlpx.engine.client.batch_reader import Event, Gap, Malformed


class _Head(msgspec.Struct, frozen=True):
    run: str
    worker: int
    feed: int
    first: int
    events: list[dict[str, Any]]


_read_head: Final = msgspec.json.Decoder(_Head).decode


class RelayedReader:
    """See the module."""

    def __init__(self) -> None:
        # By worker: its feed, as run and number, and the ordinal of the next event.
        self._at: dict[int, tuple[tuple[str, int], int]] = {}

    def read(self, data: bytes) -> list[Event | Gap | Malformed]:
        """The items of one message. Never raises, whatever the message is. A gap has no topic: any may be missing."""
        encoded, _, body = data.partition(b"\n")
        try:
            head = _read_head(encoded)
            events = _events(head, body)
        except (ValueError, KeyError, TypeError) as error:  # msgspec's own are ValueErrors
            return [Malformed("", str(error))]
        feed = head.run, head.feed
        known = self._at.get(head.worker)
        # What came before a listener began is not missing; what came since another feed began is.
        expected = head.first if known is None else known[1] if known[0] == feed else 0
        self._at[head.worker] = feed, head.first + len(events)
        gap = [Gap("", head.worker, head.first - expected, expected)] if head.first > expected else []
        return [*gap, *events]


def _events(head: _Head, body: bytes) -> list[Event]:
    """The events with their payloads. Raises `ValueError`, `KeyError` or `TypeError`."""
    events: list[Event] = []
    offset = 0
    for ordinal, fields in enumerate(head.events, head.first):
        topic = fields.pop("topic")
        size = fields.get("size", 0) if body else 0
        if type(topic) is not str or type(size) is not int or size < 0:
            raise ValueError(f"topic {topic!r}, size {size!r}")
        events.append(Event(topic, head.worker, fields, body[offset : offset + size], head.run, ordinal))
        offset += size
    if offset != len(body):
        raise ValueError(f"the events' sizes add up to {offset} bytes, the body has {len(body)}")
    return events
