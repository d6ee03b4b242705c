"""The counters of the engine and its workers, as the command `metrics` returns them: raw numbers since a process started.

A worker counts for itself and sends its counters with each pulse. The engine keeps the sum of all worker processes that
have ended, so `ended` and the workers together never count backwards. What a lost worker counted after its last pulse, of
at most a second, is not known.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import Struct, field

from rlpx.protocol.lifecycle import Direction, Stage

# The bounds of all histograms of durations: from a round trip on the same machine to the longest timeout of a request.
BOUNDS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)

T = TypeVar("T")


class Durations(Struct):
    """A histogram of durations. `counts` has the number of those up to each bound of `BOUNDS_SECONDS` and above the bound
    before it; the last number is of those above all bounds.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_SECONDS) + 1))
    sum_seconds: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds


class MessageCounts(Struct, frozen=True):
    """Messages of one kind, and the bytes of their frames' contents: code and deflated payload."""

    capability: str
    message: str
    messages_in: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    bytes_out: int = 0


class StageCounts(Struct, frozen=True):
    """One stage of handshakes: how long it took if it was passed, and who ended the session or dial if it was not."""

    direction: Direction
    stage: Stage
    passed: Durations = field(default_factory=Durations)
    ended_by: dict[str, int] = {}


class HandshakeCounts(Struct, frozen=True):
    """Sessions that became active: the time from the accept, or the start of the dial, until then."""

    direction: Direction
    established: Durations = field(default_factory=Durations)


class RequestCounts(Struct, frozen=True):
    """Requests of one kind: the time until the answer, and the outcomes of all."""

    capability: str
    message: str
    answered: Durations = field(default_factory=Durations)
    outcomes: dict[str, int] = {}


class WorkerCounters(Struct, frozen=True):
    """All that a worker counts. Of two processes, everything here can be added up (`added`).

    `bytes_in` and `bytes_out` are those of all its sessions' sockets. `requests_out` are ours to peers, `requests_in` those
    of peers. `loop_lag` is how long a byte of a peer waited for the loop, measured ten times a second.
    """

    bytes_in: int = 0
    bytes_out: int = 0
    messages: list[MessageCounts] = []
    stages: list[StageCounts] = []
    handshakes: list[HandshakeCounts] = []
    requests_out: list[RequestCounts] = []
    requests_in: list[RequestCounts] = []
    misconduct: dict[str, int] = {}
    dropped_events: int = 0
    feed_events_sent: int = 0
    feed_events_missed: int = 0
    loop_lag: Durations = field(default_factory=Durations)


class ProcessUse(Struct, frozen=True):
    """What a process uses: CPU time since its start, resident memory, file descriptors and their limit."""

    pid: int
    started_us: int = 0
    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    descriptors: int = 0
    descriptor_limit: int = 0


class QueueUse(Struct, frozen=True):
    """Bytes that wait or are in progress somewhere, and the bound on them."""

    queue: str
    used_bytes: int
    limit_bytes: int


class WorkerMetrics(Struct, frozen=True):
    """One worker. `age_ms` is the age of its figures, null before the first.

    `loop_lag_ms` is the longest wait of a peer's byte in the last second. `deferred` connections have used their share and
    wait to be read. `held_sessions` are not read because a lossless feed does not take their events.
    """

    worker: int
    ready: bool
    age_ms: int | None
    process: ProcessUse
    loop_lag_ms: float
    deferred: int
    goodbyes: int
    responders: int
    feeds: int
    held_sessions: int
    queues: list[QueueUse]
    counters: WorkerCounters


class SessionsCount(Struct, frozen=True):
    """The number of sessions in one phase and direction, and its limit."""

    phase: str
    direction: Direction
    sessions: int
    limit: int


class ClientCount(Struct, frozen=True):
    """The active sessions whose peers run clients of one family."""

    client: str
    direction: Direction
    sessions: int


class CapabilityCount(Struct, frozen=True):
    """The active sessions that share a capability, `eth/69`."""

    capability: str
    sessions: int


class EndCounts(Struct, frozen=True):
    """Ended sessions, dials included.

    `reason` is the name of the Disconnect reason, `unknown` if the specification lacks it, or `none`.
    """

    ended_by: str
    reason: str
    direction: Direction
    sessions: int = 0


class ReaderCounts(Struct, frozen=True):
    """Readers of events of one user, by the name of the key, or `local`: those connected, and the events of all so far."""

    user: str
    connected: int = 0
    queued_bytes: int = 0
    sent_events: int = 0
    missed_events: int = 0


class EndpointCounts(Struct, frozen=True):
    """An endpoint for programs: connections now, and those refused so far."""

    endpoint: str
    connections: int
    refused: int


class DialCounts(Struct, frozen=True):
    """Dials: how many began, became sessions and failed; how often a static peer that was due was not dialled, and why.

    `static` counts the static peers by their state: `busy` (connected or being dialled), `waiting`, `due`, `refused` (due,
    and we do not dial them). `next_s` is the time until the next static peer is due; null if none is waiting.
    """

    begun: int
    established: int
    failed: int
    why_not: dict[str, int]
    static: dict[str, int]
    next_s: float | None


class PlacesCount(Struct, frozen=True):
    """A fleet's places in one direction: leased to this host, used of those, and leased by no host."""

    leased: int
    used: int
    elsewhere: int


class ClaimsCount(Struct, frozen=True):
    """The claims of this host: known to be in the fleet's store, of sessions that were let in without one, and asked for."""

    held: int
    unsettled: int
    in_progress: int


class FleetMetrics(Struct, frozen=True):
    """What a host counts as a member of its fleet.

    `is_member`: its heartbeats are confirmed, so that no other host gives it up. `away_s` is the time for which NATS has not
    answered; 0 while it does. `hosts` counts the living ones, this one included. `claim_seconds` is from the claim of a
    session to its verdict; `claims_erased` were of dead hosts. `lost_calls` were not answered by the store in time.

    Events of sessions' lives wait in memory, and beyond that in the queue `fleet_events`, which is a file. NATS did not take
    the `traffic_dropped` batches in time.
    """

    fleet: str
    host: str
    is_member: bool
    away_s: float
    hosts: int
    places: dict[Direction, PlacesCount]
    claims: ClaimsCount
    claims_refused: int
    claims_erased: int
    sessions_ended: int
    claim_seconds: Durations
    lost_calls: int
    events_published: int
    events_waiting: int
    events_dropped: int
    traffic_batches: int
    traffic_bytes: int
    traffic_dropped: int
    queues: list[QueueUse]


class EngineMetrics(Struct, frozen=True):
    """What the engine process counts. `loop_lag` is the lateness of its timer of one second. `fleet` is null if this host is
    not to be a member of one.
    """

    process: ProcessUse
    compiled: bool
    version: str
    chain: str
    sessions: list[SessionsCount]
    clients: list[ClientCount]
    capabilities: list[CapabilityCount]
    accepted: int
    refused: dict[str, int]
    ends: list[EndCounts]
    dials: DialCounts
    readers: list[ReaderCounts]
    endpoints: list[EndpointCounts]
    queues: list[QueueUse]
    worker_starts: int
    worker_ends: dict[str, int]
    commands: dict[str, int]
    loop_lag: Durations
    log_lines_lost: int
    fleet: FleetMetrics | None = None


class MetricsResult(Struct, frozen=True):
    """All counters. The totals of what workers count are those of `workers` and of `ended`, the ended processes."""

    run: str
    uptime_ms: int
    engine: EngineMetrics
    workers: list[WorkerMetrics]
    ended: WorkerCounters


def added(first: T, second: T) -> T:
    """The sum of two values of one type: numbers, histograms, and lists of counters, which are matched by their names."""
    return cast("T", _added(first, second))


def _added(first: Any, second: Any) -> Any:  # noqa: ANN401 - any value of a counter, and another of the same type
    if isinstance(first, Struct):
        return type(first)(*map(_added, msgspec.structs.astuple(first), msgspec.structs.astuple(second)))
    if isinstance(first, dict):
        return first | {key: _added(first[key], value) if key in first else value for key, value in second.items()}
    if isinstance(first, list):
        return _added_lists(first, second)
    return first if isinstance(first, str) else first + second


def _added_lists(first: list[Any], second: list[Any]) -> list[Any]:
    """The sum of two lists: of numbers place by place, of counters name by name."""
    if first and not isinstance(first[0], Struct):
        return list(map(_added, first, second))
    named = {_names(item): item for item in first}
    for item in second:
        names = _names(item)
        named[names] = _added(named[names], item) if names in named else item
    return list(named.values())


def _names(item: Struct) -> tuple[str, ...]:
    """What distinguishes a counter from others in its list: its texts."""
    return tuple(value for value in msgspec.structs.astuple(item) if isinstance(value, str))
