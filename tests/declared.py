"""Whether what a real engine says is what is declared: no field less, none more, and each of its type."""

from __future__ import annotations

from typing import Any

import msgspec

from rlpx.engine.client.batch_reader import Event
from rlpx.protocol.bus.commands import COMMANDS
from rlpx.protocol.bus.events import event_type


def check_event(event: Event) -> None:
    """Insist that an event is that of its topic's struct."""
    _check(event.fields, event_type(event.topic), event.topic)


def check_feed_event(event: dict[str, Any]) -> None:
    """Insist that an event of a feed is that of its topic's struct, with the topic."""
    fields = dict(event)
    topic = fields.pop("topic")
    _check(fields, event_type(topic), topic)


def check_result(method: str, result: Any) -> None:
    """Insist that an answer is that of its command's result."""
    _check(result, COMMANDS[method].result, method)


def _check(value: Any, kind: Any, name: str) -> None:
    # What is not declared would be left out on the way there and back.
    declared = msgspec.json.decode(msgspec.json.encode(msgspec.convert(value, kind)))
    assert declared == value, f"{name}: {value} is declared as {declared}"
