"""The open requests to one peer: their ids, their deadlines, and whether an answer is late.

Ids count up over all capabilities of a session. The timeout adapts to the peer, T ← clamp(0.9 T + 0.3 rtt, 2 s, 20 s), as in
reth: it settles at three times the usual round trip. A request that timed out is remembered, so that its late answer is not
taken for misconduct. A request that is still unanswered after 120 s is a breach.
"""

from __future__ import annotations

import math
from typing import Final, NewType

import msgspec

from rlpx.protocol.eth.kinds import MessageKind

# Our id of a request on the wire, never reused in one session.
RequestId = NewType("RequestId", int)

INITIAL_TIMEOUT_SECONDS: Final = 20.0
MIN_TIMEOUT_SECONDS: Final = 2.0
MAX_TIMEOUT_SECONDS: Final = 20.0
# The weights of the moving average; a steady round trip r settles at 3 r.
_KEPT: Final = 0.9
_TAKEN: Final = 0.3
# A peer that leaves a request unanswered for this long does not intend to answer it.
BREACH_SECONDS: Final = 120.0
# More than any client has open with one peer; geth drops peers over 10,000.
MAX_IN_FLIGHT: Final = 256


class PendingRequest(msgspec.Struct):
    """One request in flight. `original_id` is the id in the caller's own message."""

    id: RequestId
    kind: MessageKind
    original_id: int
    sent_at: float
    deadline: float
    has_timed_out: bool = False


class Requests:
    """See the module. Times are on the session's monotonic clock."""

    __slots__ = ("_evicted", "_last_evicted", "_next", "_pending", "timeout_seconds")

    def __init__(self) -> None:
        self._next = 0
        self._pending: dict[RequestId, PendingRequest] = {}
        self.timeout_seconds = INITIAL_TIMEOUT_SECONDS
        # Requests that were evicted and whose answers may still come, and the highest id among all that were.
        self._evicted = 0
        self._last_evicted = -1

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def deadline(self) -> float:
        """When the next request times out or becomes a breach; infinite if none is in flight."""
        return min((pending.deadline for pending in self._pending.values()), default=math.inf)

    @property
    def is_full(self) -> bool:
        """Whether no further request may be sent. Requests that timed out do not count."""
        return sum(not pending.has_timed_out for pending in self._pending.values()) >= MAX_IN_FLIGHT

    def begin(self, kind: MessageKind, original_id: int, *, now: float) -> RequestId:
        """Book a request that is sent now; returns its id on the wire."""
        if len(self._pending) >= MAX_IN_FLIGHT:
            # The oldest request that timed out is evicted; see `is_of_evicted` for its answer.
            evicted = next(pending.id for pending in self._pending.values() if pending.has_timed_out)
            del self._pending[evicted]
            self._evicted += 1
            self._last_evicted = max(self._last_evicted, evicted)
        request_id = RequestId(self._next)
        self._next += 1
        self._pending[request_id] = PendingRequest(request_id, kind, original_id, now, now + self.timeout_seconds)
        return request_id

    def forget(self, request_id: RequestId) -> None:
        """Remove a request that was not sent after all."""
        del self._pending[request_id]

    def cancel(self, request_id: RequestId) -> None:
        """Treat a request as timed out, without an event: its caller has gone."""
        pending = self._pending.get(request_id)
        if pending is not None and not pending.has_timed_out:
            pending.has_timed_out = True
            pending.deadline = pending.sent_at + BREACH_SECONDS

    def answered(self, request_id: int, kind: MessageKind, *, now: float) -> PendingRequest | None:
        """Remove and return the request this response answers, or None if there is none.

        The caller compares the kinds. An answer of the wrong kind does not count as a round trip, unless it is late.
        """
        pending = self._pending.pop(RequestId(request_id), None)
        if pending is not None and (pending.has_timed_out or is_answer(pending.kind, kind)):
            average = _KEPT * self.timeout_seconds + _TAKEN * (now - pending.sent_at)
            self.timeout_seconds = min(max(average, MIN_TIMEOUT_SECONDS), MAX_TIMEOUT_SECONDS)
        return pending

    def is_of_evicted(self, request_id: int) -> bool:
        """Whether a response that answers no request here may answer an evicted one: that is late, and not misconduct.

        There are no more such responses than evicted requests.
        """
        if not self._evicted or request_id > self._last_evicted:
            return False
        self._evicted -= 1
        return True

    def expire(self, *, now: float) -> tuple[list[PendingRequest], bool]:
        """Return the requests that have timed out by now, each once, and whether the peer is in breach."""
        expired: list[PendingRequest] = []
        is_breach = False
        for pending in self._pending.values():
            if now < pending.deadline:
                continue
            if pending.has_timed_out:
                is_breach = True
                # Reported once: keep waiting for a late answer without a deadline.
                pending.deadline = math.inf
            else:
                pending.has_timed_out = True
                pending.deadline = pending.sent_at + BREACH_SECONDS
                expired.append(pending)
        return expired, is_breach

    def abandon(self) -> list[PendingRequest]:
        """Return the requests that still wait for an answer, and forget all: the session has ended."""
        waiting = [pending for pending in self._pending.values() if not pending.has_timed_out]
        self._pending.clear()
        return waiting


def is_answer(request: MessageKind, response: MessageKind) -> bool:
    """Whether a response is of the kind that the request expects."""
    return request.capability == response.capability and request.answer == response.id
