"""Notifies systemd, or another service manager that has started us, as sd_notify(3) describes.

The pure Python libraries for this have not been maintained for years. This module knows the socket and the messages, and
asks the engine for its state. Without `NOTIFY_SOCKET` it does nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from time import monotonic_ns
from typing import Final, Protocol

# sd_watchdog_enabled(3) recommends half of the allowed time, so that one late notification does no harm.
_BEATS_IN_TIME: Final = 2
# The interval at which the summary of the engine's state is sent, if it has changed.
STATUS_SECONDS: Final = 5.0


class Service(Protocol):
    """The service that is reported on."""

    @property
    def is_healthy(self) -> bool:
        """Whether all its processes are alive and none is stuck."""

    @property
    def summary(self) -> str:
        """Return one line about its state."""


class Notifier:
    """Notifies the service manager. Nothing here raises or blocks: a message that cannot be sent is dropped."""

    def __init__(self, environment: MutableMapping[str, str], pid: int) -> None:
        """Remove this process's variables from the environment, so that its children do not notify in its name."""
        self._address = _address(environment.pop("NOTIFY_SOCKET", ""))
        allowed_us, owner = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", str(pid))
        is_watched = allowed_us.isdecimal() and owner == str(pid)
        # The time between two signs of life; 0 if none are expected.
        self.watchdog_seconds = int(allowed_us) / 1e6 / _BEATS_IN_TIME if is_watched else 0.0
        self._socket: socket.socket | None = None
        if self._address:
            # It stays open, because it could not be opened while the table of descriptors is full.
            with suppress(OSError):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._told_summary = ""
        self._timer: asyncio.TimerHandle | None = None

    def ready(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        """Report that the service can be used. From now on, send its summary, and signs of life while it is healthy."""
        self._tell("READY=1")
        if self._socket is not None:
            self._beat(service, loop)

    def reloading(self) -> None:
        """Report that the configuration is being read again, until `reloaded` is called."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Report that a configuration is in force again: the new one, or the old one if the new one was wrong."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """Report that the end has begun. No more signs of life follow; the service manager has its own deadline."""
        self._cancel()
        self._tell("STOPPING=1", "STATUS=saying goodbye to every peer")

    def failed(self, reason: str) -> None:
        """Report why the service could not start."""
        self._tell(f"STATUS={reason}")

    def close(self) -> None:
        """Send nothing more."""
        self._cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _beat(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        if self.watchdog_seconds and service.is_healthy:
            self._tell("WATCHDOG=1")
        summary = service.summary
        if summary != self._told_summary:
            self._told_summary = summary
            self._tell(f"STATUS={summary}")
        wait = min(self.watchdog_seconds or STATUS_SECONDS, STATUS_SECONDS)
        self._timer = loop.call_later(wait, self._beat, service, loop)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(errors="backslashreplace"), socket.MSG_DONTWAIT, self._address)


def _address(text: str) -> str:
    """Return the address of a datagram socket: a path, or an abstract name, which is written with a leading `@`."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""
