"""Sessions as users see them, in JSON: one of this moment, or all of them for openings of feeds that follow each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.lifecycle import Stage
from rlpx.workers.connection import Connection

# For this long the sessions that one opening has written serve others too.
SHOWN_SECONDS: Final = 0.5
# Sessions to write before the time is looked at: about 0.2 ms.
SHOWN_AT_ONCE: Final = 16


class ShownSessions:
    """Session objects that were written lately. Their numbers may be a moment old; the stage is that of now.

    A worker may have thousands of sessions, which take longer to write than one loop iteration should. So they are written
    in turns, and listed in one act once all are written.
    """

    __slots__ = ("_clock", "_is_complete", "_shown", "_written_at")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Each with the stage at which it was written.
        self._shown: dict[Connection, tuple[Stage, bytes]] = {}
        # When the first of them was written, and whether all have been since.
        self._written_at = 0.0
        self._is_complete = False

    def write(self, connections: Iterable[Connection], ends_at: float) -> bool:
        """Write those that were not written lately; returns whether all are. Some are written in each call."""
        now = self._clock()
        if not self._shown or (self._is_complete and now >= self._written_at + SHOWN_SECONDS):
            self._shown.clear()
            self._written_at, self._is_complete = now, False
        left = SHOWN_AT_ONCE
        for connection in connections:
            if connection not in self._shown and self.json(connection):
                left -= 1
                if left <= 0 and self._clock() >= ends_at:
                    return False
        self._is_complete = True
        return True

    def json(self, connection: Connection) -> bytes:
        """The object of a session; empty if its opening is not published."""
        view, stage = connection.view, connection.session.stage
        if view is None or view.local is None:
            return b""
        shown = self._shown.get(connection)
        if shown is None or shown[0] is not stage:
            shown = self._shown[connection] = (stage, shown_json(connection, view))
        return shown[1]

    def forget(self, connection: Connection) -> None:
        """A session has ended."""
        self._shown.pop(connection, None)

    def expire(self) -> None:
        """Forget what is too old. Call it when no list is being written."""
        if self._shown and self._clock() >= self._written_at + SHOWN_SECONDS:
            self._shown.clear()


def shown_json(connection: Connection, view: SessionView) -> bytes:
    """The session object in JSON; `view` is the connection's."""
    return msgspec.json.encode(view.shown(connection.stats(), connection.session.stage, remote_range(connection)))


def remote_range(connection: Connection) -> tuple[int, int, str] | None:
    """The peer's block range by its last update: the earliest and the latest block, and the hash of the latest."""
    span = connection.session.remote_range
    return None if span is None else (span[0], span[1], "0x" + span[2].hex())
