"""Which session makes room if a stage of the handshake is full: the one that has said least for the longest time.

Times are on a monotonic clock.
"""

from __future__ import annotations

from rlpx.protocol.bus.control import SessionId


class Laggards:
    """The sessions of one stage that may have to make room. All methods take constant time; leaving twice is harmless."""

    def __init__(self) -> None:
        # The time at which each session came, the oldest first: those that have said nothing, then those that have spoken.
        self._ranks: tuple[dict[SessionId, float], ...] = ({}, {})

    def enter(self, session: SessionId, *, has_spoken: bool, since: float) -> None:
        """Enter a session that came at `since`, which must not be earlier than that of any session entered before."""
        self.leave(session)
        self._ranks[has_spoken][session] = since

    def leave(self, session: SessionId) -> None:
        """Remove a session that has made progress or has ended."""
        for rank in self._ranks:
            rank.pop(session, None)

    def first(self, before: float) -> SessionId | None:
        """The session that makes room first, among those that came at `before` or earlier."""
        for rank in self._ranks:
            for session, since in rank.items():
                if since <= before:
                    return session
                break
        return None

    def __len__(self) -> int:
        return sum(map(len, self._ranks))
