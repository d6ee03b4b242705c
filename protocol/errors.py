"""Errors that a peer can cause, each with the answer that the peer gets.

The class of a `PeerError` has the Disconnect reason and the severity, so that a handler need not guess them.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import ClassVar, Final

# Causes and logs repeat no more than this of a text that a peer chose, and only in printable form (CVE-2022-29177).
PEER_TEXT_MAX_CHARACTERS: Final = 128
_LEFT_OUT: Final = "..."
# Reasons from this value on are not read: an integer on our wires has at most 64 bits.
UNKNOWN_REASONS_END: Final = 1 << 64


class DisconnectReason(IntEnum):
    """The reasons of a Disconnect message (devp2p `rlpx.md`, "Disconnect (0x01)")."""

    DISCONNECT_REQUESTED = 0x00
    TCP_ERROR = 0x01
    PROTOCOL_BREACH = 0x02
    USELESS_PEER = 0x03
    TOO_MANY_PEERS = 0x04
    ALREADY_CONNECTED = 0x05
    INCOMPATIBLE_VERSION = 0x06
    INVALID_IDENTITY = 0x07
    CLIENT_QUITTING = 0x08
    UNEXPECTED_IDENTITY = 0x09
    CONNECTED_TO_SELF = 0x0A
    PING_TIMEOUT = 0x0B
    SUBPROTOCOL_ERROR = 0x10

    @classmethod
    def _missing_(cls, value: object) -> DisconnectReason | None:
        """Make a member for a number that the specification does not have but a peer may send: `UNKNOWN_0X11`."""
        if not isinstance(value, int) or not 0 <= value < UNKNOWN_REASONS_END:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_0X{value:02X}"
        member._value_ = value
        return member

    @property
    def label(self) -> str:
        """The name that users see and type: `too_many_peers`; `unknown_0x11` if the specification has none."""
        return self.name.lower()

    @property
    def is_known(self) -> bool:
        """Whether the specification has this reason."""
        return self.name in type(self).__members__


class Severity(StrEnum):
    """How long to wait before redialling a peer after a session has ended: reth's kinds of backoff."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    FATAL = "fatal"


_FATAL_REASONS: Final = frozenset(
    {DisconnectReason.USELESS_PEER, DisconnectReason.INCOMPATIBLE_VERSION, DisconnectReason.PROTOCOL_BREACH}
)
_LOW_REASONS: Final = frozenset(
    {
        DisconnectReason.TOO_MANY_PEERS,
        DisconnectReason.ALREADY_CONNECTED,
        DisconnectReason.PING_TIMEOUT,
        DisconnectReason.DISCONNECT_REQUESTED,
        DisconnectReason.TCP_ERROR,
        # reth waits long after this reason; but a node that restarts sends it as well, and is back within seconds.
        DisconnectReason.CLIENT_QUITTING,
    }
)


def severity_of(reason: DisconnectReason | None) -> Severity:
    """How long to stay away, judging by the peer's Disconnect reason."""
    if reason in _FATAL_REASONS:
        return Severity.FATAL
    return Severity.LOW if reason is None or reason in _LOW_REASONS else Severity.HIGH


class ErrorName(StrEnum):
    """The names of the errors that commands return; `rlpx.protocol.bus.error_codes` has their JSON-RPC codes."""

    NO_SUCH_SESSION = "no_such_session"
    NO_SUCH_PEER = "no_such_peer"
    WORKER_LOST = "worker_lost"
    QUEUE_FULL = "queue_full"
    NOT_SHARED = "not_shared"
    TIMED_OUT = "timed_out"
    REFUSED = "refused"
    BAD_RESPONSE = "bad_response"
    SESSION_ENDED = "session_ended"
    CANCELLED = "cancelled"
    BUSY = "busy"
    INVALID_PARAMS = "invalid_params"


class UsageError(Exception):
    """Our own side asked for something impossible; `name` is the error that a user gets."""

    name: ClassVar[ErrorName] = ErrorName.INVALID_PARAMS


class NotSharedError(UsageError):
    """The capability or its version is not shared with this peer, or the session is not active."""

    name = ErrorName.NOT_SHARED


class NoSuchSessionError(UsageError):
    """The session has ended."""

    name = ErrorName.NO_SUCH_SESSION


class QueueFullError(UsageError):
    """Too many messages or requests already wait for this peer."""

    name = ErrorName.QUEUE_FULL


class PeerError(Exception):
    """A peer's mistake. Our Disconnect has `reason`; if it is None, none is sent. `severity` decides when to dial again."""

    reason: ClassVar[DisconnectReason | None] = DisconnectReason.PROTOCOL_BREACH
    severity: ClassVar[Severity] = Severity.MEDIUM
    # Where the mistake is: the message and the field, `GetBlockHeaders.query`.
    place: str = ""

    def inside(self, place: str) -> None:
        """Prepend to `place`. Callers go from the inside outwards: a field, an element (`[3]`), finally the message."""
        dot = "." if self.place and not self.place.startswith("[") else ""
        self.place = f"{place}{dot}{self.place}"

    def __str__(self) -> str:
        text = super().__str__()
        return f"{self.place}: {text}" if self.place else text


class RlpError(PeerError):
    """Not canonical RLP, or larger than allowed here."""


class HandshakeError(PeerError):
    """The auth or ack packet is not valid. Every cause raises this error, as a peer must not learn which it was."""

    reason = None
    severity = Severity.LOW


class FrameError(PeerError):
    """A frame is not authentic, or is longer than allowed. Nothing after it can be read.

    A wrong MAC is as severe as any breach, but we send no 0x02 for it: the network or a proxy may have damaged an honest
    peer's bytes, and reth bans a peer that sends 0x02 for 12 h. geth closes without a Disconnect as well.
    """

    reason: ClassVar[DisconnectReason | None] = None


class OversizedFrameError(FrameError):
    """The announced frame is longer than allowed here."""

    reason = DisconnectReason.PROTOCOL_BREACH


class SnappyError(PeerError):
    """The payload does not inflate, or announces a length beyond the limit."""


class MessageError(PeerError):
    """The message is malformed, or not allowed at this stage."""


class PingFloodError(PeerError):
    """More pings wait for their pongs than the token bucket allows."""


class NullIdentityError(PeerError):
    """The Hello carries no 64-byte id, or one of zeros."""

    reason = DisconnectReason.INVALID_IDENTITY
    severity = Severity.FATAL


class UnexpectedIdentityError(PeerError):
    """The Hello names another id than the handshake."""

    reason = DisconnectReason.UNEXPECTED_IDENTITY
    severity = Severity.FATAL


class IncompatibleVersionError(PeerError):
    """A base protocol version without Snappy."""

    reason = DisconnectReason.INCOMPATIBLE_VERSION
    severity = Severity.FATAL


class UselessPeerError(PeerError):
    """No shared version of eth."""

    reason = DisconnectReason.USELESS_PEER
    severity = Severity.FATAL


class StatusError(PeerError):
    """The Status has another network, genesis, version or fork: the peer is sound but follows another chain.

    We answer with 0x10, as geth does. If we sent 0x02 (breach), reth would ban us for 12 h.
    """

    reason = DisconnectReason.SUBPROTOCOL_ERROR
    severity = Severity.FATAL


class ForkIdError(StatusError):
    """The remote fork id fails the EIP-2124 filter: one side may have missed a fork."""

    severity = Severity.MEDIUM


class TimeoutPeerError(PeerError):
    """The peer took longer than its stage allows."""

    reason = DisconnectReason.PING_TIMEOUT


class reading:  # noqa: N801 - it stands in a `with`, where contextlib's own are in lower case as well
    """Add the name of this message or field to the `PeerError` raised inside."""

    __slots__ = ("_place",)

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, PeerError):
            error.inside(self._place)


def bounded(text: str, max_characters: int = PEER_TEXT_MAX_CHARACTERS) -> str:
    """Bound a text that is kept for each of many peers. A longer one is cut and ends with dots."""
    return text if len(text) <= max_characters else text[: max_characters - len(_LEFT_OUT)] + _LEFT_OUT


def printable(text: str, max_characters: int = PEER_TEXT_MAX_CHARACTERS) -> str:
    """Cut and escape a text chosen by a peer so that it is safe in a log line or a terminal."""
    cut = text[:max_characters]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
