"""A program that is connected to the data endpoint of a worker in the test's own loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import zmq

PATIENCE_SECONDS: Final = 60.0


class Program:
    """A DEALER. `replies` are those that came while another one was awaited."""

    def __init__(self, sock: zmq.Socket[bytes]) -> None:
        self.socket = sock
        self.replies: list[tuple[dict[str, Any], bytes | None]] = []
        self._ids = itertools.count(1)

    def says(self, head: dict[str, Any] | bytes, payload: bytes | None = None) -> None:
        """Send a message."""
        body = head if isinstance(head, bytes) else orjson.dumps(head)
        self.socket.send_multipart([body] if payload is None else [body, payload])

    def asks(self, method: str, payload: bytes | None = None, /, **params: Any) -> int:
        """Call a command; returns its id."""
        request_id = next(self._ids)
        self.says({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}, payload)
        return request_id

    def cancels(self, request_id: object) -> None:
        """Cancel a call."""
        self.says({"jsonrpc": "2.0", "method": "cancel", "params": {"id": request_id}})

    async def hears(self) -> tuple[dict[str, Any], bytes | None]:
        """The next message."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self.socket.poll(0):  # noqa: ASYNC110 - libzmq sets no event of the loop
                await asyncio.sleep(0.001)
        head, *payload = self.socket.recv_multipart()
        return orjson.loads(head), payload[0] if payload else None

    async def reply(self, request_id: object) -> tuple[dict[str, Any], bytes | None]:
        """The reply to a call."""
        while True:
            for found in self.replies:
                if found[0].get("id") == request_id:
                    self.replies.remove(found)
                    return found
            self.replies.append(await self.hears())

    async def error(self, request_id: object) -> tuple[str, str]:
        """The name and the text of a call's error."""
        reply, payload = await self.reply(request_id)
        assert payload is None
        return reply["error"]["data"]["name"], reply["error"]["message"]

    async def result(self, request_id: object) -> Any:
        """The result of a call, without a payload."""
        reply, payload = await self.reply(request_id)
        assert payload is None
        return reply["result"]


@contextmanager
def connected(folder: Path, receives: int = 1000) -> Iterator[Program]:
    """A program of the worker in this folder. It reads ahead up to `receives` messages, and never waits to send."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.SNDHWM, 0)
    sock.setsockopt(zmq.RCVHWM, receives)
    sock.connect(f"ipc://{folder}/worker-0.ipc")
    try:
        yield Program(sock)
    finally:
        sock.close()
        context.term()
