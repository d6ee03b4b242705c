"""All that this worker counts: bytes, messages, handshakes, requests. It decides nothing, and forgets nothing.

What is counted has a bounded number of names: stages, directions, and the messages of eth and snap. `Traffic` bounds those
of users' sub-protocols.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from time import monotonic
from typing import Final, Protocol, TypeAlias

from rlpx.protocol.bus.metrics import (
    Durations,
    HandshakeCounts,
    MessageCounts,
    RequestCounts,
    StageCounts,
    WorkerCounters,
)
from rlpx.protocol.bus.results import FeedsStatus
from rlpx.protocol.eth.kinds import MessageKind
from rlpx.protocol.eth.traffic import Traffic
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage

# Capability and message of a request.
RequestName: TypeAlias = tuple[str, str]

_INBOUND: Final = Direction.INBOUND
# Outcomes of requests.
ANSWERED: Final = "answered"
CANCELLED: Final = "cancelled"
EMPTY: Final = "empty"
UNANSWERED: Final = "unanswered"
MALFORMED: Final = "malformed"


class Bytes(Protocol):
    """A session whose bytes are counted."""

    bytes_in: int

    @property
    def bytes_out(self) -> int:
        """Bytes that were given to be written."""


class Requests:
    """The outcomes of requests of each kind, and how long answers took."""

    def __init__(self) -> None:
        self._answered: dict[RequestName, Durations] = {}
        self._outcomes: dict[RequestName, Counter[str]] = {}

    def answered(self, kind: MessageKind, seconds: float) -> None:
        """A request was answered."""
        name = kind.capability.name, kind.name
        self._answered.setdefault(name, Durations()).observe(seconds)
        self._outcomes.setdefault(name, Counter())[ANSWERED] += 1

    def ended(self, kind: MessageKind, outcome: str) -> None:
        """A request ended without an answer."""
        self._outcomes.setdefault((kind.capability.name, kind.name), Counter())[outcome] += 1

    def counts(self) -> list[RequestCounts]:
        """All of it."""
        return [
            RequestCounts(*name, self._answered.get(name, Durations()), dict(outcomes))
            for name, outcomes in self._outcomes.items()
        ]


class Counters:
    """See the module."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.requests_out = Requests()
        self.requests_in = Requests()
        self.loop_lag = Durations()
        self.misconduct: Counter[str] = Counter()
        # By the identity of the stage, negative if outbound: the hash of an enum's member costs as much as the rest.
        self._passed: dict[int, tuple[Direction, Stage, Durations]] = {}
        self._ended: dict[tuple[Direction, Stage], Counter[str]] = {}
        self._established: dict[Direction, Durations] = {}
        # Of sessions that have ended.
        self._bytes_in = 0
        self._bytes_out = 0

    def on_passed(self, direction: Direction, stage: Stage, seconds: float) -> None:
        """A session has passed a stage of its handshake."""
        place = id(stage) if direction is _INBOUND else -id(stage)
        passed = self._passed.get(place)
        if passed is None:
            passed = self._passed[place] = direction, stage, Durations()
        passed[2].observe(seconds)

    def on_failed(self, direction: Direction, stage: Stage, by: EndedBy) -> None:
        """A session, or a dial, has ended before it was active."""
        self._ended.setdefault((direction, stage), Counter())[by.value] += 1

    def on_established(self, direction: Direction, opened_at: float) -> None:
        """A session is active; it began at this time of the monotonic clock."""
        self._established.setdefault(direction, Durations()).observe(monotonic() - opened_at)

    def on_ended(self, session: Bytes) -> None:
        """A session has ended: its bytes count from now on without it."""
        self._bytes_in += session.bytes_in
        self._bytes_out += session.bytes_out

    def totals(self, sessions: Iterable[Bytes], dropped_events: int, feeds: FeedsStatus) -> WorkerCounters:
        """Everything until now; `sessions` are those that live."""
        bytes_in, bytes_out = self._bytes_in, self._bytes_out
        for session in sessions:
            bytes_in += session.bytes_in
            bytes_out += session.bytes_out
        passed = {(direction, stage): durations for direction, stage, durations in self._passed.values()}
        stages = dict.fromkeys([*passed, *self._ended])
        return WorkerCounters(
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            messages=[MessageCounts(*name, *counts) for name, counts in self.traffic.totals().items()],
            stages=[
                StageCounts(*stage, passed.get(stage, Durations()), dict(self._ended.get(stage, {}))) for stage in stages
            ],
            handshakes=[HandshakeCounts(direction, durations) for direction, durations in self._established.items()],
            requests_out=self.requests_out.counts(),
            requests_in=self.requests_in.counts(),
            misconduct=dict(self.misconduct),
            dropped_events=dropped_events,
            feed_events_sent=feeds.sent_events,
            feed_events_missed=feeds.missed_events,
            loop_lag=self.loop_lag,
        )
