"""A TCP proxy on loopback that delays each byte, as a long path would."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

# A bound for the bytes that wait, which no session of a test reaches.
CHUNK_BYTES: Final = 65536


@contextmanager
def delayed(address: tuple[str, int], seconds: float) -> Iterator[int]:
    """A port whose connections lead to `address`, with this delay in seconds each way."""
    ready = threading.Event()
    ports: list[int] = []
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(lambda *ends: _carry_both(address, seconds, *ends), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


async def _carry_both(
    address: tuple[str, int], seconds: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    # The SYN and its answer are delayed as well.
    await asyncio.sleep(2 * seconds)
    try:
        far_reader, far_writer = await asyncio.open_connection(*address)
    except OSError:
        writer.transport.abort()
        return
    with suppress(asyncio.CancelledError):
        await asyncio.gather(_carry(reader, far_writer, seconds), _carry(far_reader, writer, seconds))
    for end in (writer, far_writer):
        end.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await reader.read(CHUNK_BYTES)
        except OSError:
            data = b""
        if not data:
            await asyncio.sleep(seconds)
            with suppress(OSError):
                writer.close()
            return
        loop.call_later(seconds, writer.write, data)
