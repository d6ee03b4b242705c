"""Requests of peers: answered validly, parked while too many wait, never at the cost of pings."""

from __future__ import annotations

from pathlib import Path

import zmq

from rlpx.protocol.bus.control import SessionClosed
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy
from rlpx.protocol.session.events import MessageReceived
from tests.pair import encoded
from tests.workers.hosted import (
    BLOCK_HEADERS,
    DRAIN,
    GET_BLOCK_BODIES,
    GET_BLOCK_HEADERS,
    ONE,
    TRANSACTIONS,
    hosted,
)


async def test_a_request_too_long_for_any_client_waits_for_nothing(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        peer.send("eth", GET_BLOCK_BODIES, encoded([7, [bytes(32)] * 9000]))
        answer = await peer.until(MessageReceived)
        assert answer.payload == encoded([7, []])
        # If it does not have the form of its message, it is not answered.
        peer.send("eth", GET_BLOCK_HEADERS, encoded([8, bytes(300)]))
        closed = await engine.until(SessionClosed)
        assert closed.reason is DisconnectReason.PROTOCOL_BREACH
        assert closed.cause == "GetBlockHeaders.query: a string where a list belongs"


async def test_while_requests_wait_for_their_turn_pings_do_not(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        context = zmq.Context()
        with context, context.socket(zmq.DEALER) as responder:
            # The loop that serves this socket runs in this thread: closing must not wait for it.
            responder.setsockopt(zmq.LINGER, 0)
            responder.connect(f"ipc://{tmp_path}/worker-0.ipc")
            responder.send(b'{"register": ["eth.GetBlockHeaders"], "credit": 64}')
            for number in range(20):
                peer.send("eth", GET_BLOCK_HEADERS, encoded([number, [1, 2, 0, 0]]))
            # Some may get the empty answer before the responder has registered. Then four are with the responder, which
            # never answers, and the others are parked behind them.
            await peer.ping()
            assert not peer.session.is_closed


async def test_a_request_is_answered_validly_and_published_with_its_id(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        await engine.subscribe(b"eth.GetBlockHeaders")
        peer = await engine.established(ONE)
        peer.send("eth", GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]]))
        answer = await peer.until(MessageReceived)
        assert (answer.kind.id, answer.request_id, answer.payload) == (BLOCK_HEADERS, 77, encoded([77, []]))
        head, _ = await engine.batch("eth.GetBlockHeaders")
        assert head["events"][0]["request_id"] == 77
        [counted] = (await engine.counters()).requests_in
        assert (counted.message, counted.outcomes) == ("GetBlockHeaders", {"empty": 1})


async def test_a_malformed_request_is_a_breach_and_the_last_that_is_heard_of_the_session(tmp_path: Path) -> None:
    get_block_access_lists = 18
    async with hosted(tmp_path) as engine:
        await engine.subscribe(b"eth.")
        peer = await engine.established(ONE)
        peer.send("eth", TRANSACTIONS, encoded([b"before"]))
        # Both in one segment: the second message comes after the end.
        peer.session.send("eth", get_block_access_lists, encoded([77]))
        peer.send("eth", TRANSACTIONS, encoded([b"after"]))
        closed = await engine.until(SessionClosed)
        assert (closed.ended_by, closed.reason) == (EndedBy.US, DisconnectReason.PROTOCOL_BREACH)
        assert closed.cause.startswith("GetBlockAccessLists")
        await peer.until_closed()
        [counted] = (await engine.counters()).requests_in
        assert (counted.message, counted.outcomes) == ("GetBlockAccessLists", {"malformed": 1})
        engine.command(DRAIN)
        await engine.rest()
        bodies = b"".join(published.wire for published in engine.published if published.topic == "eth.Transactions")
        assert b"before" in bodies
        assert b"after" not in bodies
