"""`python -m workers FD`: a worker on one end of a SEQPACKET pair that the engine has passed down."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import socket
import sys
from contextlib import suppress
from typing import Final, cast

import uvloop

from protocol import control
from workers.worker import Worker

# sysexits: an internal fault.
EXIT_SOFTWARE: Final = 70
# At the end the engine has this long to take the last reports.
LAST_REPORTS_SECONDS: Final = 1.0


# mallopt(3)'s numbers, and what they are set to. By itself glibc gives back what is freed at the heap's end beyond 128 KiB,
# and maps anew what is longer: each of six copies of a message of 128 KiB then costs 32 page faults, 100 of its 540 µs.
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
TRIM_BYTES: Final = 4 * 1024 * 1024
MMAP_BYTES: Final = 1024 * 1024


class EngineStream(asyncio.Protocol):
    """The stream to the engine: commands come down it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._decoder = control.command_decoder()
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to report."""
        self._worker.start(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """Commands."""
        for command in self._decoder.feed(data):
            self._worker.command(command)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the end is the end, whatever the error
        """The engine is gone, or we have closed and every report is written."""
        self.closed.set()
        self._worker.engine_lost()


async def run(handoffs: socket.socket) -> None:
    """Live until drained or until the engine is gone."""
    data, fds, _, _ = socket.recv_fds(handoffs, control.RECORD_MAX_BYTES, 1)
    if not data:
        return  # the engine has gone again before it told us anything
    record = control.decode_record(data)
    if not isinstance(record, control.Configure) or not fds:
        raise SystemExit("the first record is not a configuration with its stream")
    handoffs.setblocking(False)
    loop = asyncio.get_running_loop()
    worker = Worker(handoffs, record, loop)
    loop.set_exception_handler(worker.on_fault)
    stream = EngineStream(worker)
    transport, _ = await loop.create_connection(lambda: stream, sock=socket.socket(fileno=fds[0]))
    # What lives now lives as long as the process: the collector need not look at it again.
    gc.freeze()
    await worker.stopped.wait()
    worker.close()
    transport.close()
    with suppress(TimeoutError):
        await asyncio.wait_for(stream.closed.wait(), LAST_REPORTS_SECONDS)
    if worker.has_failed:
        raise SystemExit(EXIT_SOFTWARE)


def keep_freed_memory() -> None:
    """Let the C library keep some megabytes of what was freed for what comes next."""
    with suppress(AttributeError):  # only glibc has it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
        mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)


def main() -> None:
    """Start on the inherited descriptor."""
    try:
        handoffs = socket.socket(fileno=int(sys.argv[1]))
    except (IndexError, ValueError, OSError):
        sys.exit("usage: python -m workers FD (the engine starts workers; nobody else needs to)")
    keep_freed_memory()
    uvloop.run(run(handoffs))


if __name__ == "__main__":
    main()
