"""`python -m rlpx.workers.swarm FD`: one process of a swarm of simulated peers, on a stream to the command."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from typing import Any, cast

import uvloop

from rlpx.protocol.bus import swarm
from rlpx.protocol.bus.swarm import Begin, Go, Leave, Order
from rlpx.workers.swarm.swarm import Swarm


class CommandStream(asyncio.Protocol):
    """The stream to the command: orders come down it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._decoder = swarm.order_decoder()
        self._transport: asyncio.Transport | None = None
        self._swarm: Swarm | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The command is connected."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Carry out orders of the command."""
        for order in self._decoder.feed(data):
            self._carry_out(order)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the error makes no difference
        """The command is gone, or the last report has left."""
        self.end(None)

    def end(self, error: BaseException | None) -> None:
        """End the process, with the fault if there is one."""
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)

    def close(self) -> None:
        """Close all sockets: nobody is left to report to."""
        if self._swarm is not None:
            self._swarm.close()

    def leave(self) -> None:
        """Leave on a signal, as if the command had said so."""
        if self._swarm is not None:
            self._swarm.leave()

    def _carry_out(self, order: Order) -> None:
        if isinstance(order, Begin):
            self._swarm = Swarm(order, self._loop, self._write)
            task = self._loop.create_task(self._run(self._swarm))
            self._tasks.add(task)
            task.add_done_callback(self._on_run)
        elif self._swarm is not None and isinstance(order, Go):
            self._swarm.go(order.starts_at)
        elif self._swarm is not None and isinstance(order, Leave):
            self._swarm.leave()

    async def _run(self, running: Swarm) -> None:
        await running.prepare()
        # These objects live as long as the process, so the garbage collector need not look at them again.
        gc.freeze()
        await running.stopped.wait()
        if self._transport is not None:
            self._transport.close()

    def _on_run(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.end(task.exception())

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def run(stream: socket.socket) -> None:
    """Live until the swarm has left or the command is gone."""
    loop = asyncio.get_running_loop()
    orders = CommandStream(loop)

    def on_fault(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        _loop.default_exception_handler(context)
        orders.end(context.get("exception") or RuntimeError(context["message"]))

    loop.set_exception_handler(on_fault)
    loop.add_signal_handler(signal.SIGTERM, orders.leave)
    await loop.create_connection(lambda: orders, sock=stream)
    try:
        await orders.ended
    finally:
        orders.close()


def main() -> None:
    """Start on the inherited descriptor."""
    try:
        stream = socket.socket(fileno=int(sys.argv[1]))
    except (IndexError, ValueError, OSError):
        sys.exit("usage: python -m rlpx.workers.swarm FD (rlpx-swarm starts these processes; nobody else needs to)")
    uvloop.run(run(stream))


if __name__ == "__main__":
    main()
