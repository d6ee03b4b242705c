"""One connection: messages in order, then its end, once; and a pause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zmq

from rlpx.engine.client.presence import EngineUnavailableError
from rlpx.engine.client.wire import READ_AT_ONCE, Place, Wire
from tests.engine.fake_worker import until

COUNT = 10 * READ_AT_ONCE + 1


class Ends:
    """A server's socket, and the wire to it with what it has told."""

    def __init__(self, folder: Path, kind: int, topics: tuple[str, ...] = ()) -> None:
        endpoint = f"ipc://{folder}/x.ipc"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.server = self.context.socket(kind)
        self.server.setsockopt(zmq.SNDHWM, 0)
        self.server.bind(endpoint)
        self.told: list[list[bytes] | EngineUnavailableError] = []
        self.wire = Wire(Place(self.context, endpoint, None), self.told.append, self.told.append, topics)


@asynccontextmanager
async def ends(folder: Path, kind: int = zmq.ROUTER, *topics: str) -> AsyncIterator[Ends]:
    made = Ends(folder, kind, topics)
    try:
        yield made
    finally:
        made.wire.close()
        made.server.close(0)
        made.context.term()


async def greeted(made: Ends) -> bytes:
    """The identity of the wire's socket, once it is open and has sent something."""
    await made.wire.open()
    made.wire.send([b"hello", b"there"])
    identity, *frames = await asyncio.to_thread(made.server.recv_multipart)
    assert frames == [b"hello", b"there"]
    return identity


@pytest.mark.parametrize("loop", [pytest.param("asyncio", marks=pytest.mark.loop("asyncio")), "uvloop"])
async def test_all_messages_come_in_order_and_then_the_end(tmp_path: Path, loop: str) -> None:
    async with ends(tmp_path) as made:
        identity = await greeted(made)
        made.server.setsockopt(zmq.LINGER, 1000)
        for number in range(COUNT):
            made.server.send_multipart([identity, str(number).encode(), loop.encode()])
        made.server.close()
        await until(lambda: len(made.told) == COUNT + 1)
        *messages, end = made.told
        assert messages == [[str(number).encode(), loop.encode()] for number in range(COUNT)]
        assert isinstance(end, EngineUnavailableError)
        assert "has ended the connection" in str(end)
        assert not made.wire.is_open
        with pytest.raises(EngineUnavailableError, match="has ended the connection"):
            made.wire.send([b"late"])


async def test_a_wire_that_is_paused_reads_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    async with ends(tmp_path) as made:
        identity = await greeted(made)
        made.wire.pause()
        made.wire.pause()
        for number in range(COUNT):
            made.server.send_multipart([identity, str(number).encode()])
        await asyncio.sleep(0.1)
        assert made.told == []
        made.wire.send([b"as before"])
        assert (await asyncio.to_thread(made.server.recv_multipart))[1:] == [b"as before"]
        made.wire.resume()
        await until(lambda: len(made.told) == COUNT)
        made.wire.resume()
        assert made.told == [[str(number).encode()] for number in range(COUNT)]


async def test_a_wire_that_is_closed_says_nothing_more(tmp_path: Path) -> None:
    async with ends(tmp_path) as made:
        with pytest.raises(EngineUnavailableError, match="has not accepted the connection yet"):
            made.wire.send([b"early"])
        identity = await greeted(made)
        made.wire.close()
        made.wire.close()
        with pytest.raises(EngineUnavailableError, match="was closed"):
            made.wire.send([b"late"])
        made.server.send_multipart([identity, b"late"])
        await asyncio.sleep(0.1)
        assert made.told == []


async def test_a_subscription_gets_its_topics(tmp_path: Path) -> None:
    async with ends(tmp_path, zmq.XPUB, "one", "two") as made:
        await made.wire.open()
        subscribed = [await asyncio.to_thread(made.server.recv) for _ in range(2)]
        assert sorted(subscribed) == [b"\x01one", b"\x01two"]
        for topic in (b"one.x", b"three", b"two"):
            made.server.send_multipart([topic, b"head"])
        await until(lambda: len(made.told) == 2)
        assert made.told == [[b"one.x", b"head"], [b"two", b"head"]]
