"""The TCP listener: accept until there is nothing more, survive a full descriptor table, stand aside when told."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Final, Protocol

import structlog

from protocol.send_queue import KERNEL_BYTES

# The kernel's queue of accepted connections while we pause (net.core.somaxconn caps it).
BACKLOG: Final = 4096
# Accepts in one turn of the loop, so that commands and reports get theirs.
ACCEPT_BUDGET: Final = 64
# Out of descriptors or memory: look again after this long instead of spinning on a listener that stays readable.
EXHAUSTED_PAUSE_SECONDS: Final = 0.1
# And say so again only after this long.
EXHAUSTED_LOG_SECONDS: Final = 10.0
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# The peer was gone before we took it: nothing to do with us (accept(2)).
_GONE: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    }
)

log = structlog.get_logger()


class ListeningSocket(socket.socket):
    """A listening socket that makes no socket object of what it accepts: that would take as long as the accept itself."""

    def accept_descriptor(self) -> tuple[int, tuple[str, int]]:
        """The descriptor of an accepted connection, and the peer's host and port. Raises `OSError`."""
        descriptor, address = self._accept()  # type: ignore[attr-defined]  # what `accept` calls; typeshed leaves it out
        return descriptor, address[:2]


class Acceptor(Protocol):
    """Who takes what is accepted."""

    def on_accept(self, descriptor: int, host: str, port: int) -> None:
        """A peer has connected from this address; the descriptor is the acceptor's from now on."""

    def on_accepted(self) -> None:
        """That was all for this turn of the loop."""


class Listener:
    """Tells its `acceptor` of every connection, and when it stops for now."""

    def __init__(self, sock: ListeningSocket, loop: asyncio.AbstractEventLoop, acceptor: Acceptor) -> None:
        self._socket = sock
        self._loop = loop
        self._acceptor = acceptor
        self._is_reading = False
        self._is_wanted = False
        self._is_resting = False
        self._exhausted_logged_at: float | None = None

    @classmethod
    def bind(cls, host: str, port: int) -> ListeningSocket:
        """A listening socket, non-blocking. Raises `OSError`."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = ListeningSocket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # What is accepted inherits them (tcp(7)), for two system calls less a session.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)
            sock.bind((host, port))
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        return sock

    @property
    def is_paused(self) -> bool:
        """Whether what comes is left in the kernel's queue."""
        return not self._is_wanted

    def resume(self) -> None:
        """Accept from now on."""
        self._is_wanted = True
        self._read()

    def pause(self) -> None:
        """Leave what comes in the kernel's queue."""
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
                if error.errno in _EXHAUSTED:
                    self._stand_back(error)
                    return
                if error.errno in _GONE:
                    continue
                raise
            self._acceptor.on_accept(descriptor, host, port)

    def _stand_back(self, error: OSError) -> None:
        now = self._loop.time()
        if self._exhausted_logged_at is None or now - self._exhausted_logged_at >= EXHAUSTED_LOG_SECONDS:
            self._exhausted_logged_at = now
            log.warning("cannot accept, standing back", error=error.strerror, pause_ms=EXHAUSTED_PAUSE_SECONDS * 1000)
        self._is_reading, self._is_resting = False, True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.call_later(EXHAUSTED_PAUSE_SECONDS, self._rested)

    def _rested(self) -> None:
        self._is_resting = False
        self._read()
