"""The messages between the engine and its workers: tagged structs, one union for each direction.

A stream carries commands down and reports up, framed as in `framing.py`. Batches of events come between the reports, as
bytes that the engine passes on without decoding, so that reports and events have one order. `records.py` has the messages
that go down beside the stream: the configuration and accepted sockets. If the stream ends, the process at its other end has
ended.
"""

from __future__ import annotations

from typing import Final, NewType

import msgspec

from rlpx.protocol.bus import framing
from rlpx.protocol.bus.batches import Numbers
from rlpx.protocol.bus.metrics import WorkerCounters
from rlpx.protocol.bus.results import FeedsStatus, RemoteChain
from rlpx.protocol.errors import DisconnectReason, ErrorName, Severity
from rlpx.protocol.eth.status import Head
from rlpx.protocol.lifecycle import EndedBy, Stage
from rlpx.protocol.rlpx.capabilities import SubProtocol

SessionId = NewType("SessionId", int)
WorkerId = NewType("WorkerId", int)
# Links a worker's reply to the command that it answers.
CallId = NewType("CallId", int)

# Unsent bytes that the kernel may buffer for one peer (TCP_NOTSENT_LOWAT), the same for accepted and dialled sockets. By
# default it buffers 4 MB for a peer that reads nothing, and no message of a higher rank can overtake those.
KERNEL_BYTES: Final = 128 * 1024


# -- commands: engine to worker ---------------------------------------------------------------------------------------------


class Begin(msgspec.Struct, frozen=True, array_like=True, tag="begin"):
    """The first command: the subscriptions, and the last numbers of the worker that this one replaces.

    `Ready` follows.
    """

    number: int
    prefixes: tuple[bytes, ...]
    numbers: dict[str, Numbers]


class SetInterest(msgspec.Struct, frozen=True, array_like=True, tag="set_interest"):
    """The prefixes with a new subscription, and those that have none any more. `InterestSet` with this number follows."""

    number: int
    added: tuple[bytes, ...]
    removed: tuple[bytes, ...]


class KeyUser(msgspec.Struct, frozen=True, array_like=True):
    """A user that may connect over TCP: its name, its public key, and its rights, `events` and `control`."""

    name: str
    public: bytes
    rights: tuple[str, ...]


class SetUsers(msgspec.Struct, frozen=True, array_like=True, tag="set_users"):
    """All users that may connect over TCP. A worker with such an endpoint gets this first, and listens from then on."""

    users: tuple[KeyUser, ...]


class TakeSnapshot(msgspec.Struct, frozen=True, array_like=True, tag="take_snapshot"):
    """Ask for all sessions whose opening has been published. A `Snapshot` follows, at its place among the batches."""

    call: CallId


class Dial(msgspec.Struct, frozen=True, array_like=True, tag="dial"):
    """Connect to a peer and open a session as initiator. `peer` is the 64-byte id; `opened_us` microseconds since 1970.

    `addresses` are numeric, with a zone if they have one, and a port; the worker tries them in this order.
    """

    session: SessionId
    peer: bytes
    addresses: tuple[tuple[str, int], ...]
    enode: str = ""
    opened_us: int = 0


class Verdict(msgspec.Struct, frozen=True, array_like=True, tag="verdict"):
    """The verdict on an authenticated session: continue, or end with `refusal` for the given cause."""

    session: SessionId
    refusal: DisconnectReason | None = None
    cause: str = ""


class DisconnectSession(msgspec.Struct, frozen=True, array_like=True, tag="disconnect"):
    """Ask the worker to end one session politely. `by` is who ends it, as users see it."""

    session: SessionId
    reason: DisconnectReason
    cause: str
    by: EndedBy = EndedBy.US


class MakeRoom(msgspec.Struct, frozen=True, array_like=True, tag="make_room"):
    """End a pending session, because others need its place. A session that has become active stays."""

    session: SessionId
    cause: str


class Probe(msgspec.Struct, frozen=True, array_like=True, tag="probe"):
    """The peer of an active session has connected again: find out at once whether the first connection is alive.

    `SessionAlive` follows, or the session's end.
    """

    session: SessionId


class SendMessage(msgspec.Struct, frozen=True, array_like=True, tag="send"):
    """Send one message on one session; a `Reply` follows."""

    call: CallId
    session: SessionId
    capability: str
    message: int
    payload: bytes
    # Whether to refuse what peers would punish (`sendable.py`).
    is_checked: bool = False


class Broadcast(msgspec.Struct, frozen=True, array_like=True, tag="broadcast"):
    """Send one message on many sessions; a `Sent` follows."""

    call: CallId
    sessions: tuple[SessionId, ...]
    capability: str
    message: int
    payload: bytes
    # Whether to refuse what peers would punish (`sendable.py`).
    is_checked: bool = False


class RequestPeer(msgspec.Struct, frozen=True, array_like=True, tag="request_peer"):
    """Send one request on one session; a `PeerResponse` follows, or a `Reply` with the error."""

    call: CallId
    session: SessionId
    capability: str
    message: int
    payload: bytes
    # Whether to refuse what peers would punish (`sendable.py`).
    is_checked: bool = False


class Forget(msgspec.Struct, frozen=True, array_like=True, tag="forget"):
    """The caller of this request has gone and no longer waits for its answer."""

    call: CallId


class GetStats(msgspec.Struct, frozen=True, array_like=True, tag="get_stats"):
    """Ask for the statistics of some sessions; a `Stats` follows."""

    call: CallId
    sessions: tuple[SessionId, ...]


class SendPulse(msgspec.Struct, frozen=True, array_like=True, tag="send_pulse"):
    """Ask for a `Pulse` at once; a `Reply` follows it."""

    call: CallId


class SetHead(msgspec.Struct, frozen=True, array_like=True, tag="set_head"):
    """Announce this head in new handshakes; a `Reply` follows."""

    call: CallId
    head: Head


class SetProtocols(msgspec.Struct, frozen=True, array_like=True, tag="set_protocols"):
    """Offer these sub-protocols in new handshakes, and insist on the `required` names; a `Reply` follows."""

    call: CallId
    protocols: tuple[SubProtocol, ...]
    required: tuple[str, ...]


class Drain(msgspec.Struct, frozen=True, array_like=True, tag="drain"):
    """Disconnect every peer politely, then end the process."""

    reason: DisconnectReason
    cause: str


Command = (
    Begin
    | SetInterest
    | SetUsers
    | TakeSnapshot
    | Dial
    | Verdict
    | DisconnectSession
    | MakeRoom
    | Probe
    | SendMessage
    | Broadcast
    | RequestPeer
    | Forget
    | GetStats
    | SendPulse
    | SetHead
    | SetProtocols
    | Drain
)

# -- reports: worker to engine ----------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The worker accepts handoffs and commands from now on."""

    pid: int


class HandoffLost(msgspec.Struct, frozen=True, array_like=True, tag="handoff_lost"):
    """A record arrived without its socket (the descriptor table was full), or the socket could not be adopted."""

    session: SessionId
    cause: str


class SessionConnected(msgspec.Struct, frozen=True, array_like=True, tag="connected"):
    """The TCP connection of a dial is up."""

    session: SessionId
    local: str
    remote: str


class SessionStalled(msgspec.Struct, frozen=True, array_like=True, tag="stalled"):
    """An accepted peer is slow to send its auth, so others may take its place. `has_spoken`: it has sent something."""

    session: SessionId
    has_spoken: bool


class SessionKeyed(msgspec.Struct, frozen=True, array_like=True, tag="keyed"):
    """An accepted peer has sent a whole, valid auth, so it counts as pending. `SessionAuthenticated` implies this."""

    session: SessionId


class SessionAuthenticated(msgspec.Struct, frozen=True, array_like=True, tag="authenticated"):
    """The peer's id is proved; the engine owes a `Verdict`."""

    session: SessionId
    peer: bytes


class SessionAlive(msgspec.Struct, frozen=True, array_like=True, tag="alive"):
    """The peer of a probed session has answered."""

    session: SessionId


class SessionStats(msgspec.Struct, frozen=True, array_like=True):
    """Running statistics of a session."""

    bytes_in: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    messages_out: int = 0
    rtt_ms: float | None = None
    queued_bytes: int = 0


class SessionEstablished(msgspec.Struct, frozen=True, array_like=True, tag="established"):
    """The session is active."""

    session: SessionId
    client: str
    capabilities: tuple[str, ...]
    shared: tuple[str, ...]
    listen_port: int
    local: str
    chain: RemoteChain
    stats: SessionStats
    established_us: int = 0


class SessionClosed(msgspec.Struct, frozen=True, array_like=True, tag="closed"):
    """The end of a session: exactly one per handoff or dial. `duration_ms` is measured on a monotonic clock."""

    session: SessionId
    ended_by: EndedBy
    reason: DisconnectReason | None
    cause: str
    stage: Stage
    stats: SessionStats
    severity: Severity = Severity.LOW
    duration_ms: int = 0


class Stats(msgspec.Struct, frozen=True, array_like=True, tag="stats"):
    """Answer to `GetStats`: stage, statistics and the block range of each session that the worker has."""

    call: CallId
    sessions: dict[int, tuple[Stage, SessionStats, tuple[int, int, str] | None]]


class InterestSet(msgspec.Struct, frozen=True, array_like=True, tag="interest_set"):
    """Answer to `SetInterest`: everything after this report obeys it."""

    number: int


class Snapshot(msgspec.Struct, frozen=True, array_like=True, tag="snapshot"):
    """Answer to `TakeSnapshot`: the session objects at this place among the batches, each as JSON."""

    call: CallId
    sessions: tuple[bytes, ...]


class Sent(msgspec.Struct, frozen=True, array_like=True, tag="sent"):
    """Answer to `Broadcast`: the number of sessions to which it was sent, and the error of each other session.

    `message` is the text of the first error that concerns the message itself.
    """

    call: CallId
    sent: int
    refused: dict[int, ErrorName]
    message: str = ""


class PeerResponse(msgspec.Struct, frozen=True, array_like=True, tag="peer_response"):
    """Answer to `RequestPeer`: the name and payload of the peer's response, with the caller's own request id."""

    call: CallId
    message: str
    payload: bytes


class Reply(msgspec.Struct, frozen=True, array_like=True, tag="reply"):
    """Answer to a command: done, or the name and the message of an error."""

    call: CallId
    error: ErrorName | None = None
    message: str = ""


NO_FEEDS: Final = FeedsStatus(0, 0, 0, 0, 0, ())


class Pulse(msgspec.Struct, frozen=True, array_like=True, tag="pulse"):
    """The worker's state, once a second, and all that it has counted since its start.

    `deferred` connections have used their time and wait for their turn to be read; `deferred_ms` is the longest such wait in
    the last second. `progress_bytes` is what its sessions have in progress.
    """

    goodbyes: int
    loop_lag_ms: float
    memory_bytes: int
    dropped_events: int
    unanswered: int
    # Connected responders, and the bytes of requests that they have not read.
    responders: int = 0
    responder_queued_bytes: int = 0
    # If false, the worker's table of file descriptors is almost full, and it takes no more sessions.
    has_descriptors: bool = True
    deferred: int = 0
    deferred_ms: float = 0.0
    queued_event_bytes: int = 0
    progress_bytes: int = 0
    # Calls of programs that are in progress.
    calls: int = 0
    feeds: FeedsStatus = NO_FEEDS
    started_us: int = 0
    cpu_seconds: float = 0.0
    descriptors: int = 0
    descriptor_limit: int = 0
    counters: WorkerCounters = WorkerCounters()
    # The bound on `responder_queued_bytes`.
    program_queue_limit_bytes: int = 0


class LogLine(msgspec.Struct, frozen=True, array_like=True, tag="log"):
    """A line for the engine's log; workers have no log. `level` is as in `logging`; `trace` is the traceback of a fault."""

    level: str
    message: str
    trace: str = ""


Report = (
    Ready
    | HandoffLost
    | SessionConnected
    | SessionStalled
    | SessionKeyed
    | SessionAuthenticated
    | SessionAlive
    | SessionEstablished
    | SessionClosed
    | Stats
    | InterestSet
    | Snapshot
    | PeerResponse
    | Sent
    | Reply
    | Pulse
    | LogLine
)


def encode(message: Command | Report) -> bytes:
    """Return one message for the stream, with its length in front."""
    return framing.encode(message)


def command_decoder() -> framing.StreamDecoder[Command]:
    """Return the decoder for a worker's end of the stream."""
    return framing.StreamDecoder(Command)  # type: ignore[arg-type]  # a union is a type to msgspec
