"""Messages of this host on their way to core NATS: a queue bounded in bytes, in one order.

What does not fit is lost, as core NATS itself may lose messages. The numbers in the messages show it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import nats.errors
from nats.aio.client import Client

from rlpx.protocol.bus.pieces import pieces

# Bytes that wait for the connection, in our queue and in the library's. One message more is taken below this.
MAX_WAITING_BYTES: Final = 8 * 1024 * 1024


class Outlet:
    """See the module."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: deque[tuple[str, bytes]] = deque()
        self.waiting_bytes = 0
        # A batch is dropped as a whole, or some of its events are too long.
        self.sent_batches = self.sent_bytes = self.dropped_batches = 0
        self._is_waiting = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Publish from now on."""
        self._task = asyncio.get_running_loop().create_task(self._publish(), name="publish traffic to the fleet")

    def close(self) -> None:
        """Publish no more."""
        if self._task is not None:
            self._task.cancel()

    def offer(self, subject: str, head: bytes, body: bytes) -> bool:
        """Publish a batch, in pieces if the servers take no message of its length. Returns whether all of it may leave."""
        if not self._client.is_connected:
            self.dropped_batches += 1
            return False
        limit = self._client.max_payload
        parts, left_out = [(head, body)], 0
        if len(head) + 1 + len(body) > limit:
            parts, left_out = pieces(head, body, limit - 1)
        is_taken = all(self._enter(subject, b"%b\n%b" % part) for part in parts)
        self.dropped_batches += left_out > 0 or not is_taken
        return is_taken

    def _enter(self, subject: str, data: bytes) -> bool:
        if self.waiting_bytes + self._client.pending_data_size > MAX_WAITING_BYTES:
            return False
        self._waiting.append((subject, data))
        self.waiting_bytes += len(data)
        self._is_waiting.set()
        return True

    async def _publish(self) -> None:
        while True:
            await self._is_waiting.wait()
            self._is_waiting.clear()
            while self._waiting:
                subject, data = self._waiting.popleft()
                self.waiting_bytes -= len(data)
                try:
                    if not self._client.is_connected:
                        raise nats.errors.ConnectionClosedError
                    await self._client.publish(subject, data)
                except (nats.errors.Error, OSError):
                    self.dropped_batches += 1
                else:
                    self.sent_batches += 1
                    self.sent_bytes += len(data)
