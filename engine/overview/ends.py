"""The last ends of sessions and attempts, and how many there were by who ended them and why."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from rlpx.engine.overview.clients import NO_CLIENT, ClientName, client_name
from rlpx.engine.overview.counters import Window
from rlpx.engine.overview.sessions import REMOTE_CHARACTERS
from rlpx.protocol.errors import printable

ENDS_KEPT: Final = 200
# The specification has 13 reasons. A peer may send any of 2**64 numbers.
MAX_REASONS: Final = 48
CAUSE_CHARACTERS: Final = 200
REASON_CHARACTERS: Final = 40
NO_REASON: Final = "-"
# Who ended it, and the reason of the Disconnect.
EndKey = tuple[str, str]
OTHER: Final[EndKey] = ("other", "other")


class End(msgspec.Struct, frozen=True):
    """The end of a session, or of an attempt to dial (`session` may be null then)."""

    time_us: int
    session: int | None
    peer: str
    direction: str
    remote: str
    worker: int | None
    stage: str
    ended_by: str
    reason: str
    cause: str
    duration_ms: int
    bytes_in: int
    bytes_out: int
    messages_in: int
    messages_out: int
    client: ClientName = NO_CLIENT


class Ends:
    """The last `ENDS_KEPT` ends, the latest first, and the counts of the last ten minutes."""

    def __init__(self) -> None:
        self._recent: deque[End] = deque(maxlen=ENDS_KEPT)
        self._reasons: Window[EndKey] = Window(OTHER, MAX_REASONS)

    @property
    def recent(self) -> Iterable[End]:
        """The last ends, the latest first."""
        return self._recent

    @property
    def total(self) -> int:
        """All ends that were seen."""
        return self._reasons.total

    def add(self, fields: Mapping[str, Any], client: ClientName, *, now: float) -> End:
        """Add the end of `session.closed`."""
        end = _end(fields, client)
        self._recent.appendleft(end)
        self._reasons.add((end.ended_by, end.reason), now=now)
        return end

    def fill(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Take over the ends from before we looked, the latest first, as `history` lists them. They are not counted."""
        known = {(end.time_us, end.session) for end in self._recent}
        for item in history:
            if (item["time_us"], item["session"]) not in known and len(self._recent) < ENDS_KEPT:
                self._recent.append(_end(item, client_name(item["client"])))

    def find(self, session: int) -> End | None:
        """The end of a session, if it is among the last ones."""
        return next((end for end in self._recent if end.session == session), None)

    def reasons(self, *, now: float) -> Counter[EndKey]:
        """The ends of the last ten minutes by who ended them and the reason."""
        return self._reasons.counts(now=now)

    def forget_recent(self) -> None:
        """Forget the ends of an earlier run, whose session numbers are used again."""
        self._recent.clear()


def _end(fields: Mapping[str, Any], client: ClientName) -> End:
    return End(
        time_us=fields["time_us"],
        session=fields["session"],
        peer=fields["peer"] or "",
        direction=fields["direction"],
        remote=printable(fields["remote"], REMOTE_CHARACTERS),
        worker=fields["worker"],
        stage=fields["stage"],
        ended_by=fields["ended_by"],
        reason=printable(fields["reason"] or NO_REASON, REASON_CHARACTERS),
        cause=printable(fields["cause"], CAUSE_CHARACTERS),
        duration_ms=fields["duration_ms"],
        bytes_in=fields["bytes_in"],
        bytes_out=fields["bytes_out"],
        messages_in=fields["messages_in"],
        messages_out=fields["messages_out"],
        client=client,
    )
