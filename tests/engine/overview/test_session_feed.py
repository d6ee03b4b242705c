from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio

from rlpx.engine.overview.session_feed import CREDIT_BYTES, follow_session
from rlpx.engine.overview.tap import Tap


class FakeWorker:
    """The data endpoint of a worker that the test plays."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"ipc://{folder}/worker-0.ipc"
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(self.endpoint)
        self._program = b""

    async def read(self) -> dict[str, Any]:
        self._program, head = await asyncio.wait_for(self._socket.recv_multipart(), 20)
        found: dict[str, Any] = msgspec.json.decode(head)
        return found

    async def send(self, head: dict[str, Any], body: bytes | None = None) -> None:
        frames = [self._program, msgspec.json.encode({"feed": 1, **head})]
        await self._socket.send_multipart(frames if body is None else [*frames, body])

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("f")


async def following(folder: Path) -> AsyncIterator[tuple[FakeWorker, Tap, asyncio.Task[None]]]:
    worker, tap = FakeWorker(folder), Tap()
    task = asyncio.create_task(follow_session(worker.endpoint, 42, tap))
    try:
        yield worker, tap, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        worker.close()


def message(topic: str, size: int) -> dict[str, Any]:
    return {"topic": topic, "time_us": 1, "session": 42, "peer": "ab", "size": size, "version": 69}


async def test_it_reads_one_session_both_ways_and_grants_credit_as_it_reads(short: Path) -> None:
    async for worker, tap, task in following(short):
        assert await worker.read() == {
            "feed": 1,
            "topics": ["", "tap."],
            "where": {"session": [42]},
            "credit": CREDIT_BYTES,
        }
        await worker.send({"run": "r", "worker": 0, "sessions": []})
        events = [message("wit.0", 3), message("tap.wit.1", 2)]
        await worker.send({"first": 0, "dropped": 0, "events": events}, b"abcde")
        assert (await worker.read())["credit"] > 5
        # Two are missing before this one.
        await worker.send({"first": 4, "dropped": 2, "events": [message("wit.2", 1)]}, b"x")
        await worker.send({"closed": "the session has ended", "first": 6, "dropped": 3})
        await asyncio.wait_for(task, 20)
        tapped = tap.collect()
        assert tapped is not None
        assert [(item.way, item.name, item.decoded) for item in tapped.messages] == [
            ("in", "wit.0", "0x616263"),
            ("out", "wit.1", "0x6465"),
            ("in", "wit.2", "0x78"),
        ]
        assert (tapped.lost, tapped.cause) == (3, "the session has ended")


async def test_a_refusal_ends_it_with_its_reason(short: Path) -> None:
    async for worker, tap, task in following(short):
        await worker.read()
        await worker.send({"error": {"name": "refused", "message": "1024 feeds are open"}})
        await asyncio.wait_for(task, 20)
        tapped = tap.collect()
        assert tapped is not None
        assert tapped.cause == "1024 feeds are open"


async def test_a_worker_that_speaks_another_language_ends_it_with_a_reason(short: Path) -> None:
    async for worker, tap, task in following(short):
        await worker.read()
        await worker.send({"events": 7})
        await asyncio.wait_for(task, 20)
        tapped = tap.collect()
        assert tapped is not None
        assert "another form" in (tapped.cause or "")


async def test_a_worker_that_dies_ends_it_with_a_reason(short: Path) -> None:
    async for worker, tap, task in following(short):
        await worker.read()
        await worker.send({"run": "r", "worker": 0, "sessions": []})
        await worker.send({"first": 0, "dropped": 0, "events": [message("wit.0", 1)]}, b"x")
        # It has granted credit for the message, so it has read it.
        await worker.read()
        worker.close()
        await asyncio.wait_for(task, 20)
        tapped = tap.collect()
        assert tapped is not None
        assert [item.name for item in tapped.messages] == ["wit.0"]
        assert tapped.cause == f"{worker.endpoint} has ended the connection"


@pytest.mark.parametrize("key", [None, "no-such-file"])
async def test_a_worker_that_is_not_reached_ends_it_with_a_reason(short: Path, key: str | None) -> None:
    tap = Tap()
    await asyncio.wait_for(follow_session(f"ipc://{short}/worker-7.ipc", 42, tap, key=key), 20)
    tapped = tap.collect()
    assert tapped is not None
    assert ("worker-7.ipc" if key is None else key) in (tapped.cause or "")
