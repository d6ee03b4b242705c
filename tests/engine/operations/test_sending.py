"""Messages, broadcasts and requests, and every way in which they fail."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from rlpx.protocol.bus.commands import (
    BroadcastParameters,
    RequestParameters,
    SessionsParameters,
)
from rlpx.protocol.bus.control import Broadcast, Forget, PeerResponse, Reply, RequestPeer, SendMessage, Sent
from rlpx.protocol.bus.json_rpc import Attached
from rlpx.protocol.bus.results import AnswerResult, BroadcastResult
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.settings import QueueSettings
from tests.engine.harness import (
    OTHER,
    MakeEngine,
    refusal,
    sent,
)


@pytest.mark.parametrize("error", ["not_shared", "no_such_session", "queue_full"])
async def test_what_a_worker_cannot_send_is_the_answer(make_engine: MakeEngine, error: str) -> None:
    async with make_engine() as harness:
        session = await harness.active()
        asked = asyncio.ensure_future(harness.commands.sending.send(*sent(session, b"\xc1\x80")))
        told = await harness.worker.is_told(SendMessage)
        assert told == SendMessage(told.call, session, "eth", 2, b"\xc1\x80", is_checked=True)
        harness.worker.report(Reply(told.call))
        assert (await asked).sessions == 1
        asked = asyncio.ensure_future(harness.commands.sending.send(*sent(session)))
        told = await harness.worker.is_told(SendMessage)
        harness.worker.report(Reply(told.call, ErrorName(error), "why"))
        assert await refusal(asked) == (error, "why")


async def test_a_request_is_answered_with_what_the_peer_said(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        session = await harness.active()
        parameters = RequestParameters(session=session, capability="eth", message="GetBlockHeaders", payload="0x")
        asked = asyncio.ensure_future(harness.commands.sending.request(parameters, b"\xc2\x01\x80"))
        told = await harness.worker.is_told(RequestPeer)
        assert told == RequestPeer(told.call, session, "eth", 3, b"\xc2\x01\x80", is_checked=True)
        harness.worker.report(PeerResponse(told.call, "BlockHeaders", b"\xc2\x01\xc0"))
        assert await asked == AnswerResult("BlockHeaders", "0xc201c0")
        binary = msgspec.structs.replace(parameters, binary=True)
        asked = asyncio.ensure_future(harness.commands.sending.request(binary, b"\xc2\x01\x80"))
        told = await harness.worker.is_told(RequestPeer)
        harness.worker.report(PeerResponse(told.call, "BlockHeaders", b"\xc2\x01\xc0"))
        assert await asked == Attached(AnswerResult("BlockHeaders"), b"\xc2\x01\xc0")
        asked = asyncio.ensure_future(harness.commands.sending.request(parameters, b"\xc2\x01\x80"))
        harness.worker.report(
            Reply((await harness.worker.is_told(RequestPeer)).call, ErrorName.TIMED_OUT, "no answer within 20 s")
        )
        assert await refusal(asked) == ("timed_out", "no answer within 20 s")


async def test_a_request_that_is_given_up_is_forgotten_by_the_worker(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        session = await harness.active()
        parameters = RequestParameters(
            session=session, capability="eth", message="GetBlockHeaders", payload="0xc0", timeout_s=0.05
        )
        name, words = await refusal(harness.commands.sending.request(parameters, b"\xc2\x01\x80"))
        assert (name, words) == ("timed_out", "no answer within 0.05 s, by way of worker 0")
        asked = await harness.worker.is_told(RequestPeer)
        assert await harness.worker.is_told(Forget) == Forget(asked.call)


async def test_a_broadcast_goes_to_the_active_sessions_that_match_in_one_message_a_worker(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        first, second = await harness.active(), await harness.active(OTHER)
        await harness.accepted()
        parameters = BroadcastParameters(capability="eth", message="Transactions", payload="0x")
        asked = asyncio.ensure_future(harness.commands.sending.broadcast(parameters, b"\xc1\x80"))
        told = await harness.worker.is_told(Broadcast)
        assert told == Broadcast(told.call, (first, second), "eth", 2, b"\xc1\x80", is_checked=True)
        harness.worker.report(Sent(told.call, 1, {int(second): ErrorName.QUEUE_FULL}))
        assert await asked == BroadcastResult(1, {str(second): ErrorName.QUEUE_FULL})
        others = msgspec.structs.replace(parameters, exceptions=(int(first), 77))
        asked = asyncio.ensure_future(harness.commands.sending.broadcast(others, b"\xc1\x80"))
        told = await harness.worker.is_told(Broadcast)
        assert told.sessions == (second,)
        harness.worker.report(Sent(told.call, 1, {}))
        assert await asked == BroadcastResult(1, {})
        nobody = msgspec.structs.replace(parameters, shared="eth/66")
        assert await harness.commands.sending.broadcast(nobody, b"\xc1\x80") == BroadcastResult(0, {})


async def test_a_broadcast_to_a_worker_that_is_lost_says_so_of_each_session(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        session = await harness.active()
        parameters = BroadcastParameters(capability="eth", message="Transactions", payload="0x")
        asked = asyncio.ensure_future(harness.commands.sending.broadcast(parameters, b"\xc1\x80"))
        await harness.worker.is_told(Broadcast)
        harness.worker.die(-9)
        assert await asked == BroadcastResult(0, {str(session): ErrorName.WORKER_LOST})


async def test_a_broadcast_that_would_not_fit_is_not_queued(make_engine: MakeEngine) -> None:
    async with make_engine(queues=QueueSettings(worker_command_bytes=1024)) as harness:
        session = await harness.active()
        parameters = BroadcastParameters(capability="eth", message="Transactions", payload="0x")
        refused = {str(session): ErrorName.QUEUE_FULL}
        assert await harness.commands.sending.broadcast(parameters, bytes(1025)) == BroadcastResult(0, refused)


async def test_a_worker_that_does_not_answer_is_an_answer(make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlpx.engine.fleet.calls.CALL_SECONDS", 0.05)
    async with make_engine() as harness:
        session = await harness.active()
        assert await refusal(harness.commands.sending.send(*sent(session))) == (
            "timed_out",
            "no answer within 0.05 s, by way of worker 0",
        )
        # An answer that comes too late is ignored.
        told = await harness.worker.is_told(SendMessage)
        harness.worker.report(Reply(told.call))
        shown = await harness.commands.sessions.sessions(SessionsParameters())
        assert [item.session for item in shown.sessions] == [session]


async def test_commands_that_would_not_fit_are_not_queued(make_engine: MakeEngine) -> None:
    async with make_engine(queues=QueueSettings(worker_command_bytes=1024)) as harness:
        session = await harness.active()
        asked = harness.commands.sending.send(*sent(session, bytes(1025)))
        assert (await refusal(asked))[0] == "queue_full"
        assert harness.worker.heard == []
