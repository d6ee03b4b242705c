"""The users' commands, each declared once, as the struct of its parameters.

A declaration has the name, parameters, result and errors of a command. The registry, the OpenRPC document, `rlpx-ctl` and
README's table are made from it. The handler is a method of the engine that has the command's name and takes this struct. The
first sentence of the docstring is the command's summary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from rlpx.protocol.bus import metrics, results
from rlpx.protocol.bus.places import WORKER_NUMBERS
from rlpx.protocol.bus.values import (
    Block,
    EnodeUrl,
    Hash,
    Hex,
    Level,
    Limit,
    PeerId,
    ReasonName,
    SessionNumber,
    SubProtocolText,
)
from rlpx.protocol.errors import ErrorName

T = TypeVar("T", bound="type[Parameters]")
# The parameter that may be a frame of its own.
PAYLOAD: Final = "payload"
# The most sessions that a broadcast may leave out by number.
MAX_EXCEPTIONS: Final = 10_000


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The parameters of a command."""


class NoParameters(Parameters, frozen=True, kw_only=True):
    """The parameters of a command that has none."""


class Command(msgspec.Struct, frozen=True):
    """A declared command. Besides `errors`, every command with parameters can fail with `invalid_params`."""

    name: str
    parameters: type[Parameters]
    result: Any
    errors: tuple[ErrorName, ...]

    @property
    def summary(self) -> str:
        """The first sentence of the docstring."""
        return self.text.partition(". ")[0].rstrip(".") + "."

    @property
    def text(self) -> str:
        """The docstring on one line."""
        return " ".join((self.parameters.__doc__ or "").split())

    @property
    def handler_name(self) -> str:
        """The name of the engine's method that carries out the command."""
        return self.name.replace("-", "_")

    @property
    def has_payload(self) -> bool:
        """Whether it takes a payload, which may be a frame of its own."""
        return PAYLOAD in self.parameters.__struct_fields__

    @property
    def all_errors(self) -> tuple[ErrorName, ...]:
        """All errors with which the command may fail."""
        return (ErrorName.INVALID_PARAMS, *self.errors) if self.parameters.__struct_fields__ else self.errors


# The commands by name, in the order of the document and of README's table.
COMMANDS: Final[dict[str, Command]] = {}
# Errors of commands that a worker carries out: it may be lost, or not answer in time.
_BY_WORKER: Final = (ErrorName.WORKER_LOST, ErrorName.TIMED_OUT)
_BY_SESSION: Final = (ErrorName.NO_SUCH_SESSION, ErrorName.NOT_SHARED, ErrorName.QUEUE_FULL)


def command(name: str, result: Any, *errors: ErrorName) -> Callable[[T], T]:  # noqa: ANN401 - any type
    """Declare the decorated struct as the parameters of the command with this name, result and errors."""

    def declare(parameters: T) -> T:
        COMMANDS[name] = Command(name, parameters, result, errors)
        return parameters

    return declare


# -- the engine -------------------------------------------------------------------------------------------------------------


@command("status", results.StatusResult)
class StatusParameters(NoParameters, frozen=True, kw_only=True):
    """Show the engine at a glance. The result has version, compiled or not, pid, enode, uptime, chain and head; for each
    worker its pid, sessions, loop lag, memory and dropped events; subscribers, counts, budgets and lost log lines.
    """


@command("counts", results.CountsResult)
class CountsParameters(NoParameters, frozen=True, kw_only=True):
    """Count the sessions, and show the limits. Accepted connections without an auth are counted apart, pending and active
    sessions by direction.
    """


@command("metrics", metrics.MetricsResult)
class MetricsParameters(NoParameters, frozen=True, kw_only=True):
    """Show all counters of the engine and its workers, as raw numbers since the start of each process. `rlpx-watch` makes
    Prometheus metrics of them.
    """


# -- sessions ---------------------------------------------------------------------------------------------------------------


class Filter(Parameters, frozen=True, kw_only=True):
    """The sessions that match every given filter."""

    direction: Annotated[Literal["inbound", "outbound"], Meta(extra={"metavar": "inbound|outbound"})] | None = None
    phase: Annotated[Literal["pending", "active"], Meta(extra={"metavar": "pending|active"})] | None = None
    worker: Annotated[int, Meta(ge=0, le=WORKER_NUMBERS - 1, extra={"metavar": "N"})] | None = None
    peer: (
        Annotated[
            str,
            Meta(
                pattern="^[0-9a-f]*$",
                description="Beginning of the peer's id.",
                title="the beginning of a peer id in hex digits",
                examples=["d860a01f"],
                extra={"metavar": "DIGITS"},
            ),
        ]
        | None
    ) = None
    client: Annotated[str, Meta(description="Part of the client's name.", extra={"metavar": "TEXT"})] | None = None
    shared: Annotated[str, Meta(description="A shared capability, eth/69.", extra={"metavar": "CAPABILITY"})] | None = None


@command("sessions", results.SessionsResult)
class SessionsParameters(Filter, frozen=True, kw_only=True):
    """List the sessions that match every given filter, the oldest first."""

    limit: Annotated[int, Meta(ge=1, le=100_000, description="Most entries to list.", extra={"metavar": "N"})] = 1000


@command("snapshot", results.SnapshotResult[results.SessionObject], *_BY_WORKER)
class SnapshotParameters(NoParameters, frozen=True, kw_only=True):
    """Show all sessions, and the ordinal of the next event of each topic and worker. `rlpx.engine.client` begins with it."""


@command("session", results.SessionObject, ErrorName.NO_SUCH_SESSION)
class SessionParameters(Parameters, frozen=True, kw_only=True):
    """Show one session."""

    session: SessionNumber


@command("dial", results.DialResult, ErrorName.REFUSED, *_BY_WORKER)
class DialParameters(Parameters, frozen=True, kw_only=True):
    """Connect to a peer. The result is the session's number, at once. With `wait`, it is the session once established, or an
    error with the reason why it was not.
    """

    enode: EnodeUrl
    wait: Annotated[bool, Meta(description="Wait until the session is established or the dial has failed.")] = False


@command("disconnect", results.DoneResult, ErrorName.NO_SUCH_SESSION, ErrorName.WORKER_LOST)
class DisconnectParameters(Parameters, frozen=True, kw_only=True):
    """End one session politely."""

    session: SessionNumber
    reason: Annotated[
        ReasonName, Meta(description="The Disconnect reason: too_many_peers, useless_peer ...", extra={"metavar": "NAME"})
    ] = "disconnect_requested"


@command("disconnect-all", results.DoneResult)
class DisconnectAllParameters(Parameters, frozen=True, kw_only=True):
    """End all sessions politely, including dials in progress."""

    reason: Annotated[ReasonName, Meta(description="The Disconnect reason.", extra={"metavar": "NAME"})] = (
        "disconnect_requested"
    )


@command("history", list[results.EndedSession])
class HistoryParameters(Parameters, frozen=True, kw_only=True):
    """List the sessions and attempts that ended last, the latest first."""

    limit: Annotated[int, Meta(ge=1, le=100_000, description="Most entries to list.", extra={"metavar": "N"})] = 100


# -- messages ---------------------------------------------------------------------------------------------------------------

Capability = Annotated[str, Meta(min_length=1, max_length=64, description="eth, snap, or a sub-protocol of your own.")]
MessageName = (
    Annotated[str, Meta(min_length=1, max_length=64, description="The message's name, or its id within the capability.")]
    | Annotated[int, Meta(ge=0, le=127)]
)
Payload = Annotated[Hex, Meta(description="RLP, 0x and hex. Not needed if the payload is the second frame.")]
Raw = Annotated[bool, Meta(description="Send the message unchecked, even if peers punish it.")]


@command("send", results.DoneResult, *_BY_SESSION, *_BY_WORKER)
class SendParameters(Parameters, frozen=True, kw_only=True):
    """Send one message to one peer. Without `raw`, a message that peers punish is refused: a payload that does not parse in
    the negotiated version, a second Status, gossip of blocks under proof of stake, an announcement that is empty or
    names a transaction twice. This also applies to `request` and `broadcast`.
    """

    session: SessionNumber
    capability: Capability
    message: MessageName
    payload: Payload
    raw: Raw = False


@command(
    "request",
    results.AnswerResult,
    *_BY_SESSION,
    ErrorName.BAD_RESPONSE,
    ErrorName.SESSION_ENDED,
    *_BY_WORKER,
)
class RequestParameters(SendParameters, frozen=True, kw_only=True):
    """Send one request to one peer and return its answer. The engine chooses the request id on the wire; the answer
    has the payload's own. Without `timeout_s` the session's timeout applies, 2 to 20 s. With `binary`, the payload of the
    answer is the second frame of the reply.
    """

    timeout_s: (
        Annotated[float, Meta(gt=0, le=25, description="Seconds to wait, up to 25.", extra={"metavar": "S"})] | None
    ) = None
    binary: Annotated[
        bool, Meta(description="Get the answer's payload as the second frame of the reply.", extra={"for_programs": True})
    ] = False


@command("broadcast", results.BroadcastResult, ErrorName.QUEUE_FULL)
class BroadcastParameters(Filter, frozen=True, kw_only=True):
    """Send one message to every active session that matches. The filters are those of `sessions`. The message has the
    form of one version; `shared` selects the sessions with that version. `except` leaves sessions out. The result lists the
    sessions that could not get it, and why.
    """

    capability: Capability
    message: MessageName
    payload: Payload
    raw: Raw = False
    exceptions: Annotated[
        tuple[SessionNumber, ...],
        Meta(max_length=MAX_EXCEPTIONS, description="Sessions that do not get it.", extra={"metavar": "ID,ID"}),
    ] = msgspec.field(name="except", default=())


@command("set-status", results.ConfirmedResult)
class SetStatusParameters(Parameters, frozen=True, kw_only=True):
    """Announce another head and range. New handshakes announce it at once; running eth/69+ sessions do every 384 s if it has
    moved by 32. Without `time` fork rules follow the wall clock. The result lists the workers that confirmed.
    """

    number: Block
    hash: Hash
    time: Annotated[Block, Meta(description="The head's timestamp.", extra={"metavar": "T"})] | None = None
    earliest: Annotated[Block, Meta(description="The first block that we have.", extra={"metavar": "NUMBER"})] = 0
    total_difficulty: Annotated[
        str,
        Meta(
            pattern="^[0-9]{1,48}$",
            description="The total difficulty, decimal; announced below eth/69.",
            title="a decimal number of up to 48 digits",
            examples=["58750003716598352816469"],
            extra={"metavar": "D"},
        ),
    ] = "0"


# -- peers ------------------------------------------------------------------------------------------------------------------


@command("peers", results.PeersResult)
class PeersParameters(NoParameters, frozen=True, kw_only=True):
    """List static and trusted peers, and bans. Static peers are kept connected, trusted ones are exempt from the active
    limits. Each is listed with the time of its next dial, or the reason why it is not dialled.
    """


@command("peers-add", results.PeersResult)
class AddPeerParameters(Parameters, frozen=True, kw_only=True):
    """Keep a peer connected (`static`), or exempt it from the active limits (`trusted`)."""

    enode: EnodeUrl
    static: Annotated[bool, Meta(description="Keep it connected.")] = True
    trusted: Annotated[bool, Meta(description="Exempt it from the active limits.")] = False


@command("peers-remove", results.PeersResult, ErrorName.NO_SUCH_PEER)
class RemovePeerParameters(Parameters, frozen=True, kw_only=True):
    """Stop treating a peer as static or trusted. Its session continues."""

    peer: PeerId


@command("ban", results.DoneResult)
class BanParameters(Parameters, frozen=True, kw_only=True):
    """Refuse a peer or an address for some time, and end its sessions. Zero seconds lifts a ban."""

    peer: PeerId | None = None
    address: Annotated[str, Meta(max_length=64, description="An IP address.", extra={"metavar": "IP"})] | None = None
    seconds: Annotated[
        float, Meta(ge=0, le=10 * 365 * 86_400, description="Duration in seconds.", extra={"metavar": "S"})
    ] = 43_200.0


# -- what changes a running engine ------------------------------------------------------------------------------------------


@command("set-limits", results.CountsResult)
class SetLimitsParameters(Parameters, frozen=True, kw_only=True):
    """Change limits of the running engine. Sessions above a lowered limit stay."""

    max_unauthenticated: Limit | None = None
    max_pending_inbound: Limit | None = None
    max_pending_outbound: Limit | None = None
    max_active_inbound: Limit | None = None
    max_active_outbound: Limit | None = None


DrainSeconds = (
    Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Seconds within which the sessions of a worker that leaves are ended; 0 waits until they end.",
            extra={"metavar": "S"},
        ),
    ]
    | None
)


@command("restart-workers", results.RestartResult, ErrorName.BUSY, ErrorName.REFUSED, ErrorName.WORKER_LOST)
class RestartWorkersParameters(Parameters, frozen=True, kw_only=True):
    """Replace all workers, one by one. A new worker is ready before the old one leaves. The old one takes no new sessions
    and ends its own politely, evenly over `drain_s` (by default `timeouts.worker_drain_s`); the next one follows when it is
    gone. With 0, its sessions stay until they end, and the next one follows at once. If a new worker does not become
    ready, the old one stays, and the restart is over. The result lists who is to leave, at once; with `wait`, also who has
    replaced whom, in the end.
    """

    drain_s: DrainSeconds = None
    wait: Annotated[bool, Meta(description="Wait until all are replaced, or the restart has failed.")] = False


@command("set-workers", results.WorkersResult, ErrorName.BUSY, ErrorName.REFUSED, ErrorName.WORKER_LOST)
class SetWorkersParameters(Parameters, frozen=True, kw_only=True):
    """Change the number of workers. New ones are ready when the result comes; if one does not become ready, none is added.
    Those with the highest numbers leave, as in `restart-workers`. A given drain time also applies to workers that are
    leaving already.
    """

    workers: Annotated[int, Meta(ge=1, le=128, description="The number of workers.", extra={"metavar": "N"})]
    drain_s: DrainSeconds = None


@command("subprotocols", results.SubProtocolsResult)
class SubProtocolsParameters(NoParameters, frozen=True, kw_only=True):
    """List the sub-protocols that every new Hello offers."""


@command("subprotocols-add", results.ConfirmedResult)
class AddSubProtocolParameters(Parameters, frozen=True, kw_only=True):
    """Offer a sub-protocol of your own in new handshakes."""

    protocol: Annotated[SubProtocolText, Meta(description="NAME/VERSION/MESSAGES[/MAX_BYTES].")]
    required: Annotated[bool, Meta(description="Refuse peers that do not share its name.")] = False


@command("subprotocols-remove", results.ConfirmedResult)
class RemoveSubProtocolParameters(Parameters, frozen=True, kw_only=True):
    """Stop offering a sub-protocol."""

    protocol: Annotated[
        str,
        Meta(
            pattern="^[a-z][a-z0-9]{0,7}/[0-9]{1,3}$",
            title="NAME/VERSION of a sub-protocol",
            examples=["wit/0"],
            description="NAME/VERSION.",
        ),
    ]


@command("log-level", results.LogLevelResult)
class LogLevelParameters(Parameters, frozen=True, kw_only=True):
    """Set the level: from now on, log lines of this level and above are written."""

    level: Annotated[Level, Meta(description="debug, info, warning or error.")]


@command("discover", dict[str, Any])
class DiscoverParameters(Parameters, frozen=True, kw_only=True):
    """Show the OpenRPC document of all commands, or with `events` the JSON Schema of all events."""

    events: Annotated[bool, Meta(description="The JSON Schema of all events instead.")] = False


@command("shutdown", results.StoppingResult)
class ShutdownParameters(NoParameters, frozen=True, kw_only=True):
    """Disconnect every peer politely, then end, as on SIGTERM."""
