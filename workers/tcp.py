"""A TCP connection to a peer that may have several addresses (RFC 8305): they are tried in order, with overlap."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from collections.abc import Sequence
from typing import Final

from rlpx.protocol.bus.control import KERNEL_BYTES

# The delay between the starts of two attempts (RFC 8305, section 5: "recommended to be 250 ms").
STAGGER_SECONDS: Final = 0.25

Address = tuple[str, int]


class ConnectError(Exception):
    """No address could be reached. `is_refused` says that nobody listens at any of them."""

    def __init__(self, reason: str, *, is_refused: bool) -> None:
        super().__init__(reason)
        self.is_refused = is_refused


async def connect(loop: asyncio.AbstractEventLoop, addresses: Sequence[Address]) -> socket.socket:
    """A socket connected to whichever of these numeric addresses answers first. Raises `ConnectError` if none does."""
    attempts: dict[asyncio.Task[socket.socket], Address] = {}
    errors: dict[Address, OSError] = {}
    waiting = list(addresses)
    try:
        while waiting or attempts:
            if waiting:
                address = waiting.pop(0)
                attempts[loop.create_task(_connect(loop, address))] = address
            seconds = STAGGER_SECONDS if waiting else None
            done, _ = await asyncio.wait(attempts, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                address = attempts.pop(attempt)
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                if not isinstance(error, OSError):
                    raise error
                errors[address] = error
    finally:
        for attempt in attempts:
            _call_off(attempt)
    is_refused = all(error.errno == errno.ECONNREFUSED for error in errors.values())
    reasons = [os.strerror(error.errno) if error.errno else str(error) for error in errors.values()]
    if len(reasons) > 1:
        reasons = [f"{host} port {port}: {why}" for (host, port), why in zip(errors, reasons, strict=True)]
    raise ConnectError("; ".join(reasons), is_refused=is_refused)


async def _connect(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    host, port = address
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)
        await loop.sock_connect(sock, _socket_address(host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _socket_address(host: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """The address for connect(2), where a zone is a number. Raises `OSError` if this machine has no such interface."""
    address = ipaddress.ip_address(host)
    zone = address.scope_id if isinstance(address, ipaddress.IPv6Address) else None
    if zone is None:
        return host, port
    try:
        number = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    except OSError as error:
        raise OSError(f"there is no interface {zone}") from error
    return host.partition("%")[0], port, 0, number


def _call_off(attempt: asyncio.Task[socket.socket]) -> None:
    """End an attempt that is not needed. It may have connected meanwhile: its socket is closed when it is done."""
    attempt.cancel()
    attempt.add_done_callback(_close)


def _close(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
