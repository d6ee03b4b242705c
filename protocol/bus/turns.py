"""The order in which users are read: those that have sent more than a turn allows wait in a ring, served round robin.

A user whose bytes have just come is served at once, unless others wait or the time of this loop iteration is used up.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from rlpx.protocol.bus.clockwork import Clockwork

# The time that the ring may take in one loop iteration, and the same for users that are served at once.
TURN_SECONDS: Final = 0.002


class Served(Protocol):
    """A user's connection. `is_waiting` belongs to the ring."""

    is_waiting: bool

    def serve(self) -> bool:
        """Handle a few of its frames; returns whether more can be handled at once."""

    def pause(self) -> None:
        """Stop reading from its socket."""

    def read_on(self) -> None:
        """Read from its socket again, if nothing else forbids that."""


class ReadTurns:
    """The ring. The sockets of users in it are not read, so that their bytes wait in the kernel."""

    def __init__(self, clockwork: Clockwork) -> None:
        self._clockwork = clockwork
        # Each user is in it at most once.
        self._ring: deque[Served] = deque()
        self._is_due = False
        # The time for users that were served at once in this loop iteration, and whether it will be reset.
        self._spent_seconds = 0.0
        self._is_reset_due = False

    def on_data(self, user: Served) -> None:
        """Serve a user whose bytes have just come, or let it wait."""
        if self._ring or self._spent_seconds >= TURN_SECONDS:
            self.wait(user)
            return
        began = self._clockwork.clock()
        has_more = user.serve()
        self._spent_seconds += self._clockwork.clock() - began
        if not self._is_reset_due:
            self._is_reset_due = True
            self._clockwork.loop.call_soon(self._reset)
        if has_more:
            self.wait(user)

    def wait(self, user: Served) -> None:
        """Serve the user in the next loop iteration, after those that already wait."""
        if user.is_waiting:
            return
        user.is_waiting = True
        user.pause()
        self._ring.append(user)
        self._call()

    def _reset(self) -> None:
        self._spent_seconds = 0.0
        self._is_reset_due = False

    def _call(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._clockwork.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_due = False
        ends = self._clockwork.clock() + TURN_SECONDS
        for _ in range(len(self._ring)):
            user = self._ring.popleft()
            user.is_waiting = False
            if user.serve():
                user.is_waiting = True
                self._ring.append(user)
            else:
                user.read_on()
            if self._clockwork.clock() >= ends:
                break
        if self._ring:
            self._call()
