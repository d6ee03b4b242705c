from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rlpx.engine.overview.tap import MAX_DECODED_BYTES, MAX_TEXT_CHARACTERS, MAX_WAITING, SHOWN_PER_BATCH, Tap, Tapped
from rlpx.protocol.eth.messages import BlockHeaders, GetBlockHeaders, HeadersQuery, NewPooledTransactionHashes68, encode

VERSION = 69


def fields(payload: bytes, **more: Any) -> dict[str, Any]:
    return {"time_us": 1_000_000, "session": 1, "peer": "ab" * 64, "size": len(payload), "version": VERSION, **more}


def take(tap: Tap, topic: str, payload: bytes, **more: Any) -> None:
    tap.take(topic, fields(payload, **more), payload)


def collected(tap: Tap) -> Tapped:
    tapped = tap.collect()
    assert tapped is not None
    return tapped


def announcement(count: int) -> bytes:
    hashes = tuple(number.to_bytes(32, "big") for number in range(count))
    return encode(VERSION, NewPooledTransactionHashes68(bytes([2]) * count, (100,) * count, hashes))


def test_a_message_is_one_line_and_its_fields() -> None:
    tap = Tap()
    take(tap, "eth.GetBlockHeaders", encode(VERSION, GetBlockHeaders(7, HeadersQuery(1234, 192))), request_id=7)
    [shown] = collected(tap).messages
    assert (shown.way, shown.name, shown.request_id) == ("in", "eth.GetBlockHeaders", 7)
    assert shown.summary == "query start=1234 limit=192 skip=0 reverse=False"
    assert json.loads(shown.decoded)["query"]["start"] == 1234
    assert tap.collect() is None


def test_long_lists_are_cut_and_counted() -> None:
    tap = Tap()
    take(tap, "eth.NewPooledTransactionHashes", announcement(1000))
    [shown] = collected(tap).messages
    assert "hashes 1000" in shown.summary
    assert json.loads(shown.decoded)["hashes"][-1] == "… and 984 more"
    assert len(shown.decoded) <= MAX_TEXT_CHARACTERS + 2


@pytest.mark.parametrize(
    ("topic", "payload", "summary", "decoded"),
    [
        ("eth.GetBlockHeaders", b"\xff\xff", "malformed", "0xffff"),
        ("wit.0", b"\x01" * 200, "0x0101", "… (200 bytes)"),
        ("eth.Transactions", b"\x00" * (MAX_DECODED_BYTES + 1), "", "too large to be decoded here"),
        ("eth.Transactions", b"", "malformed", "0x"),
    ],
)
def test_what_cannot_be_decoded_is_shown_as_bytes(topic: str, payload: bytes, summary: str, decoded: str) -> None:
    tap = Tap()
    take(tap, topic, payload)
    [shown] = collected(tap).messages
    assert summary in shown.summary
    assert decoded in shown.decoded


def test_numbers_that_readers_of_json_cannot_hold_are_texts() -> None:
    tap = Tap()
    take(tap, "eth.GetBlockHeaders", encode(VERSION, GetBlockHeaders((1 << 64) - 1, HeadersQuery(1, 1))), request_id=1)
    assert json.loads(collected(tap).messages[0].decoded)["request_id"] == str((1 << 64) - 1)


def test_a_flood_is_cut_and_counted_and_takes_no_memory() -> None:
    tap = Tap()
    for number in range(10_000):
        take(tap, "eth.GetBlockHeaders", encode(VERSION, GetBlockHeaders(number, HeadersQuery(1, 1))), request_id=number)
    tapped = collected(tap)
    assert len(tapped.messages) == SHOWN_PER_BATCH
    assert tapped.omitted == 10_000 - SHOWN_PER_BATCH
    assert len(tapped.requests) == MAX_WAITING
    assert len(msgspec.json.encode(tapped)) < 200_000
    # Of the open requests the latest are kept.
    answer = encode(VERSION, BlockHeaders(9_999, ()))
    take(tap, "tap.eth.BlockHeaders", answer, request_id=9_999)
    assert [request.answered for request in collected(tap).requests] == [True]
    take(tap, "tap.eth.BlockHeaders", answer, request_id=5)
    assert collected(tap).requests == []


@pytest.mark.parametrize(("asks", "answers", "way"), [("", "tap.", "in"), ("tap.", "", "out")])
def test_a_request_is_paired_with_its_answer(asks: str, answers: str, way: str) -> None:
    tap = Tap()
    take(tap, f"{asks}eth.GetBlockHeaders", encode(VERSION, GetBlockHeaders(7, HeadersQuery(1, 1))), request_id=7)
    [asked] = collected(tap).requests
    assert (asked.way, asked.name, asked.answered) == (way, "eth.GetBlockHeaders", False)
    payload = encode(VERSION, BlockHeaders(7, ()))
    # The same number the other way is another request.
    tap.take(f"{asks}eth.BlockHeaders", fields(payload, request_id=7, time_us=1_001_000), payload)
    assert collected(tap).requests == []
    tap.take(f"{answers}eth.BlockHeaders", fields(payload, request_id=7, time_us=1_002_500), payload)
    [answered] = collected(tap).requests
    assert (answered.key, answered.answered, answered.after_ms, answered.size) == (asked.key, True, 2.5, len(payload))


def test_events_that_are_no_messages_are_ignored() -> None:
    tap = Tap()
    tap.take("session.established", {"time_us": 1, "session": 1}, b"")
    assert tap.collect() is None


def test_losses_and_the_end_are_told() -> None:
    tap = Tap()
    tap.lose(5)
    tap.end("the session has ended\x1b[2J")
    tapped = collected(tap)
    assert (tapped.lost, tapped.cause) == (5, "the session has ended\\x1b[2J")
