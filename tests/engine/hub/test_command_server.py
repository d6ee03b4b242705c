"""Users' requests over the socket: each gets one reply, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import zmq

from rlpx.engine.operations.running import RunningCommands
from rlpx.protocol.bus.control import Dial, DisconnectSession
from rlpx.protocol.bus.json_rpc import Identifier, identifier_of
from tests.engine.fake_worker import until
from tests.engine.harness import (
    ENODE,
    EngineHarness,
    MakeEngine,
)


@asynccontextmanager
async def user(harness: EngineHarness, kind: int = zmq.REQ) -> AsyncIterator[zmq.Socket[bytes]]:
    """A user of the engine's commands."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(kind) as sock:
        sock.setsockopt(zmq.LINGER, 0)
        sock.connect(harness.run_dir.endpoint("control"))
        yield sock
    context.term()


def ask(sock: zmq.Socket[bytes], method: str, **parameters: Any) -> None:
    """Send one request."""
    sock.send(orjson.dumps({"jsonrpc": "2.0", "id": 5, "method": method, "params": parameters}))


async def answer(sock: zmq.Socket[bytes]) -> dict[str, Any]:
    """Its reply."""
    await until(lambda: sock.poll(0))
    reply: dict[str, Any] = orjson.loads(sock.recv())
    return reply


async def test_a_request_is_answered(make_engine: MakeEngine) -> None:
    async with make_engine() as harness, user(harness) as sock:
        ask(sock, "counts")
        reply = await answer(sock)
        assert (reply["id"], reply["result"]["pending"]) == (5, {"inbound": 0, "outbound": 0})


async def test_a_fault_of_ours_is_an_answer_and_the_engine_goes_on(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(RunningCommands, "counts", broken)
    async with make_engine() as harness, user(harness) as sock:
        ask(sock, "counts")
        reply = await answer(sock)
        assert (reply["id"], reply["error"]["code"]) == (5, -32603)
        ask(sock, "history")
        assert (await answer(sock))["result"] == []


async def test_a_request_that_waits_when_the_engine_ends_is_answered_too(make_engine: MakeEngine) -> None:
    async with make_engine() as harness:
        async with user(harness) as sock:
            ask(sock, "dial", enode=ENODE, wait=True)
            await harness.worker.is_told(Dial)
            await harness.end()
            reply = await answer(sock)
            assert (reply["id"], reply["error"]["data"]["name"]) == (5, "refused")
        harness.has_ended = True


def cancel(call: object, **more: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "method": "cancel", "params": {"id": call}} | more)


def request(identifier: int, method: str, **parameters: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": identifier, "method": method, "params": parameters})


async def test_a_cancelled_request_ends_with_that_error_and_its_work_ends_too(make_engine: MakeEngine) -> None:
    async with make_engine() as harness, user(harness, zmq.DEALER) as sock, user(harness, zmq.DEALER) as other:
        sock.send(request(5, "dial", enode=ENODE, wait=True))
        dialled = await harness.worker.is_told(Dial)
        # Another program's call of this number is not this one.
        other.send(cancel(5))
        other.send(request(6, "counts"))
        assert (await answer(other))["id"] == 6
        assert not sock.poll(0)
        sock.send(cancel(5))
        reply = await answer(sock)
        assert (reply["id"], reply["error"]["data"]["name"]) == (5, "cancelled")
        told = await harness.worker.is_told(DisconnectSession)
        assert told.session == dialled.session


async def test_a_cancellation_of_nothing_has_no_reply(make_engine: MakeEngine) -> None:
    async with make_engine() as harness, user(harness, zmq.DEALER) as sock:
        for _ in range(200):
            sock.send(cancel(7))
            sock.send(cancel(None))
        sock.send(request(8, "counts"))
        assert (await answer(sock))["id"] == 8
        # With an id it is a request, and there is no such method.
        sock.send(cancel(7, id=9))
        reply = await answer(sock)
        assert (reply["id"], reply["error"]["code"]) == (9, -32601)
        sock.send(cancel(7, params={"id": 7, "more": 1}))
        assert "error" in await answer(sock)


async def test_a_shutdown_is_answered_before_it_happens(make_engine: MakeEngine) -> None:
    async with make_engine() as harness, user(harness) as sock:
        ask(sock, "shutdown")
        assert (await answer(sock))["result"] == {"stopping": True}
        async with asyncio.timeout(60):
            await harness.engine.wait()


async def test_the_text_of_a_request_is_read_once_however_many_cancellations_come(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[bytes] = []

    def read(body: bytes) -> Identifier:
        texts.append(body)
        return identifier_of(body)

    monkeypatch.setattr("rlpx.engine.hub.command_server.identifier_of", read)
    async with make_engine() as harness, user(harness, zmq.DEALER) as sock:
        ask(sock, "dial", enode=ENODE, wait=True)
        await harness.worker.is_told(Dial)
        for identifier in [*range(100, 120), 5]:
            sock.send(orjson.dumps({"jsonrpc": "2.0", "method": "cancel", "params": {"id": identifier}}))
        reply = await answer(sock)
        assert (reply["id"], reply["error"]["data"]["name"]) == (5, "cancelled")
        assert len(texts) == 1
