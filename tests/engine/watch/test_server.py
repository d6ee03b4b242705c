"""What the server does with requests that are none, and what it says of itself."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import cast

import pytest

from rlpx.engine.watch.app import make_app
from rlpx.engine.watch.link import EngineLink
from rlpx.engine.watch.server import serve
from tests.engine.watch.fake_link import FakeLink


async def answers(*requests: bytes) -> list[bytes]:
    """The answer of a server to each request, on connections of their own."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    ready, stopped = asyncio.Event(), asyncio.Event()
    app = make_app(cast("EngineLink", FakeLink(lambda _: None)))
    serving = asyncio.create_task(serve(app, listening, ready.set, stopped))
    await ready.wait()
    found = []
    for request in requests:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request)
        async with asyncio.timeout(60):
            found.append(await reader.read())
        writer.close()
    stopped.set()
    await serving
    return found


async def test_a_malformed_request_is_answered_and_writes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    requests = (
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    )
    for answer in await answers(*requests):
        assert b" 400 Bad Request\r\n" in answer
    assert caplog.text == ""


async def test_a_check_by_http_1_0_without_host_is_answered_and_no_library_is_named() -> None:
    [answer] = await answers(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"\r\nServer: rlpx-watch\r\n" in answer
