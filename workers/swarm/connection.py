"""The asyncio side of one visit of a simulated peer: its socket, its deadline on the wheel, and its end."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from time import monotonic
from typing import Final, Protocol, cast

from rlpx.workers.swarm.peer import Hangup, Peer

# After a goodbye the target has this long to close (rlpx.md).
GOODBYE_SECONDS: Final = 2.0
# The time between two reads of a slow reader.
SLOW_READ_SECONDS: Final = 1.0
# The value of SO_LINGER with which closing a socket resets the connection.
_RESETTING_LINGER: Final = struct.pack("ii", 1, 0)


class Host(Protocol):
    """What a connection needs of its process."""

    def on_deadline_moved(self, connection: SwarmConnection) -> None:
        """The deadline may be nearer than before."""

    def on_connected(self, connection: SwarmConnection) -> None:
        """TCP is up."""

    def on_gone(self, connection: SwarmConnection) -> None:
        """The socket is closed."""


class SwarmConnection(asyncio.Protocol):
    """One socket and one visit."""

    __slots__ = ("_host", "_is_saying_goodbye", "_reads_at", "_transport", "bucket", "deadline", "peer")

    def __init__(self, peer: Peer, host: Host) -> None:
        self.peer = peer
        self.bucket: int | None = None
        self.deadline = peer.deadline
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._is_saying_goodbye = False
        # The time at which a slow reader reads again.
        self._reads_at = math.inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP is up: the visit begins."""
        self._transport = cast("asyncio.Transport", transport)
        self._host.on_connected(self)
        self.drive()

    def data_received(self, data: bytes) -> None:
        """Take bytes of the target."""
        now = monotonic()
        self.peer.receive(data, now=now)
        if self.peer.reads_slowly and self.peer.is_established and self._transport is not None:
            self._transport.pause_reading()
            self._reads_at = now + SLOW_READ_SECONDS
        self.drive()

    def eof_received(self) -> bool:
        """The target closed its side."""
        self.peer.lost(is_reset=False, now=monotonic())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._transport = None
        self.deadline = math.inf
        self.peer.lost(is_reset=isinstance(exc, ConnectionResetError | BrokenPipeError), now=monotonic())
        self._host.on_gone(self)

    def on_deadline(self, now: float) -> None:
        """Do what is due: end the goodbye, read again, or let time pass for the peer."""
        if self._is_saying_goodbye:
            self.abort()
            return
        if now >= self._reads_at and self._transport is not None:
            self._reads_at = math.inf
            self._transport.resume_reading()
        self.peer.tick(now=now)
        self.drive()

    def drive(self) -> None:
        """Write, hang up, and move the deadline. Call it after anything that was done to the peer."""
        peer, transport = self.peer, self._transport
        if transport is None or self._is_saying_goodbye:
            return
        data = peer.data_to_send()
        if data:
            transport.write(data)
        if peer.hangup is Hangup.RESET:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETTING_LINGER)
            self.abort()
            return
        if peer.end is not None:
            # The last message was a goodbye: the target gets time to read it.
            self._is_saying_goodbye = True
            self.deadline = monotonic() + GOODBYE_SECONDS
            if transport.can_write_eof() and not transport.is_closing():
                transport.write_eof()
        else:
            if peer.hangup is Hangup.EOF and not transport.is_closing():
                peer.hangup = None
                transport.write_eof()
            self.deadline = min(peer.deadline, self._reads_at)
        self._host.on_deadline_moved(self)

    def abort(self) -> None:
        """Close the socket now."""
        if self._transport is not None:
            self._transport.abort()
