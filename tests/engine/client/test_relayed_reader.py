"""The numbers of a filtered feed show every loss, over workers that are replaced."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rlpx.engine.client.batch_reader import Event, Gap, Malformed
from rlpx.engine.client.relayed_reader import RelayedReader


def message(first: int, *payloads: bytes, **head: Any) -> bytes:
    events = [{"topic": "eth.Transactions", "session": 1, "size": len(payload)} for payload in payloads]
    fields = {"run": "r", "worker": 0, "feed": 1, "first": first, "dropped": 0, "events": events, **head}
    return json.dumps(fields).encode() + b"\n" + b"".join(payloads)


def payloads(items: list[Event | Gap | Malformed]) -> list[bytes]:
    return [item.payload for item in items if isinstance(item, Event)]


def test_a_listener_begins_where_the_feed_is_and_misses_nothing_before() -> None:
    reader = RelayedReader()
    [event] = reader.read(message(7, b"a\nb"))
    assert event == Event("eth.Transactions", 0, {"session": 1, "size": 3}, b"a\nb", "r", 7)
    assert reader.read(message(8)) == []


def test_what_is_missing_is_a_gap_also_without_any_event() -> None:
    reader = RelayedReader()
    reader.read(message(0))
    assert reader.read(message(4, b"x"))[0] == Gap("", 0, 4, 0)
    assert reader.read(message(9)) == [Gap("", 0, 4, 5)]
    assert reader.read(message(9)) == []


def test_a_feed_at_another_worker_process_is_expected_from_its_first_event() -> None:
    reader = RelayedReader()
    reader.read(message(5, b"x"))
    assert reader.read(message(2, b"y", feed=2))[0] == Gap("", 0, 2, 0)
    assert reader.read(message(0, b"z", run="s")) == [
        Event("eth.Transactions", 0, {"session": 1, "size": 1}, b"z", "s", 0),
    ]
    # Another worker has numbers of its own.
    assert payloads(reader.read(message(30, b"w", worker=1))) == [b"w"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        message(0, b"x") + b"y",
        message(0, events=[{"size": 1}]),
        message(0, events=[{"topic": 3}]),
        message(0, events=[{"topic": "t", "size": -1}]) + b"x",
    ],
)
def test_what_is_no_message_is_said_and_nothing_else_happens(data: bytes) -> None:
    reader = RelayedReader()
    reader.read(message(0))
    [item] = reader.read(data)
    assert isinstance(item, Malformed)
    assert payloads(reader.read(message(0, b"x"))) == [b"x"]
