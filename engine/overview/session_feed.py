"""Opens a feed of one session's messages, both ways, at the worker that has it, for as long as somebody looks."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
import zmq
import zmq.asyncio

from rlpx.engine.client.door import use_key
from rlpx.engine.overview.tap import Tap
from rlpx.protocol.eth.kinds import TAP

# What may be on its way to us. It is granted again as it is read, so a reader that stops costs the worker no more.
CREDIT_BYTES: Final = 1024 * 1024
_FEED: Final = 1
# All messages from the peer, all that we send, and what becomes of the session.
_TOPICS: Final = ("", TAP)


class _Head(msgspec.Struct, frozen=True):
    """What a worker sends about a feed."""

    feed: int | None = None
    run: str | None = None
    first: int = 0
    dropped: int = 0
    events: list[dict[str, Any]] = []
    closed: str | None = None
    error: Any = None


_decode_head: Final = msgspec.json.Decoder(_Head)


async def follow_session(endpoint: str, session: int, tap: Tap, *, key: str | None = None) -> None:
    """Hand a session's messages to a tap, from the data endpoint of its worker, until the feed is closed or cancelled."""
    context = zmq.asyncio.Context()
    sock = context.socket(zmq.DEALER)
    try:
        sock.setsockopt(zmq.LINGER, 0)
        # A worker that was replaced does not have the session: there is nothing to connect to again.
        sock.setsockopt(zmq.RECONNECT_STOP, zmq.RECONNECT_STOP_CONN_REFUSED)
        if key is not None:
            use_key(sock, key)
        sock.connect(endpoint)
        opening = {"feed": _FEED, "topics": _TOPICS, "where": {"session": [session]}, "credit": CREDIT_BYTES}
        await sock.send(msgspec.json.encode(opening))
        await _read(sock, tap)
    finally:
        sock.close()
        context.term()


async def _read(sock: zmq.asyncio.Socket, tap: Tap) -> None:
    expected = 0
    while True:
        frames = await sock.recv_multipart()
        try:
            head = _decode_head.decode(frames[0])
        except msgspec.DecodeError as error:
            tap.end(f"the worker's message has another form than expected: {error}")
            return
        if head.error is not None:
            tap.end(str(head.error["message"] if isinstance(head.error, dict) else head.error))
            return
        tap.lose(max(0, head.first - expected))
        expected = max(expected, head.first + len(head.events))
        body = memoryview(frames[1]) if len(frames) > 1 else memoryview(b"")
        for event in head.events:
            size = event.get("size", 0)
            tap.take(event["topic"], event, bytes(body[:size]))
            body = body[size:]
        if head.closed is not None:
            tap.end(head.closed)
            return
        if head.run is None:
            await sock.send(msgspec.json.encode({"feed": _FEED, "credit": sum(map(len, frames))}))
        # Other pages wait for their turn while a peer floods.
        await asyncio.sleep(0)
