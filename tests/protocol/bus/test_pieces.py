"""A batch that is too long for one message is cut, and what fits nowhere is missing by its number alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpx.engine.client.batch_reader import BatchReader, Event, Gap
from rlpx.protocol.bus.batches import Batch, Numbers, Publisher, empty_batch
from rlpx.protocol.bus.pieces import pieces
from rlpx.protocol.bus.zmtp import decode

FIRST = 95
PUBLISHER = Publisher("run", 3)


def batch(payloads: list[bytes]) -> tuple[bytes, bytes]:
    made = Batch("eth.Transactions", PUBLISHER, Numbers(7, FIRST, 2))
    for payload in payloads:
        made.events.append(json.dumps({"session": 1, "size": len(payload)}))
        made.bodies.append(payload)
    _, head, body = decode(made.wire())
    return bytes(head), bytes(body)


def read(parts: list[tuple[bytes, bytes]]) -> tuple[dict[int, bytes], list[tuple[int, int]]]:
    """What a reader gets: payloads by their numbers, and gaps."""
    reader = BatchReader()
    # It has read everything before.
    _, position, _ = decode(empty_batch(b"eth.Transactions", PUBLISHER, Numbers(7, FIRST, 2)))
    assert reader.read([b"eth.Transactions", bytes(position), b""]) == []
    items = [item for head, body in parts for item in reader.read([b"eth.Transactions", head, body])]
    assert all(isinstance(item, Event | Gap) for item in items)
    return (
        {item.ordinal: item.payload for item in items if isinstance(item, Event)},
        [(item.first, item.missed) for item in items if isinstance(item, Gap)],
    )


def test_a_batch_is_cut_between_events_and_keeps_what_else_its_head_says() -> None:
    head, body = batch([b"a" * 300, b"b" * 300, b"c" * 300])
    parts, left_out = pieces(head, body, 900)
    assert left_out == 0
    assert [len(json.loads(part)["events"]) for part, _ in parts] == [2, 1]
    assert all(len(part) + len(rest) <= 900 for part, rest in parts)
    assert read(parts) == ({95: b"a" * 300, 96: b"b" * 300, 97: b"c" * 300}, [])
    first = json.loads(parts[0][0])
    assert (first["v"], first["run"], first["worker"], first["seq"], first["dropped"]) == (2, "run", 3, 8, 2)


def test_an_event_that_fits_into_no_piece_is_missing() -> None:
    head, body = batch([b"a", b"b" * 1000, b"c", b"d" * 1000])
    parts, left_out = pieces(head, body, 400)
    assert (read(parts), left_out) == (({95: b"a", 97: b"c"}, [(96, 1)]), 2)
    assert pieces(head, body, 10) == ([], 4)


def test_events_without_payloads_are_cut_too() -> None:
    fields = {"first": 95, "events": [{"session": number} for number in range(10)]}
    parts, _ = pieces(json.dumps(fields).encode(), b"", 100)
    assert len(parts) > 2
    assert [event["session"] for part, _ in parts for event in json.loads(part)["events"]] == list(range(10))
    assert [json.loads(part)["first"] for part, _ in parts][:2] == [95, 95 + len(json.loads(parts[0][0])["events"])]


@given(sizes=st.lists(st.integers(0, 500), min_size=1, max_size=30), most=st.integers(150, 900))
def test_each_event_is_in_one_piece_or_counted_as_missing(sizes: list[int], most: int) -> None:
    payloads = [bytes([number]) * size for number, size in enumerate(sizes)]
    head, body = batch(payloads)
    parts, left_out = pieces(head, body, most)
    assert all(len(part) + len(rest) <= most for part, rest in parts)
    found, gaps = read(parts)
    assert all(found[number] == payloads[number - FIRST] for number in found)
    assert len(found) + left_out == len(payloads)
    last = max(found, default=FIRST - 1)
    assert len(found) + sum(missed for _, missed in gaps) == last + 1 - FIRST


@pytest.mark.parametrize("head", [b"{}", b'{"first": 1}', b"[]", b"no", b'{"first": 1, "events": [3]}'])
def test_what_is_no_batch_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        pieces(head, b"x", 1000)
