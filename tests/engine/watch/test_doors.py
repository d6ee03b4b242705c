"""Connections are bounded, idle ones make room, and those that ask for nothing are closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from rlpx.engine.watch import doors as module
from rlpx.engine.watch.doors import Doors
from tests.engine.fake_worker import until

ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def served(max_connections: int) -> AsyncIterator[tuple[tuple[str, int], asyncio.Event]]:
    """A server whose path /slow answers when the event is set."""
    let_go = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await let_go.wait()
        return web.Response(text="ok")

    doors = Doors(max_connections)
    app = web.Application(middlewares=[doors.middleware()])
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    assert runner.server is not None
    await doors.open(runner.server, listening)
    try:
        yield listening.getsockname(), let_go
    finally:
        let_go.set()
        doors.close()
        await runner.cleanup()


async def asked(address: tuple[str, int], path: bytes = b"/") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has sent a request."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(ASK.replace(b"/ ", path + b" ", 1))
    return reader, writer


async def test_an_idle_connection_makes_room_for_a_new_one_and_a_busy_one_does_not() -> None:
    async with served(2) as (address, let_go):
        slow, slow_writer = await asked(address, b"/slow")
        idle, idle_writer = await asked(address)
        assert (await idle.readline()).startswith(b"HTTP/1.1 200")
        new, new_writer = await asked(address)
        assert (await new.readline()).startswith(b"HTTP/1.1 200")
        assert (await idle.read()).endswith(b"ok")
        let_go.set()
        assert (await slow.readline()).startswith(b"HTTP/1.1 200")
        for writer in (slow_writer, idle_writer, new_writer):
            writer.close()


async def test_without_an_idle_one_a_new_connection_is_told_so() -> None:
    async with served(1) as (address, _):
        _, slow_writer = await asked(address, b"/slow")
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection(*address)
        assert (await reader.read()).startswith(b"HTTP/1.1 503")
        slow_writer.close()
        writer.close()


async def test_a_connection_that_asks_for_nothing_is_closed_and_one_that_is_answered_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIRST_REQUEST_SECONDS", 0.1)
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    async with served(10) as (address, let_go):
        slow, slow_writer = await asked(address, b"/slow")
        silent, silent_writer = await asyncio.open_connection(*address)
        halting, halting_writer = await asyncio.open_connection(*address)
        halting_writer.write(ASK[:10])
        for reader in (silent, halting):
            assert await reader.read() == b""
        await until(slow_writer.can_write_eof)
        let_go.set()
        assert (await slow.read()).endswith(b"ok")
        for writer in (slow_writer, silent_writer, halting_writer):
            writer.close()


async def test_connections_that_come_at_once_are_bounded_too() -> None:
    async with served(4) as (address, _):
        sockets = [socket.socket() for _ in range(40)]
        for item in sockets:
            item.setblocking(False)
            item.connect_ex(address)
        loop = asyncio.get_running_loop()

        async def is_kept(item: socket.socket) -> bool:
            try:
                async with asyncio.timeout(1):
                    await loop.sock_recv(item, 1)
            except TimeoutError:
                return True
            return False

        kept = await asyncio.gather(*map(is_kept, sockets))
        assert sum(kept) == 4
        for item in sockets:
            item.close()
        # Those that were closed leave no trace: there is room for others.
        await asyncio.sleep(0.1)
        reader, writer = await asked(address)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
