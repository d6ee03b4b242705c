"""The time limit for a peer that does not read: how long it may take to read some of what was written to it."""

from __future__ import annotations


class StallTimer:
    """Runs while the transport has no room. At each `due` the peer must have read something since the one before."""

    __slots__ = ("_seconds", "_unread_bytes", "due")

    def __init__(self, unread_bytes: int, seconds: float, *, now: float) -> None:
        self._unread_bytes = unread_bytes
        self._seconds = seconds
        self.due = now + seconds

    def renew(self, unread_bytes: int, *, now: float) -> bool:
        """Start another period if the peer has read anything in this one; returns whether it has."""
        has_read = unread_bytes < self._unread_bytes
        if has_read:
            self._unread_bytes = unread_bytes
            self.due = now + self._seconds
        return has_read
