"""Opens a feed of one session's messages, both ways, at the worker that has it, for as long as somebody looks."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import zmq

from rlpx.engine.client.batch_reader import Event, Gap
from rlpx.engine.client.feed_items import Lost, PartReader, read_head
from rlpx.engine.client.presence import EngineUnavailableError
from rlpx.engine.client.wire import Place, Wire
from rlpx.engine.overview.tap import Tap
from rlpx.protocol.eth.kinds import TAP
from rlpx.protocol.mistakes import ConfigError

# What may be on its way to us. It is granted again as it is read, so a reader that stops costs the worker no more.
CREDIT_BYTES: Final = 1024 * 1024
_FEED: Final = 1
# All messages from the peer, all that we send, and what becomes of the session.
_TOPICS: Final = ("", TAP)

# Messages of the worker, and last of all the end of the connection. Credit bounds their bytes.
_Arrived = asyncio.Queue[list[bytes] | EngineUnavailableError]


async def follow_session(endpoint: str, session: int, tap: Tap, *, key: str | None = None) -> None:
    """Hand a session's messages to a tap, from the data endpoint of its worker, until the feed ends or this is cancelled.

    The tap is told why the feed has ended. A worker that replaced another one does not have the session and is not asked.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        arrived = _Arrived()
        wire = Wire(Place(context, endpoint, key), arrived.put_nowait, arrived.put_nowait)
        try:
            await wire.open()
            opening = {"feed": _FEED, "topics": _TOPICS, "where": {"session": [session]}, "credit": CREDIT_BYTES}
            wire.send([msgspec.json.encode(opening)])
            tap.end(await _read(wire, arrived, tap))
        finally:
            wire.close()
    except (EngineUnavailableError, ConfigError) as error:
        tap.end(str(error))
    finally:
        # ZeroMQ waits here for what has not left yet.
        await asyncio.shield(asyncio.to_thread(context.term))


async def _read(wire: Wire, arrived: _Arrived, tap: Tap) -> str:
    """Read until the feed ends; returns why. Raises `EngineUnavailableError` if the connection does."""
    # Its number would be in items, and is not shown.
    reader = PartReader(worker=0)
    while True:
        frames = await arrived.get()
        if isinstance(frames, EngineUnavailableError):
            raise frames
        try:
            head = read_head(frames[0])
        except msgspec.DecodeError as error:
            return f"the worker's message has another form than expected: {error}"
        if head.error is not None:
            return head.error["message"]
        for item in reader.read(head, b"".join(frames[1:])):
            if isinstance(item, Event):
                tap.take(item.topic, item.fields, item.payload)
            elif isinstance(item, Gap):
                tap.lose(item.missed)
            elif isinstance(item, Lost):
                return item.cause
        if head.run is None:
            wire.send([msgspec.json.encode({"feed": _FEED, "credit": sum(map(len, frames))})])
        # Other pages wait for their turn while a peer floods.
        await asyncio.sleep(0)
