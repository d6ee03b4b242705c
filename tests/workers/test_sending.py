"""Messages, broadcasts and requests of users: sent as they are, or refused by name; each request has one answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import (
    Broadcast,
    CallId,
    Forget,
    PeerResponse,
    RequestPeer,
    SendMessage,
    Sent,
    SessionClosed,
    SessionId,
)
from rlpx.protocol.errors import DisconnectReason, ErrorName
from rlpx.protocol.session.events import MessageReceived
from rlpx.workers import sending
from rlpx.workers.budget import Budget
from tests.pair import PROTOCOLS, SessionSpec, encoded
from tests.workers.hosted import (
    BLOCK_HEADERS,
    DRAIN,
    GET_BLOCK_HEADERS,
    ONE,
    QUITTING,
    TRANSACTIONS,
    TWO,
    hosted,
)


async def test_a_message_is_sent_as_it_is(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        reply = await engine.asked(SendMessage(engine.call(), ONE, "eth", TRANSACTIONS, b"\xc1\x80"))
        assert reply.error is None
        message = await peer.until(MessageReceived)
        assert (message.kind.topic, message.payload) == ("eth.Transactions", b"\xc1\x80")


@pytest.mark.parametrize(
    ("session", "capability", "message", "error"),
    [(TWO, "eth", 2, "no_such_session"), (ONE, "les", 2, "not_shared"), (ONE, "eth", 99, "not_shared")],
)
async def test_what_cannot_be_sent_is_a_reply_with_its_name(
    tmp_path: Path, session: SessionId, capability: str, message: int, error: str
) -> None:
    async with hosted(tmp_path) as engine:
        await engine.established(ONE)
        call = engine.call()
        reply = await engine.asked(SendMessage(call, session, capability, message, b"\xc0"))
        assert (reply.call, reply.error) == (call, error)
        assert reply.message


async def test_a_peer_that_does_not_read_fills_its_own_queue_only(tmp_path: Path) -> None:
    async with hosted(tmp_path, peer_write_bytes=1 << 16) as engine:
        await engine.established(ONE)
        noise = os.urandom(1 << 18)
        for _ in range(200):
            reply = await engine.asked(SendMessage(engine.call(), ONE, "eth", TRANSACTIONS, noise))
            if reply.error is not None:
                break
        assert reply.error == "queue_full"
        other = await engine.established(TWO, SessionSpec(seed=5))
        await engine.asked(SendMessage(engine.call(), TWO, "eth", TRANSACTIONS, b"\xc0"))
        await other.until(MessageReceived)


async def test_a_request_of_ours_is_answered_with_what_the_peer_says(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        call = engine.call()
        engine.command(RequestPeer(call, ONE, "eth", GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]])))
        request = await peer.until(MessageReceived)
        assert request.kind.topic == "eth.GetBlockHeaders"
        assert request.request_id is not None
        peer.send("eth", BLOCK_HEADERS, encoded([request.request_id, []]))
        answer = await engine.until(PeerResponse)
        # The request id is the caller's own again.
        assert answer == PeerResponse(call, "BlockHeaders", encoded([77, []]))
        [counted] = (await engine.counters()).requests_out
        assert (counted.capability, counted.message, counted.outcomes) == ("eth", "GetBlockHeaders", {"answered": 1})
        assert sum(counted.answered.counts) == 1
        assert counted.answered.sum_seconds > 0


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ((TWO, "eth", GET_BLOCK_HEADERS, b"\xc2\x01\x80"), "no_such_session"),
        ((ONE, "les", GET_BLOCK_HEADERS, b"\xc2\x01\x80"), "not_shared"),
        ((ONE, "eth", TRANSACTIONS, b"\xc2\x01\x80"), "invalid_params"),
        ((ONE, "eth", GET_BLOCK_HEADERS, b"\x01"), "invalid_params"),
        ((ONE, "eth", GET_BLOCK_HEADERS, b""), "invalid_params"),
    ],
)
async def test_what_cannot_be_asked_is_a_reply_with_its_name(
    tmp_path: Path, asked: tuple[SessionId, str, int, bytes], error: str
) -> None:
    async with hosted(tmp_path) as engine:
        await engine.established(ONE)
        call = engine.call()
        reply = await engine.asked(RequestPeer(call, *asked))
        assert (reply.call, reply.error) == (call, error)


async def test_a_request_that_is_forgotten_is_answered_to_nobody(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        forgotten, other = engine.call(), engine.call()
        for call in (forgotten, other):
            engine.command(RequestPeer(call, ONE, "eth", GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]])))
        # Forgetting an unknown call does nothing.
        for call in (forgotten, forgotten, CallId(99)):
            engine.command(Forget(call))
        await peer.until(MessageReceived)
        for request_id in (0, 1):
            peer.send("eth", BLOCK_HEADERS, encoded([request_id, []]))
        answer = await engine.until(PeerResponse)
        assert answer.call == other
        [counted] = (await engine.counters()).requests_out
        assert counted.outcomes == {"answered": 1, "cancelled": 1}


async def test_a_request_whose_session_ends_is_answered_with_an_error_once(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        calls = [engine.call() for _ in range(3)]
        for call in calls:
            engine.command(RequestPeer(call, ONE, "eth", GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]])))
        await peer.until(MessageReceived)
        peer.leave(QUITTING)
        replies = [await engine.until(control.Reply) for _ in calls]
        assert [reply.call for reply in replies] == calls
        assert {reply.error for reply in replies} == {"session_ended"}
        [counted] = (await engine.counters()).requests_out
        assert counted.outcomes == {"session_ended": 3}
        await engine.until(SessionClosed)
        engine.command(DRAIN)
        assert await engine.rest() == []


async def test_an_answer_behind_the_message_that_ended_its_session_still_reaches_its_asker(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        call = engine.call()
        engine.command(RequestPeer(call, ONE, "eth", GET_BLOCK_HEADERS, encoded([77, [1, 2, 0, 0]])))
        await peer.until(MessageReceived)
        # All in one segment: four mistakes, which are one too many, and then the answer.
        for request_id in (90, 91, 92, 93):
            peer.session.send("eth", BLOCK_HEADERS, encoded([request_id, []]))
        peer.send("eth", BLOCK_HEADERS, encoded([0, []]))
        assert (await engine.until(PeerResponse)).call == call
        assert (await engine.until(SessionClosed)).reason is DisconnectReason.PROTOCOL_BREACH


async def test_a_broadcast_reaches_those_that_share_it_and_names_the_others(tmp_path: Path) -> None:
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        without_snap = tuple(item for item in PROTOCOLS if item.capability.name == "eth")
        other = await engine.established(TWO, SessionSpec(seed=5, protocols=without_snap))
        call = engine.call()
        engine.command(Broadcast(call, (ONE, TWO, SessionId(9)), "eth", TRANSACTIONS, b"\xc1\x80"))
        assert await engine.until(Sent) == Sent(call, 2, {9: ErrorName.NO_SUCH_SESSION})
        for reached in (peer, other):
            assert (await reached.until(MessageReceived)).payload == b"\xc1\x80"
        engine.command(Broadcast(call, (ONE, TWO), "snap", 0, b"\xc1\x80"))
        assert await engine.until(Sent) == Sent(call, 1, {TWO: ErrorName.NOT_SHARED})


async def test_a_broadcast_that_takes_many_turns_reaches_each_in_the_order_of_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BROADCAST_SLICE_BYTES", 1)
    async with hosted(tmp_path) as engine:
        sessions = tuple(map(SessionId, range(1, 5)))
        peers = [await engine.established(session, SessionSpec(seed=10 + session)) for session in sessions]
        # The commands follow each other without a wait.
        for payload in (b"\xc1\x01", b"\xc1\x02"):
            engine.command(Broadcast(engine.call(), sessions, "eth", TRANSACTIONS, payload))
        engine.command(Broadcast(engine.call(), (), "eth", TRANSACTIONS, b"\xc0"))
        assert [(await engine.until(Sent)).sent for _ in range(3)] == [4, 4, 0]
        for peer in peers:
            while len(heard := [event for event in peer.events if isinstance(event, MessageReceived)]) < 2:
                await peer.hear()
            assert [event.payload for event in heard] == [b"\xc1\x01", b"\xc1\x02"]


async def test_what_we_send_is_refused_before_a_peer_has_to_go_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No setting allows so little.
    monkeypatch.setattr("rlpx.workers.worker.Budget", lambda _: Budget(1000))
    async with hosted(tmp_path) as engine:
        await engine.established(ONE)
        call = engine.call()
        reply = await engine.asked(SendMessage(call, ONE, "eth", 2, bytes(2000)))
        assert (reply.call, reply.error) == (call, "queue_full")
        assert reply.message == "0 of 1000 bytes are in progress in this worker"
        engine.command(Broadcast(call, (ONE,), "eth", 2, os.urandom(2000)))
        assert (await engine.until(Sent)).refused == {ONE: "queue_full"}
        engine.command(RequestPeer(call, ONE, "eth", GET_BLOCK_HEADERS, encoded([1, bytes(2000)])))
        assert (await engine.until(control.Reply)).error == "queue_full"


async def test_a_broadcast_that_is_forgotten_goes_to_no_more_sessions_and_is_answered_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "BROADCAST_SLICE_BYTES", 1)
    async with hosted(tmp_path) as engine:
        peer = await engine.established(ONE)
        # The session gets it after hundreds of others that have ended, each in a loop iteration of its own.
        sessions = (*map(SessionId, range(100, 1000)), ONE)
        forgotten, other = engine.call(), engine.call()
        engine.command(Broadcast(forgotten, sessions, "eth", TRANSACTIONS, b"\xc1\x01"))
        engine.command(Forget(forgotten))
        engine.command(Broadcast(other, (ONE,), "eth", TRANSACTIONS, b"\xc1\x02"))
        assert await engine.until(Sent) == Sent(other, 1, {})
        assert (await peer.until(MessageReceived)).payload == b"\xc1\x02"
