"""Sockets on which users' programs connect: bound here, served by `rlpx.protocol.bus.endpoint`."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from rlpx.engine.process.listening import listening
from rlpx.protocol.bus.endpoint import Endpoint
from rlpx.protocol.rlpx.host_port import parse_host_port

# Programs that may connect at the same moment.
BACKLOG: Final = 128
# The kernel notices after 60 + 3 x 10 s that a user's machine has disappeared without closing its connections.
KEEPALIVE_IDLE_SECONDS: Final = 60
KEEPALIVE_INTERVAL_SECONDS: Final = 10
KEEPALIVE_PROBES: Final = 3
_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
)
# How often a closing endpoint is checked.
CLOSING_POLL_SECONDS: Final = 0.005


async def close_endpoint(endpoint: Endpoint, seconds: float) -> None:
    """Give waiting messages this long to leave, then close all connections."""
    endpoint.close()
    ends = endpoint.clockwork.clock() + seconds
    while endpoint.links and endpoint.clockwork.clock() < ends:  # noqa: ASYNC110 - connections set no event
        await asyncio.sleep(CLOSING_POLL_SECONDS)
    endpoint.abort()


def bind_ipc(path: Path) -> socket.socket:
    """A listening Unix socket, mode 0600. It replaces the one that a killed engine has left. Raises `OSError`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # The old socket cannot be another engine's: the run directory is locked.
        with suppress(FileNotFoundError):
            path.unlink()
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def bind_endpoint(endpoint: str) -> socket.socket:
    """A listening socket for `tcp://HOST:PORT`. Raises `OSError`."""
    return bind_tcp(*parse_host_port(endpoint.removeprefix("tcp://")))


def bind_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises `OSError`."""
    return listening(socket.socket, host, port, BACKLOG, _OPTIONS)
