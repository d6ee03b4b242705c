"""Which connection is read next: one that has used up its time waits in a queue, and the queue is served round robin.

A connection earns a share of the worker's time while it is quiet. If it spends more than it has earned, it is not read until
its turn in the queue comes. Each loop iteration serves the queue for two milliseconds only. So a peer that sends little
waits no longer than that, however many others send as fast as they can.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

# Time for the queue in one loop iteration: a peer that is not in the queue waits about this long. The handshake of a
# newcomer takes some ten iterations, so it waits ten times as long.
TURN_SECONDS: Final = 0.002
# The least time for a connection whose turn has come. Pausing and resuming a socket takes about 5 µs.
LEAST_SLICE_SECONDS: Final = 0.0005


class Deferred(Protocol):
    """A connection that waits to be read."""

    deferred_at: float
    allowance_seconds: float

    def read_on(self) -> None:
        """Read again; does nothing once the connection is gone."""


class ReadQueue:
    """Deficit round robin over the connections that have spent their allowance. `call_soon` is the loop's."""

    __slots__ = ("_call_soon", "_is_called", "_waiting", "_worst_seconds")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._waiting: deque[Deferred] = deque()
        self._is_called = False
        self._worst_seconds = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def defer(self, connection: Deferred) -> None:
        """Let a connection wait for its turn. Its allowance is negative: what it has overspent."""
        connection.deferred_at = monotonic()
        self._waiting.append(connection)
        self._call()

    def take_worst_seconds(self, *, now: float) -> float:
        """The longest wait of a connection since the last call, including those that still wait."""
        oldest = min((connection.deferred_at for connection in self._waiting), default=now)
        worst, self._worst_seconds = max(self._worst_seconds, now - oldest), 0.0
        return worst

    def _call(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._call_soon(self._serve)

    def _serve(self) -> None:
        """Read some of the connections in this loop iteration, the one that has waited longest first."""
        self._is_called = False
        waiting, left = self._waiting, TURN_SECONDS
        slice_seconds = max(LEAST_SLICE_SECONDS, TURN_SECONDS / max(1, len(waiting)))
        now = monotonic()
        for _ in range(len(waiting)):
            if left <= 0:
                break
            connection = waiting.popleft()
            connection.allowance_seconds += slice_seconds
            if connection.allowance_seconds <= 0:
                # It has cost more than its slices so far, and passes its turn.
                waiting.append(connection)
                continue
            left -= slice_seconds
            self._worst_seconds = max(self._worst_seconds, now - connection.deferred_at)
            connection.read_on()
        if waiting:
            self._call()


class LagProbe:
    """Measures how long a byte waits if it reaches the loop as a peer's does: on a socket, among all readable ones.

    The lateness of a timer would say less: during a long read of many sockets, timers are called between two sockets.
    `observe` takes the seconds of each wait.
    """

    def __init__(self, observe: Callable[[float], object]) -> None:
        self._observe = observe
        self._read_end, self._write_end = socket.socketpair()
        for end in (self._read_end, self._write_end):
            end.setblocking(False)
        self._sent_at: float | None = None
        self._worst_seconds = 0.0

    def fileno(self) -> int:
        """The descriptor that is readable when the byte has come: call `on_readable` then."""
        return self._read_end.fileno()

    def send(self, *, now: float) -> None:
        """Send the byte, unless one is on its way."""
        if self._sent_at is None:
            self._write_end.send(b"\0")
            self._sent_at = now

    def on_readable(self) -> None:
        """The loop has reached the byte."""
        self._read_end.recv(1)
        now = monotonic()
        self._worst_seconds = self._age(now)
        if self._sent_at is not None:
            self._observe(now - self._sent_at)
        self._sent_at = None

    def take_worst_seconds(self, *, now: float) -> float:
        """The longest wait of a byte since the last call, including one that is on its way."""
        worst, self._worst_seconds = self._age(now), 0.0
        return worst

    def close(self) -> None:
        """Close both ends."""
        self._read_end.close()
        self._write_end.close()

    def _age(self, now: float) -> float:
        return max(self._worst_seconds, 0.0 if self._sent_at is None else now - self._sent_at)
