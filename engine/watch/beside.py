"""`rlpx-watch` as the engine starts it: on an inherited socket, by which the listening socket comes and the end is told.

The first record on it are the arguments, with the listening socket. We say by a byte that we serve, and then every few
seconds that we still do. When the engine closes its end, or is gone, we end.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from rlpx.engine.client.door import run_dir_endpoint
from rlpx.engine.watch.command import application, parser
from rlpx.protocol.mistakes import ConfigError

# The record with the arguments.
RECORD_MAX_BYTES: Final = 64 * 1024
BEAT_SECONDS: Final = 3.0
# Sessions come first: this process gets the processor after the engine's, and is the first to go if memory is short.
NICENESS: Final = 5
OOM_SCORE: Final = 500
# Everything that the page's readers and scrapes need is far below this.
MEMORY_MAX_BYTES: Final = 4 * 1024 * 1024 * 1024
# Signals that a terminal or a supervisor sends to the whole process group: the engine ends us.
_LEFT_TO_THE_ENGINE: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})


async def run(engine: socket.socket, listening: socket.socket, arguments: list[str]) -> None:
    """Serve until the engine's end of its socket is closed."""
    given = parser().parse_args(arguments)
    app, _ = await application(given, run_dir_endpoint(given.run_dir, "control"))
    from rlpx.engine.watch.server import serve  # noqa: PLC0415 - `application` has found that its libraries are there

    stopped = asyncio.Event()
    engine.setblocking(False)
    # Nothing more comes: it is readable when the other end is closed.
    asyncio.get_running_loop().add_reader(engine.fileno(), stopped.set)
    await serve(app, listening, lambda: _beat(engine), stopped)


def _beat(engine: socket.socket) -> None:
    """Say that we serve, again and again. An engine that is stopped does not read, one that is gone needs no beats."""
    with suppress(OSError):
        engine.send(b"\1")
    asyncio.get_running_loop().call_later(BEAT_SECONDS, _beat, engine)


def step_back() -> None:
    """Leave processor and memory to the sessions."""
    os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(f"{OOM_SCORE}\n")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > MEMORY_MAX_BYTES:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, hard))


def main() -> None:
    """Start on the inherited descriptor."""
    for number in _LEFT_TO_THE_ENGINE:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEFT_TO_THE_ENGINE)
    try:
        engine = socket.socket(fileno=int(sys.argv[1]))
    except (IndexError, ValueError, OSError):
        sys.exit("usage: python -m rlpx.engine.watch.beside FD (the engine starts it; users start rlpx-watch)")
    step_back()
    record, descriptors, _, _ = socket.recv_fds(engine, RECORD_MAX_BYTES, 1)
    if not descriptors:
        sys.exit(0)  # the engine was gone before it had said anything
    try:
        uvloop.run(run(engine, socket.socket(fileno=descriptors[0]), msgspec.json.decode(record, type=list[str])))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
