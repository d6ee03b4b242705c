"""Messages of sessions as events: with all that is known of them, and only for those who subscribed."""

from __future__ import annotations

from pathlib import Path
from time import time_ns
from typing import Any

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import SessionClosed
from tests.pair import DIALER, encoded
from tests.workers.hosted import (
    DRAIN,
    GET_BLOCK_HEADERS,
    ONE,
    QUITTING,
    TRANSACTIONS,
    hosted,
)


async def test_messages_are_published_with_all_that_is_known_of_them(tmp_path: Path) -> None:
    asked = encoded([77, [1, 1, 0, 0]])
    batches: dict[str, tuple[dict[str, Any], bytes]] = {}
    before_us = time_ns() // 1000
    async with hosted(tmp_path) as engine:
        await engine.subscribe(b"", b"tap.")
        peer = await engine.established(ONE)
        peer.send("eth", GET_BLOCK_HEADERS, asked)
        peer.send("eth", TRANSACTIONS, b"\xc1\x05")
        for topic in ("eth.Transactions", "eth.GetBlockHeaders", "tap.eth.BlockHeaders"):
            batches[topic] = await engine.batch(topic)
    shown: dict[str, dict[str, Any]] = {}
    for topic, (head, body) in batches.items():
        assert (head["v"], head["run"], head["worker"]) == (2, "run", 3)
        event = shown[topic] = head["events"][0]
        assert before_us <= event.pop("time_us") <= time_ns() // 1000
        assert (event.pop("session"), event.pop("peer")) == (ONE, DIALER.key.id.hex())
        assert sum(item["size"] for item in head["events"]) == len(body)
    assert shown["eth.Transactions"] == {"size": 2, "wire_size": 4, "version": 72}
    assert shown["eth.GetBlockHeaders"] == {"size": 7, "wire_size": 9, "version": 72, "request_id": 77}
    assert shown["tap.eth.BlockHeaders"] == {"size": 3, "version": 72, "request_id": 77}


async def test_what_somebody_reads_is_published_with_its_payload(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.subscribe(b"eth.Transactions")
        peer = await engine.established(ONE)
        peer.send("eth", TRANSACTIONS, encoded([b"tx"]))
        head, body = await engine.batch("eth.Transactions")
        [event] = head["events"]
        assert (head["worker"], head["seq"], head["first"], head["dropped"]) == (3, 1, 0, 0)
        assert (event["session"], event["peer"], event["version"]) == (ONE, DIALER.key.id.hex(), 72)
        assert (event["size"], body) == (4, b"\xc3\x82tx")
        assert "request_id" not in event


async def test_what_nobody_reads_any_more_is_not_published(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.subscribe(b"eth.", b"snap.")
        engine.command(control.SetInterest(2, (), (b"eth.",)))
        await engine.until(control.InterestSet)
        peer = await engine.established(ONE)
        peer.send("eth", TRANSACTIONS, encoded([b"tx"]))
        peer.leave(QUITTING)
        await engine.until(SessionClosed)
        engine.command(DRAIN)
        await engine.rest()
        assert [published.topic for published in engine.published if published.wire] == []
