"""`python -m rlpx.workers FD FINGERPRINT`: a worker on one end of a SEQPACKET pair that the engine has passed down.

The fingerprint is the engine's (`agreement.py`): a worker whose code has another one ends at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from typing import Final, cast

import uvloop

from rlpx.protocol.allocator import keep_freed_memory
from rlpx.protocol.bus import control
from rlpx.protocol.bus.agreement import DISAGREES_EXIT, fingerprint
from rlpx.protocol.bus.records import RECORD_MAX_BYTES, Configure, decode_record
from rlpx.workers.worker import Worker

# At the end the engine has this long to take the last reports, and programs to take their last events.
LAST_REPORTS_SECONDS: Final = 1.0
# These end the engine, or make it read its configuration again. This process ends when the engine closes its sockets.
LEFT_TO_THE_ENGINE: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})

# prctl(2)'s number: whether other processes of this user may read our memory.
PR_SET_DUMPABLE: Final = 4


class EngineStream(asyncio.Protocol):
    """The stream to the engine: commands come down it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._decoder = control.command_decoder()
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The engine is connected: start to report."""
        self._worker.start(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """Carry out commands."""
        for command in self._decoder.feed(data):
            self._worker.command(command)

    def resume_writing(self) -> None:
        """The engine has read what was waiting."""
        self._worker.on_engine_room()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the error makes no difference
        """The engine is gone, or we have closed and every report is written."""
        self.closed.set()
        self._worker.engine_lost()


async def run(handoffs: socket.socket) -> None:
    """Live until drained or until the engine is gone."""
    data, fds, _, _ = socket.recv_fds(handoffs, RECORD_MAX_BYTES, 2)
    if not data:
        return  # the engine ended before it sent a configuration
    record = decode_record(data)
    if not isinstance(record, Configure) or not fds:
        raise SystemExit("the first record is not a configuration with its stream")
    handoffs.setblocking(False)
    loop = asyncio.get_running_loop()
    stream_fd, *listening = fds
    worker = Worker(handoffs, record, loop, [socket.socket(fileno=fd) for fd in listening])
    loop.set_exception_handler(worker.on_fault)
    stream = EngineStream(worker)
    transport, _ = await loop.create_connection(lambda: stream, sock=socket.socket(fileno=stream_fd))
    # These objects live as long as the process, so the garbage collector need not look at them again.
    gc.freeze()
    await worker.stopped.wait()
    worker.close()
    transport.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_REPORTS_SECONDS):
            await stream.closed.wait()
            await worker.programs_gone.wait()
    if worker.has_failed:
        raise SystemExit(os.EX_SOFTWARE)


def keep_key_inside() -> None:
    """Write no core file, and let no other process of the same user read our memory: it holds the node key."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    with suppress(AttributeError):  # only Linux's libc has it
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def leave_signals_to_the_engine() -> None:
    """Ignore signals that a terminal or a supervisor sends to the whole process group.

    The engine receives them as well, and ends this process in good order. It starts workers with these signals
    blocked, because this call comes after the imports.
    """
    for number in LEFT_TO_THE_ENGINE:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_THE_ENGINE)


def main() -> None:
    """Start on the inherited descriptor."""
    leave_signals_to_the_engine()
    try:
        handoffs, expected = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    except (IndexError, ValueError, OSError):
        sys.exit("usage: python -m rlpx.workers FD FINGERPRINT (the engine starts workers; nobody else needs to)")
    if expected != fingerprint():
        sys.exit(DISAGREES_EXIT)
    keep_key_inside()
    keep_freed_memory()
    uvloop.run(run(handoffs))


if __name__ == "__main__":
    main()
