"""What users can ask of the engine: every method with its parameters and result, typed, and nothing else.

The parameters and results are the schemas of the OpenRPC document that `discover` gives.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

from msgspec import Meta, Struct

from engine.rpc import CommandError, Method, Parameters, Registry
from engine.settings import Level, SubProtocolText
from protocol.capabilities import LAST_CODE
from protocol.errors import DisconnectReason
from protocol.messages import message_id

Hash = Annotated[str, Meta(pattern="^0x[0-9a-fA-F]{64}$", description="32 bytes, 0x and hex.")]
# Without a pattern: a regular expression takes seconds for the megabytes that a message may have.
Hex = Annotated[str, Meta(description="0x and hex.")]
Block = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Limit = Annotated[int, Meta(ge=0, le=1_000_000)]
Session = Annotated[int, Meta(ge=0, description="The session's number.")]
ReasonName = Literal[
    "disconnect_requested",
    "tcp_error",
    "protocol_breach",
    "useless_peer",
    "too_many_peers",
    "already_connected",
    "incompatible_version",
    "invalid_identity",
    "client_quitting",
    "unexpected_identity",
    "connected_to_self",
    "ping_timeout",
    "subprotocol_error",
]


class NoParameters(Parameters, frozen=True, kw_only=True):
    """Nothing."""


class Filter(Parameters, frozen=True, kw_only=True):
    """Which sessions: all that match every filter given."""

    direction: Literal["inbound", "outbound"] | None = None
    phase: Literal["pending", "active"] | None = None
    worker: int | None = None
    peer: Annotated[str, Meta(pattern="^[0-9a-f]*$", description="Beginning of the peer's id.")] | None = None
    client: Annotated[str, Meta(description="Part of the client's name.")] | None = None
    shared: Annotated[str, Meta(description="A shared capability, eth/69.")] | None = None


class SessionsParameters(Filter, frozen=True, kw_only=True):
    """Which sessions, and how many at most."""

    limit: Annotated[int, Meta(ge=1, le=100_000)] = 1000


class SessionParameters(Parameters, frozen=True, kw_only=True):
    """One session."""

    session: Session


class DialParameters(Parameters, frozen=True, kw_only=True):
    """Whom to dial; `wait` answers with the outcome instead of at once."""

    enode: Annotated[str, Meta(max_length=512)]
    wait: bool = False


class DisconnectParameters(Parameters, frozen=True, kw_only=True):
    """Which session to end, and what to tell the peer."""

    session: Session
    reason: ReasonName = "disconnect_requested"


class DisconnectAllParameters(Parameters, frozen=True, kw_only=True):
    """What to tell the peers."""

    reason: ReasonName = "disconnect_requested"


class SendParameters(Parameters, frozen=True, kw_only=True):
    """One message: `capability` is `eth`, `snap` or another shared name, `message` its name or id, `payload` its RLP."""

    session: Session
    capability: Annotated[str, Meta(min_length=1, max_length=64)]
    message: Annotated[str, Meta(min_length=1, max_length=64)] | Annotated[int, Meta(ge=0, le=127)]
    payload: Hex


class BroadcastParameters(Filter, frozen=True, kw_only=True):
    """One message to every active session that matches. Its form is that of one version: `shared` chooses that."""

    capability: Annotated[str, Meta(min_length=1, max_length=64)]
    message: Annotated[str, Meta(min_length=1, max_length=64)] | Annotated[int, Meta(ge=0, le=127)]
    payload: Hex


class RequestParameters(SendParameters, frozen=True, kw_only=True):
    """One request: as `send`; the payload's own request id comes back with the answer.

    After `timeout_s` nobody waits for the answer any more; without it the session's own timeout decides (2 to 20 s).
    """

    timeout_s: Annotated[float, Meta(gt=0, le=25)] | None = None


class SetStatusParameters(Parameters, frozen=True, kw_only=True):
    """Our head, as new handshakes announce it. Without `time` fork rules follow the wall clock."""

    number: Block
    hash: Hash
    time: Block | None = None
    earliest: Block = 0
    total_difficulty: Annotated[str, Meta(pattern="^[0-9]{1,48}$", description="Decimal; told below eth/69.")] = "0"


class BanParameters(Parameters, frozen=True, kw_only=True):
    """Whom to keep out, by id or by address, and for how long; zero seconds lets it in again."""

    peer: Annotated[str, Meta(pattern="^[0-9a-f]{128}$", description="The peer's id.")] | None = None
    address: Annotated[str, Meta(max_length=64, description="An IP address.")] | None = None
    seconds: Annotated[float, Meta(ge=0, le=10 * 365 * 86_400)] = 43_200.0


class AddPeerParameters(Parameters, frozen=True, kw_only=True):
    """A peer to keep connected (`static`), or that passes the limits (`trusted`)."""

    enode: Annotated[str, Meta(max_length=512)]
    static: bool = True
    trusted: bool = False


class RemovePeerParameters(Parameters, frozen=True, kw_only=True):
    """The id of a peer that is static or trusted no more; its session goes on."""

    peer: Annotated[str, Meta(pattern="^[0-9a-f]{128}$")]


class SetLimitsParameters(Parameters, frozen=True, kw_only=True):
    """The limits to change; sessions over a lowered one stay."""

    max_pending_inbound: Limit | None = None
    max_pending_outbound: Limit | None = None
    max_active_inbound: Limit | None = None
    max_active_outbound: Limit | None = None


class AddSubProtocolParameters(Parameters, frozen=True, kw_only=True):
    """A sub-protocol to offer, `NAME/VERSION/MESSAGES[/MAX_BYTES]`; `required` refuses peers that do not share its name."""

    protocol: SubProtocolText
    required: bool = False


class RemoveSubProtocolParameters(Parameters, frozen=True, kw_only=True):
    """`NAME/VERSION` of a sub-protocol to offer no more."""

    protocol: Annotated[str, Meta(pattern="^[a-z][a-z0-9]{0,7}/[0-9]{1,3}$")]


class LogLevelParameters(Parameters, frozen=True, kw_only=True):
    """The least level that is written."""

    level: Level


class HistoryParameters(Parameters, frozen=True, kw_only=True):
    """How many."""

    limit: Annotated[int, Meta(ge=1, le=100_000)] = 100


class WorkerStatus(Struct, frozen=True):
    """One worker. `loop_lag_ms` is the worst of the last second; `null` until the first pulse.

    `unanswered` counts requests that a responder took and did not answer in time.
    """

    worker: int
    pid: int
    ready: bool
    pending: int
    active: int
    goodbyes: int | None
    loop_lag_ms: float | None
    memory_bytes: int | None
    dropped_events: int | None
    unanswered: int | None


class StatusResult(Struct, frozen=True):
    """The engine at a glance. `compiled`: whether frames are opened by compiled code, or by Python."""

    version: str
    compiled: bool
    pid: int
    enode: str
    uptime_ms: int
    chain: dict[str, Any]
    head: dict[str, Any]
    workers: list[WorkerStatus]
    counts: dict[str, Any]
    budgets: dict[str, int]
    run_dir: str
    memory_bytes: int


class SessionsResult(Struct, frozen=True):
    """The matching sessions, the oldest first, and how many match in all."""

    sessions: list[dict[str, Any]]
    total: int


class DialResult(Struct, frozen=True, omit_defaults=True):
    """The session's number; with `wait` the session object once it is established."""

    session: int
    established: dict[str, Any] | None = None


class DoneResult(Struct, frozen=True):
    """Done: for how many sessions."""

    sessions: int


class BroadcastResult(Struct, frozen=True):
    """To how many it was sent, and for each other session the name of the error."""

    sent: int
    refused: dict[str, str]


class AnswerResult(Struct, frozen=True):
    """The response's name, and its RLP with the request id of the asker's payload."""

    message: str
    payload: str


class NamedPeer(Struct, frozen=True):
    """A static or trusted peer: its enode, or its id where no address is known; `last_end`: why it is not connected."""

    peer: str
    static: bool
    trusted: bool
    next_try_s: float | None
    last_end: str | None


class Ban(Struct, frozen=True):
    """Who is kept out, and for how much longer."""

    who: str
    seconds: float


class PeersResult(Struct, frozen=True):
    """The peers that were named, and the bans."""

    peers: list[NamedPeer]
    bans: list[Ban]


class NamedSubProtocol(Struct, frozen=True):
    """A capability that is offered, its number of message codes, and the most bytes that a message inflates to."""

    protocol: str
    messages: int
    max_bytes: int


class SubProtocolsResult(Struct, frozen=True):
    """What is offered, and the names that a peer must share."""

    offered: list[NamedSubProtocol]
    required: list[str]


class LogLevelResult(Struct, frozen=True):
    """The level now, and before."""

    level: str
    before: str


class ConfirmedResult(Struct, frozen=True):
    """Which workers have confirmed, and which have not."""

    confirmed: list[int]
    missing: list[int]


class StoppingResult(Struct, frozen=True):
    """It has begun."""

    stopping: bool


class Commands(Protocol):
    """What the engine does for each method."""

    async def status(self, parameters: NoParameters) -> StatusResult:
        """Version, identity, chain, workers, counts and budgets."""

    async def counts(self, parameters: NoParameters) -> dict[str, Any]:
        """Pending and active sessions by direction, and their limits."""

    async def sessions(self, parameters: SessionsParameters) -> SessionsResult:
        """The sessions, filtered."""

    async def session(self, parameters: SessionParameters) -> dict[str, Any]:
        """One session."""

    async def dial(self, parameters: DialParameters) -> DialResult:
        """Connect to a peer."""

    async def disconnect(self, parameters: DisconnectParameters) -> DoneResult:
        """End one session politely."""

    async def disconnect_all(self, parameters: DisconnectAllParameters) -> DoneResult:
        """End all sessions politely."""

    async def send(self, parameters: SendParameters) -> DoneResult:
        """Send one message to one peer."""

    async def broadcast(self, parameters: BroadcastParameters) -> BroadcastResult:
        """Send one message to every active session that matches."""

    async def request(self, parameters: RequestParameters) -> AnswerResult:
        """Send one request to one peer and await its answer."""

    async def set_status(self, parameters: SetStatusParameters) -> ConfirmedResult:
        """Announce another head in new handshakes."""

    async def subprotocols(self, parameters: NoParameters) -> SubProtocolsResult:
        """What every new Hello offers."""

    async def subprotocols_add(self, parameters: AddSubProtocolParameters) -> ConfirmedResult:
        """Offer a sub-protocol in new handshakes."""

    async def subprotocols_remove(self, parameters: RemoveSubProtocolParameters) -> ConfirmedResult:
        """Offer a sub-protocol no more."""

    async def log_level(self, parameters: LogLevelParameters) -> LogLevelResult:
        """Write lines of this level and above."""

    async def peers(self, parameters: NoParameters) -> PeersResult:
        """Static and trusted peers, and bans."""

    async def peers_add(self, parameters: AddPeerParameters) -> PeersResult:
        """Name a static or trusted peer."""

    async def peers_remove(self, parameters: RemovePeerParameters) -> PeersResult:
        """Forget that a peer is static or trusted."""

    async def ban(self, parameters: BanParameters) -> DoneResult:
        """Keep a peer or an address out."""

    async def set_limits(self, parameters: SetLimitsParameters) -> dict[str, Any]:
        """Change limits while running."""

    async def history(self, parameters: HistoryParameters) -> list[dict[str, Any]]:
        """The last ended sessions and attempts, the latest first."""

    async def shutdown(self, parameters: NoParameters) -> StoppingResult:
        """Say goodbye to every peer and end, as on SIGTERM."""


def registry(engine: Commands, version: str) -> Registry:
    """All methods of the engine, `discover` among them."""
    methods = Registry("rlpx-engine", version)

    async def discover(_: NoParameters) -> dict[str, Any]:
        """The OpenRPC document: every method, parameter, result and error."""
        return methods.document()

    worker = ("worker_lost", "timed_out")
    for method in (
        Method("status", NoParameters, StatusResult, (), engine.status),
        Method("counts", NoParameters, dict[str, Any], (), engine.counts),
        Method("sessions", SessionsParameters, SessionsResult, ("invalid_params",), engine.sessions),
        Method("session", SessionParameters, dict[str, Any], ("invalid_params", "no_such_session"), engine.session),
        Method("dial", DialParameters, DialResult, ("invalid_params", "refused", *worker), engine.dial),
        Method("disconnect", DisconnectParameters, DoneResult, ("invalid_params", "no_such_session"), engine.disconnect),
        Method("disconnect-all", DisconnectAllParameters, DoneResult, ("invalid_params",), engine.disconnect_all),
        Method(
            "send",
            SendParameters,
            DoneResult,
            ("invalid_params", "no_such_session", "not_shared", "queue_full", *worker),
            engine.send,
        ),
        Method("broadcast", BroadcastParameters, BroadcastResult, ("invalid_params", "queue_full"), engine.broadcast),
        Method(
            "request",
            RequestParameters,
            AnswerResult,
            ("invalid_params", "no_such_session", "not_shared", "queue_full", "bad_response", "session_ended", *worker),
            engine.request,
        ),
        Method("set-status", SetStatusParameters, ConfirmedResult, ("invalid_params",), engine.set_status),
        Method("subprotocols", NoParameters, SubProtocolsResult, (), engine.subprotocols),
        Method("subprotocols-add", AddSubProtocolParameters, ConfirmedResult, ("invalid_params",), engine.subprotocols_add),
        Method(
            "subprotocols-remove",
            RemoveSubProtocolParameters,
            ConfirmedResult,
            ("invalid_params",),
            engine.subprotocols_remove,
        ),
        Method("log-level", LogLevelParameters, LogLevelResult, ("invalid_params",), engine.log_level),
        Method("peers", NoParameters, PeersResult, (), engine.peers),
        Method("peers-add", AddPeerParameters, PeersResult, ("invalid_params",), engine.peers_add),
        Method("peers-remove", RemovePeerParameters, PeersResult, ("invalid_params", "no_such_peer"), engine.peers_remove),
        Method("ban", BanParameters, DoneResult, ("invalid_params",), engine.ban),
        Method("set-limits", SetLimitsParameters, dict[str, Any], ("invalid_params",), engine.set_limits),
        Method("history", HistoryParameters, list[dict[str, Any]], ("invalid_params",), engine.history),
        Method("shutdown", NoParameters, StoppingResult, (), engine.shutdown),
        Method("discover", NoParameters, dict[str, Any], (), discover),
    ):
        methods.add(method)
    return methods


def reason_of(name: str) -> DisconnectReason:
    """The reason of a name that the schema has admitted."""
    return DisconnectReason[name.upper()]


def message_of(parameters: SendParameters | BroadcastParameters) -> int:
    """The id of the message that the user names. Raises `CommandError`."""
    named = parameters.message
    found = named if isinstance(named, int) else message_id(parameters.capability, named)
    if found is None or not 0 <= found <= LAST_CODE:
        raise CommandError("invalid_params", f"message: {parameters.capability} has no message {named!r}")
    return found


def payload_of(parameters: SendParameters | BroadcastParameters) -> bytes:
    """The bytes of the payload. Raises `CommandError`."""
    try:
        prefix, payload = parameters.payload[:2], bytes.fromhex(parameters.payload[2:])
    except ValueError as error:
        raise CommandError("invalid_params", f"payload: {error}") from error
    if prefix != "0x":
        raise CommandError("invalid_params", "payload: it begins with 0x")
    return payload
