"""A peer's bad messages, which are forgiven over time as in reth's reputation."""

from __future__ import annotations

from typing import Final

# reth: each bad message costs this many points, and each second of a session gives one back.
BAD_MESSAGE_POINTS: Final = 16_384
# reth bans a peer below -51,200, with the 4th bad message: this many points of that message are still allowed.
GRACE_POINTS: Final = 51_200 - 3 * BAD_MESSAGE_POINTS


class BadMessages:
    """The bad messages of one session. `count` is their number, forgiven ones included."""

    __slots__ = ("_added_at", "_points", "count")

    def __init__(self) -> None:
        self.count = 0
        self._points = 0.0
        self._added_at = 0.0

    def add(self, *, now: float) -> None:
        """Count one bad message."""
        self._points = max(0.0, self._points - (now - self._added_at)) + BAD_MESSAGE_POINTS
        self._added_at = now
        self.count += 1

    def is_over(self, max_count: int) -> bool:
        """Whether the peer has gone too far, where `max_count` bad messages in a row are too many."""
        return self._points > (max_count - 1) * BAD_MESSAGE_POINTS + GRACE_POINTS
