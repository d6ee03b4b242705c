"""The TCP listener: it accepts until nobody waits, survives a full descriptor table, and pauses on request."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from typing import Final, Protocol

import structlog

from rlpx.engine.process.listening import listening
from rlpx.protocol.bus.control import KERNEL_BYTES
from rlpx.protocol.bus.descriptors import EXHAUSTED, GONE

# The kernel's queue of accepted connections while we pause (net.core.somaxconn caps it).
BACKLOG: Final = 4096
# Accepts in one iteration of the loop, so that commands and reports get their share.
ACCEPT_BUDGET: Final = 64
# If descriptors or memory run out, accept again after this long instead of spinning on a listener that stays readable.
EXHAUSTED_PAUSE_SECONDS: Final = 0.1
# The warning about that is repeated after this long at the earliest.
EXHAUSTED_LOG_SECONDS: Final = 10.0

# Accepted sockets inherit these, which saves two system calls a session.
_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES),
)

_MAPPED: Final = "::ffff:"

log = structlog.get_logger()


class ListeningSocket(socket.socket):
    """A listening socket that accepts bare descriptors: a socket object would take as long to make as the accept itself."""

    def accept_descriptor(self) -> tuple[int, tuple[str, int]]:
        """The descriptor of an accepted connection, and the peer's host and port. Raises `OSError`."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]  # what `accept` calls; typeshed leaves it out
        host, port = address[:2]
        # An IPv4 peer on a dual-stack socket (RFC 4291) gets its usual IPv4 address, as in its enode.
        return descriptor, (host.removeprefix(_MAPPED) if "." in host else host, port)


class Acceptor(Protocol):
    """Whoever takes the accepted connections."""

    def on_accept(self, descriptor: int, host: str, port: int) -> None:
        """A peer has connected from this address; the acceptor owns the descriptor from now on."""

    def on_accepted(self) -> None:
        """There is nothing more to accept in this iteration of the loop."""


class Listener:
    """Passes every connection to its `acceptor`, and reports the end of each series of accepts."""

    def __init__(self, sock: ListeningSocket, loop: asyncio.AbstractEventLoop, acceptor: Acceptor) -> None:
        self._socket = sock
        self._loop = loop
        self._acceptor = acceptor
        # A descriptor with this number or a higher one shows that the table is almost full.
        self.ceiling = sys.maxsize
        self._is_reading = False
        self._is_wanted = False
        self._is_resting = False
        self._exhausted_logged_at: float | None = None

    @classmethod
    def bind(cls, host: str, port: int) -> ListeningSocket:
        """A listening socket, non-blocking. Raises `OSError`."""
        return listening(ListeningSocket, host, port, BACKLOG, _OPTIONS)

    @property
    def is_paused(self) -> bool:
        """Whether new connections are left in the kernel's queue."""
        return not self._is_wanted

    def resume(self) -> None:
        """Accept from now on."""
        self._is_wanted = True
        self._read()

    def pause(self) -> None:
        """Leave new connections in the kernel's queue."""
        self._is_wanted = False
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._socket.fileno())

    def close(self) -> None:
        """Stop listening."""
        self.pause()
        self._socket.close()

    def _read(self) -> None:
        if self._is_wanted and not self._is_reading and not self._is_resting:
            self._is_reading = True
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            self._accept_all()
        finally:
            self._acceptor.on_accepted()

    def _accept_all(self) -> None:
        for _ in range(ACCEPT_BUDGET):
            if not self._is_wanted:
                return
            try:
                descriptor, (host, port) = self._socket.accept_descriptor()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._stand_back(error)
                    return
                if error.errno in GONE:
                    continue
                raise
            if descriptor >= self.ceiling:
                os.close(descriptor)
                self._stand_back(OSError(errno.EMFILE, "the table of file descriptors is almost full"))
                return
            self._acceptor.on_accept(descriptor, host, port)

    def _stand_back(self, error: OSError) -> None:
        self._is_reading, self._is_resting = False, True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.call_later(EXHAUSTED_PAUSE_SECONDS, self._rested)
        now = self._loop.time()
        if self._exhausted_logged_at is None or now - self._exhausted_logged_at >= EXHAUSTED_LOG_SECONDS:
            self._exhausted_logged_at = now
            log.warning("cannot accept, standing back", error=error.strerror, pause_ms=EXHAUSTED_PAUSE_SECONDS * 1000)

    def _rested(self) -> None:
        self._is_resting = False
        self._read()
