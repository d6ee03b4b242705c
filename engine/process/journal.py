"""The engine's log of its work: its start, refused connections with the causes, and at level `debug` every session.

Strangers determine how often these happen. So refusals are counted for one line a minute, and lines about sessions have a
limited rate.
"""

from __future__ import annotations

import resource
from collections import Counter
from typing import Final

import msgspec
import structlog

from rlpx.engine.settings.settings import Settings
from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.bus.events import SessionClosed
from rlpx.protocol.errors import printable
from rlpx.protocol.lifecycle import Direction

# Causes name limits and networks, so there may be many different ones. The most frequent ones are enough.
KEPT_CAUSES: Final = 64
SHOWN_CAUSES: Final = 8
# One line takes 20 to 50 microseconds, so these take at most a few percent of the loop's time.
SESSION_LINES_PER_SECOND: Final = 500
_OTHER: Final = "other causes"
_ENDED: Final = ("session", "peer", "direction", "remote", "worker", "stage", "ended_by", "reason", "cause", "duration_ms")

log = structlog.get_logger()


class Journal:
    """See the module. A call to any of these methods is the caller's last action."""

    def __init__(self) -> None:
        self._refused: Counter[str] = Counter()
        self._lines = 0
        self._left_out = 0

    def started(self, settings: Settings, version: str, enode: str | None) -> None:
        """Log that the engine has started and can serve."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        log.info(
            "the engine has started",
            version=version,
            listen=settings.listen or "nowhere",
            enode=enode,
            chain=settings.chain,
            workers=settings.workers,
            limits=msgspec.to_builtins(settings.limits),
            descriptors=descriptors,
        )

    def replaced(self, worker: int, pid: int) -> None:
        """Log that a worker has replaced a lost one."""
        log.info("a worker was replaced", worker=worker, pid=pid)

    def refused(self, cause: str) -> None:
        """Count a connection that was refused because of its address or its peer."""
        known = cause in self._refused or len(self._refused) < KEPT_CAUSES
        self._refused[cause if known else _OTHER] += 1

    def opened(self, session: SessionId, direction: Direction, remote: str, worker: WorkerId) -> None:
        """Log that a session has begun. Call this and `ended` only at level `debug`."""
        if self._has_line():
            log.debug("a session was opened", session=session, direction=direction, remote=remote, worker=worker)

    def ended(self, client: str | None, closed: SessionClosed) -> None:
        """Log the end of a session or dial: its `session.closed` event, and the client name of the peer."""
        if self._has_line():
            fields = {name: value for name in _ENDED if (value := getattr(closed, name)) is not None}
            log.debug("a session has ended", client=printable(client or "") or None, **fields)

    def _has_line(self) -> bool:
        self._lines += 1
        self._left_out += self._lines > SESSION_LINES_PER_SECOND
        return self._lines <= SESSION_LINES_PER_SECOND

    def on_second(self) -> None:
        """Log how many lines were left out."""
        left_out, self._lines, self._left_out = self._left_out, 0, 0
        if left_out:
            log.debug("lines of sessions were left out", lines=left_out)

    def take_refused(self) -> tuple[int, dict[str, int]]:
        """The number of connections refused since the last call, and their most frequent causes."""
        refused, self._refused = self._refused, Counter()
        return refused.total(), dict(refused.most_common(SHOWN_CAUSES))
