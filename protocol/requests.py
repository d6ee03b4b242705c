"""The requests that we have asked of one peer: their ids, deadlines, and what their answers are worth.

Ids count up over all capabilities of a session. The timeout follows the peer, T ← clamp(0.9 T + 0.3 rtt, 2 s, 20 s), as in
reth: three times the usual round trip. A request that timed out is remembered, so that its late answer is nobody's fault;
one without any answer for 120 s is a breach.
"""

from __future__ import annotations

import math
from typing import Final, NewType

import msgspec

from protocol.messages import MessageKind

# An id on the wire, ours: never reused in one session.
RequestId = NewType("RequestId", int)

INITIAL_TIMEOUT_SECONDS: Final = 20.0
MIN_TIMEOUT_SECONDS: Final = 2.0
MAX_TIMEOUT_SECONDS: Final = 20.0
# The weights of the moving average; a steady round trip r settles at 3 r.
_KEPT: Final = 0.9
_TAKEN: Final = 0.3
# A peer that has not answered at all for this long does not mean to.
BREACH_SECONDS: Final = 120.0
# More than any client has open with one peer; geth drops peers over 10,000.
MAX_IN_FLIGHT: Final = 256


class Pending(msgspec.Struct):
    """One request in flight. `asker_id` is the id that the asker's own message had."""

    id: RequestId
    kind: MessageKind
    asker_id: int
    sent_at: float
    deadline: float
    has_timed_out: bool = False


class Requests:
    """See the module. Times are on the session's monotonic clock."""

    __slots__ = ("_next", "_pending", "timeout_seconds")

    def __init__(self) -> None:
        self._next = 0
        self._pending: dict[RequestId, Pending] = {}
        self.timeout_seconds = INITIAL_TIMEOUT_SECONDS

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def deadline(self) -> float:
        """When the next one times out or breaches; infinite where none is in flight."""
        return min((pending.deadline for pending in self._pending.values()), default=math.inf)

    @property
    def is_full(self) -> bool:
        """Whether another one would be too many. Those that timed out do not count."""
        return sum(not pending.has_timed_out for pending in self._pending.values()) >= MAX_IN_FLIGHT

    def begin(self, kind: MessageKind, asker_id: int, *, now: float) -> RequestId:
        """Book a request that is sent now; the id to send it under."""
        if len(self._pending) >= MAX_IN_FLIGHT:
            # The oldest of those that timed out gives way: its answer would be nobody's fault, nor is it worth a place.
            del self._pending[next(pending.id for pending in self._pending.values() if pending.has_timed_out)]
        request_id = RequestId(self._next)
        self._next += 1
        self._pending[request_id] = Pending(request_id, kind, asker_id, now, now + self.timeout_seconds)
        return request_id

    def forget(self, request_id: RequestId) -> None:
        """It was not sent after all."""
        del self._pending[request_id]

    def cancel(self, request_id: RequestId) -> None:
        """Its asker has gone: as if it had timed out, but nobody is to be told."""
        pending = self._pending.get(request_id)
        if pending is not None and not pending.has_timed_out:
            pending.has_timed_out = True
            pending.deadline = pending.sent_at + BREACH_SECONDS

    def answered(self, request_id: int, kind: MessageKind, *, now: float) -> Pending | None:
        """The request that a response answers, out of the book; `None` where nobody asked.

        The caller compares the kinds: an answer of the wrong kind says nothing about the round trip, unless it is late,
        when nobody looks at it.
        """
        pending = self._pending.pop(RequestId(request_id), None)
        if pending is not None and (pending.has_timed_out or is_answer(pending.kind, kind)):
            average = _KEPT * self.timeout_seconds + _TAKEN * (now - pending.sent_at)
            self.timeout_seconds = min(max(average, MIN_TIMEOUT_SECONDS), MAX_TIMEOUT_SECONDS)
        return pending

    def expire(self, *, now: float) -> tuple[list[Pending], bool]:
        """What has timed out by now, each once, and whether the peer is in breach."""
        expired: list[Pending] = []
        is_breach = False
        for pending in self._pending.values():
            if now < pending.deadline:
                continue
            if pending.has_timed_out:
                is_breach = True
                # Told once: the answer that may still come is awaited without an end.
                pending.deadline = math.inf
            else:
                pending.has_timed_out = True
                pending.deadline = pending.sent_at + BREACH_SECONDS
                expired.append(pending)
        return expired, is_breach

    def abandon(self) -> list[Pending]:
        """The session ends: what still waits for an answer."""
        waiting = [pending for pending in self._pending.values() if not pending.has_timed_out]
        self._pending.clear()
        return waiting


def is_answer(request: MessageKind, response: MessageKind) -> bool:
    """Whether a response is of the kind that the request asks for."""
    return request.capability == response.capability and request.answer == response.id
