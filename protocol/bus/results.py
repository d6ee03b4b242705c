"""The results of the users' commands, as the schemas of the OpenRPC document: field names, order and meaning."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from msgspec import Struct

from rlpx.protocol.bus.metrics import ClaimsCount, PlacesCount
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage

# A session object, possibly already encoded, as there may be 100,000 of them.
S = TypeVar("S")


class RemoteChain(Struct, frozen=True):
    """The peer's Status as users see it: hashes are in hex with 0x, `total_difficulty` is decimal (below eth/69 only)."""

    network_id: int
    genesis: str
    fork_hash: str
    fork_next: int
    head: str
    total_difficulty: str | None = None
    earliest: int | None = None
    latest: int | None = None


class SessionObject(Struct, frozen=True):
    """One session. Times are microseconds since 1970; `enode` is null if the peer cannot be dialled."""

    session: int
    peer: str | None
    enode: str | None
    direction: Direction
    phase: Literal["pending", "active"]
    stage: Stage
    worker: int
    remote: str
    local: str | None
    client: str | None
    capabilities: tuple[str, ...]
    shared: tuple[str, ...]
    opened_us: int
    established_us: int | None
    bytes_in: int
    bytes_out: int
    messages_in: int
    messages_out: int
    rtt_ms: float | None
    queued_bytes: int
    chain: RemoteChain | None


class EndedSession(Struct, frozen=True):
    """The end of a session, or of an attempt to dial. `session` and `worker` are null if no dial was started."""

    client: str | None
    time_us: int
    session: int | None
    peer: str | None
    direction: Direction
    remote: str
    worker: int | None
    stage: Stage
    ended_by: EndedBy
    reason: str | None
    cause: str
    duration_ms: int
    bytes_in: int
    bytes_out: int
    messages_in: int
    messages_out: int


class InboundCount(Struct, frozen=True):
    """The number of inbound sessions, of a kind that has no outbound ones."""

    inbound: int


class DirectionCounts(Struct, frozen=True):
    """The number of sessions by direction."""

    inbound: int
    outbound: int


class LimitCounts(Struct, frozen=True):
    """The limits in force."""

    max_unauthenticated: int
    max_pending_inbound: int
    max_pending_outbound: int
    max_active_inbound: int
    max_active_outbound: int


class CountsResult(Struct, frozen=True):
    """The numbers of accepted connections without an auth, and of pending and active sessions; and the limits."""

    unauthenticated: InboundCount
    pending: DirectionCounts
    active: DirectionCounts
    limits: LimitCounts


class ChainStatus(Struct, frozen=True):
    """The chain, with the fork id (EIP-2124) that is announced now; hashes are in hex with 0x."""

    name: str
    network_id: int
    genesis: str
    fork_hash: str
    fork_next: int


class HeadStatus(Struct, frozen=True):
    """The head that is announced; `time` is null if fork rules follow the wall clock."""

    number: int
    hash: str
    earliest: int
    time: int | None


class Budgets(Struct, frozen=True):
    """Bounds in bytes: for one peer, one worker, one subscriber, all subscribers."""

    peer_write_bytes: int
    worker_command_bytes: int
    worker_progress_bytes: int
    subscriber_queue_bytes: int
    total_queue_bytes: int


class HoldingFeedStatus(Struct, frozen=True):
    """A lossless feed that holds sessions: they are not read until its program reads. `held_ms` is since the first of them.

    `program` numbers the connections of the worker's data endpoint; `remote` is where it comes from, and `user` the name of
    its key, if it has one. `feed` is the program's number of the feed.
    """

    program: int
    remote: str
    user: str | None
    feed: int
    sessions: int
    held_ms: int
    queued_bytes: int


class FeedsStatus(Struct, frozen=True):
    """The feeds of one worker: how many are open, the bytes that wait for them, and the events that were sent and missed.

    `held_sessions` are not read, because lossless feeds have no room for their events; `holding` lists up to 16 of these
    feeds, those that have held sessions for longest.
    """

    open: int
    queued_bytes: int
    sent_events: int
    missed_events: int
    held_sessions: int
    holding: tuple[HoldingFeedStatus, ...]


class DataPlaces(Struct, frozen=True):
    """Where programs find the data endpoint of a worker: in the run directory, and over TCP if `data.endpoint` is set.

    A host of 0.0.0.0 or [::] stands for every address of the engine's machine.
    """

    ipc: str
    tcp: str | None


class WorkerStatus(Struct, frozen=True):
    """One worker. Its own figures are null until its first report.

    `loop_lag_ms` is the longest time that a peer's byte waited in the last second. `progress_bytes` is the part of the
    budget `worker_progress_bytes` that its sessions use for unfinished frames and waiting messages. `deferred` connections
    have used more than their share and wait for their turn to be read, the longest of them for `deferred_ms`.
    `unanswered` counts requests that a responder took and did not answer in time; `responders` is how many are connected.
    If `has_descriptors` is false, its table of file descriptors is almost full, and it takes no more sessions. `calls` of
    programs at its data endpoint are in progress. A worker that is `leaving` takes no more sessions; one that is `joining`
    takes none yet, and neither is replaced if it is lost.
    """

    worker: int
    pid: int
    ready: bool
    unauthenticated: int
    pending: int
    active: int
    goodbyes: int | None
    loop_lag_ms: float | None
    memory_bytes: int | None
    dropped_events: int | None
    queued_event_bytes: int | None
    unanswered: int | None
    responders: int | None
    responder_queued_bytes: int | None
    has_descriptors: bool | None
    progress_bytes: int | None = None
    deferred: int | None = None
    deferred_ms: float | None = None
    calls: int | None = None
    feeds: FeedsStatus | None = None
    data_endpoints: DataPlaces | None = None
    leaving: bool = False
    leaves_in_ms: int | None = None
    joining: bool = False


class WorkforceStatus(Struct, frozen=True):
    """The changes of workers so far: how many were lost, were started in place of lost ones, were replaced by a restart, and
    how many new ones did not become ready. `restarting`: whether a restart is in progress; `error`: why the last one failed.
    """

    lost: int = 0
    respawned: int = 0
    replaced: int = 0
    failed: int = 0
    restarting: bool = False
    error: str | None = None


class SubscriberStatus(Struct, frozen=True):
    """One subscriber: its subscriptions, the bytes queued for it, the events sent to it, and those that it missed."""

    remote: str
    prefixes: list[str]
    queued_bytes: int
    sent_events: int
    missed_events: int


class EndpointStatus(Struct, frozen=True):
    """One endpoint for users' programs: its connections, those refused so far, and the bytes queued for it.

    `address` is that over TCP, if there is one.
    """

    connections: int
    refused: int
    queued_bytes: int
    address: str | None = None


class WatchStatus(Struct, frozen=True):
    """`rlpx-watch` as the engine runs it: its address, its process (null while it waits to be started again), whether it
    serves, how often it was started, and why it ended last.
    """

    address: str | None
    pid: int | None
    up: bool
    starts: int
    last_end: str | None


class FleetStatus(Struct, frozen=True):
    """A host as a member of its fleet. `hosts` are those alive as it sees them, itself included.

    `state`: `away` while NATS does not answer, for `away_ms` so far; `doubtful` while it answers, but other hosts may have
    given this one up. `lets_in`: whether sessions may begin now. `waiting_events` of sessions' lives are not in the fleet's
    stream yet, nor are `spooled_bytes` of them in a file; `lost_events` did not fit there.
    """

    name: str
    host: str
    state: Literal["member", "doubtful", "away"]
    lets_in: bool
    away_ms: int | None
    hosts: list[str]
    places: dict[Direction, PlacesCount]
    claims: ClaimsCount
    waiting_events: int
    spooled_bytes: int
    lost_events: int


class StatusResult(Struct, frozen=True):
    """The engine at a glance. `compiled`: whether the compiled code is in use, or its Python twin.

    `enode` is null if the engine does not listen; if `enode_is_guess`, its address was guessed from the interfaces.
    `watch` is null if the engine does not run `rlpx-watch`, `fleet` if it is a host alone. `log_lines_lost` counts log lines
    that could not be written, for example to a full disk, or that no reader took in time.
    """

    version: str
    compiled: bool
    pid: int
    node_id: str
    enode: str | None
    enode_is_guess: bool
    uptime_ms: int
    chain: ChainStatus
    head: HeadStatus
    workers: list[WorkerStatus]
    subscribers: list[SubscriberStatus]
    counts: CountsResult
    budgets: Budgets
    endpoints: dict[str, EndpointStatus]
    has_descriptors: bool
    run_dir: str
    memory_bytes: int
    log_lines_lost: int
    workforce: WorkforceStatus = WorkforceStatus()
    watch: WatchStatus | None = None
    fleet: FleetStatus | None = None


class SessionsResult(Struct, frozen=True):
    """The matching sessions, the oldest first, and how many match in all."""

    sessions: list[SessionObject]
    total: int


class SnapshotResult(Struct, Generic[S], frozen=True):
    """The sessions, each as of its own worker's place in the stream of `run`.

    `next`: topic, worker (`null`: the engine), and the ordinal of the first event that the sessions do not include. A topic
    that is not listed begins with 0.
    """

    run: str
    sessions: list[S]
    next: list[tuple[str, int | None, int]]


class DialResult(Struct, frozen=True, omit_defaults=True):
    """The session's number, and with `wait` the session object once it is established."""

    session: int
    established: SessionObject | None = None


class DoneResult(Struct, frozen=True):
    """The number of sessions for which the command was carried out."""

    sessions: int


class BroadcastResult(Struct, frozen=True):
    """The number of sessions to which it was sent, and for each other session the name of the error."""

    sent: int
    refused: dict[str, ErrorName]


class AnswerResult(Struct, frozen=True, omit_defaults=True):
    """The response's name, and its RLP with the request id of the caller's payload.

    `payload` is left out if it is the second frame of the reply.
    """

    message: str
    payload: str | None = None


class Ban(Struct, frozen=True):
    """A banned peer or address, and the remaining seconds."""

    who: str
    seconds: float


class NamedPeer(Struct, frozen=True):
    """A static or trusted peer: its enode, or its id if no address is known; `endpoints` are its addresses in turn.

    `last_end` is why it is not connected, `why_not` why we do not dial it although it is due.
    """

    peer: str
    static: bool
    trusted: bool
    next_try_s: float | None = None
    last_end: str | None = None
    why_not: str | None = None
    endpoints: list[str] = []


class PeersResult(Struct, frozen=True):
    """The static and trusted peers, and the bans."""

    peers: list[NamedPeer]
    bans: list[Ban]


class NamedSubProtocol(Struct, frozen=True):
    """An offered capability, its number of message codes, and the largest size that a message may inflate to."""

    protocol: str
    messages: int
    max_bytes: int


class SubProtocolsResult(Struct, frozen=True):
    """The offered capabilities, and the names that a peer must share."""

    offered: list[NamedSubProtocol]
    required: list[str]


class LogLevelResult(Struct, frozen=True):
    """The new level, and the previous one."""

    level: str
    before: str


class ConfirmedResult(Struct, frozen=True):
    """The workers that have confirmed, and those that have not."""

    confirmed: list[int]
    missing: list[int]


class Replacement(Struct, frozen=True):
    """A worker that leaves, and the one that has taken its place."""

    worker: int
    by: int


class RestartResult(Struct, frozen=True):
    """The workers to be replaced, the drain time of each, and those that were replaced so far."""

    workers: list[int]
    drain_s: float
    replaced: list[Replacement]


class WorkersResult(Struct, frozen=True):
    """The number of workers that serve now, those just started, all that are leaving, and the drain time."""

    workers: int
    started: list[int]
    leaving: list[int]
    drain_s: float


class StoppingResult(Struct, frozen=True):
    """The engine has begun to end."""

    stopping: bool
