"""Serves the application on a listening socket until the process is told to end."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from rlpx.engine.watch.doors import Doors

# At the end, answers in progress have this long; live pages are cut off.
SHUTDOWN_SECONDS: Final = 1.0
# A connection without a request is kept this long. Prometheus asks again within a minute at most, usually.
KEEP_ALIVE_SECONDS: Final = 75.0


def _is_our_fault(record: logging.LogRecord) -> bool:
    """Whether a record of the library is worth a line: a malformed request is answered, and everybody can send many."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


_LOGGER: Final = logging.getLogger("rlpx.watch")
_LOGGER.addFilter(_is_our_fault)


async def serve(
    app: web.Application, listening: socket.socket, on_ready: Callable[[], None], stopped: asyncio.Event
) -> None:
    """Serve until `stopped` is set."""
    doors = Doors()
    app.middlewares.insert(0, doors.middleware())
    runner = web.AppRunner(
        app,
        logger=_LOGGER,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        shutdown_timeout=SHUTDOWN_SECONDS,
        handle_signals=False,
    )
    try:
        await runner.setup()
        if runner.server is not None:
            await doors.open(runner.server, listening)
        on_ready()
        await stopped.wait()
    finally:
        doors.close()
        await runner.cleanup()
