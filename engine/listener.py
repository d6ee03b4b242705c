"""The TCP listener: accept until there is nothing more, survive a full descriptor table, stand aside when told."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

import structlog

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


class Listener:
    """Calls `on_accept` with each socket and its peer's address; that one owns the socket then."""

    def __init__(
        self, sock: socket.socket, loop: asyncio.AbstractEventLoop, on_accept: Callable[[socket.socket, str, int], None]
    ) -> None:
        self._socket = sock
        self._loop = loop
        self._on_accept = on_accept
        self._is_reading = False
        self._is_wanted = False
        self._is_resting = False
        self._exhausted_logged_at: float | None = None

    @classmethod
    def bind(cls, host: str, port: int) -> socket.socket:
        """A listening socket, non-blocking. Raises `OSError`."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # What is accepted inherits it (tcp(7)), for one system call less a session.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind((host, port))
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
        return sock

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
        for _ in range(ACCEPT_BUDGET):
            if not self._is_wanted:
                return
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._stand_back(error)
                    return
                if error.errno in _GONE:
                    continue
                raise
            self._on_accept(sock, address[0], address[1])

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
