from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import Any

import nats.errors
import pytest

from rlpx.engine.client import nats_servers
from rlpx.engine.client.nats_servers import NatsUnavailableError, Servers, connect

# Generous: a wait ends as soon as its condition holds.
PATIENCE_SECONDS = 30.0


@pytest.mark.loop("asyncio")
async def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_servers, "START_SECONDS", 0.5)
    with pytest.raises(NatsUnavailableError, match=r"no NATS server of nats://127\.0\.0\.1:1 can be used"):
        await connect(Servers(("nats://user:secret@127.0.0.1:1",)), "a", on_lost=lambda: None, on_back=lambda: None)


async def answer_pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server, until it is killed, or wants its client no more."""
    writer.write(b'INFO {"server_id":"a","version":"2.11.0","max_payload":1048576,"headers":true}\r\n')
    while (line := await reader.readline()) and not line.startswith((b"PUB killed ", b"PUB unwanted ")):
        if line == b"PING\r\n":
            writer.write(b"PONG\r\n")
    if line.startswith(b"PUB unwanted "):
        writer.write(b"-ERR 'Authorization Violation'\r\n")
        await writer.drain()
        writer.close()
    else:
        writer.transport.abort()


async def test_a_client_that_a_server_wants_no_more_says_so_and_connects_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_servers, "RETRY_SECONDS", 0.1)
    is_back, problems = asyncio.Event(), list[str]()
    server = await asyncio.start_server(answer_pings, "127.0.0.1", 0)
    servers = Servers((f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}",))
    client = await connect(servers, "a", on_lost=lambda: None, on_back=is_back.set, on_problem=problems.append)
    try:
        await client.publish("unwanted")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await is_back.wait()
        assert "nats: authorization violation" in problems
    finally:
        await client.close()
        server.close()


@pytest.mark.loop("asyncio")
async def test_a_client_ends_while_it_reconnects_without_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    await end_while_reconnecting(monkeypatch)


async def test_a_client_ends_on_uvloop_while_it_reconnects_without_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    await end_while_reconnecting(monkeypatch)


async def end_while_reconnecting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_servers, "RETRY_SECONDS", 0.1)
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    is_lost = asyncio.Event()
    server = await asyncio.start_server(answer_pings, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = await connect(Servers((f"nats://127.0.0.1:{port}",)), "a", on_lost=is_lost.set, on_back=lambda: None)
    server.close()
    await client.publish("killed")
    await is_lost.wait()
    with suppress(nats.errors.Error):
        await client.publish("waits", b"for a server")
    future = client._reconnection_task_future  # noqa: SLF001 - this race of the library cannot be brought about from outside
    assert future is not None
    # An attempt that was cancelled a moment ago does this.
    future.set_result(True)
    await client.close()
    del client, future
    gc.collect()
    assert faults == []
