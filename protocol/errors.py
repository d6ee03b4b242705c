"""What can go wrong with a peer, each error with the answer that it deserves.

Whoever catches a `PeerError` has nothing to guess: its class says which Disconnect reason the peer is told.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import ClassVar, Final

# A peer chooses this text: what we repeat of it in causes and logs is short and printable (CVE-2022-29177).
PEER_TEXT_MAX_CHARACTERS: Final = 128


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

    @property
    def label(self) -> str:
        """The name that users see and type: `too_many_peers`."""
        return self.name.lower()


class Severity(StrEnum):
    """How long a peer is better left alone after an end: reth's kinds of backoff."""

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
        # To reth this is a long absence; a node that restarts says so as well, and is back within seconds.
        DisconnectReason.CLIENT_QUITTING,
    }
)


def severity_of(reason: DisconnectReason | None) -> Severity:
    """Of a peer's own goodbye: what it says of coming back."""
    if reason in _FATAL_REASONS:
        return Severity.FATAL
    return Severity.LOW if reason is None or reason in _LOW_REASONS else Severity.HIGH


class UsageError(Exception):
    """Our own side asked for something impossible; `name` is the typed reply a user gets."""

    name: ClassVar[str] = "invalid_params"


class NotSharedError(UsageError):
    """The capability or its version is not shared with this peer, or the session is not active."""

    name = "not_shared"


class QueueFullError(UsageError):
    """More than may wait for this peer."""

    name = "queue_full"


class PeerError(Exception):
    """A peer's mistake. `reason` is what it is told; `None` closes without a goodbye. `severity`: when to come back."""

    reason: ClassVar[DisconnectReason | None] = DisconnectReason.PROTOCOL_BREACH
    severity: ClassVar[Severity] = Severity.MEDIUM


class RlpError(PeerError):
    """Not canonical RLP, or larger than the bounds of its place."""


class HandshakeError(PeerError):
    """The auth or ack packet is not valid. One error for every cause: a peer must not learn which (no oracle)."""

    reason = None
    severity = Severity.LOW


class FrameError(PeerError):
    """A frame cannot be authentic or is longer than allowed: nothing that follows it can be read.

    A wrong MAC is as severe as any breach, but it is not told as one: wire or proxy may have spoiled an honest peer's
    bytes, and reth bans whoever says 0x02 to it for 12 h. geth closes without a word as well.
    """

    reason: ClassVar[DisconnectReason | None] = None


class OversizedFrameError(FrameError):
    """The announced frame is longer than its place allows."""

    reason = DisconnectReason.PROTOCOL_BREACH


class SnappyError(PeerError):
    """The payload does not inflate, or says that it would inflate beyond the limit."""


class MessageError(PeerError):
    """A message that is malformed, or that may not come at this stage."""


class PingFloodError(PeerError):
    """More pings than the token bucket allows."""


class NullIdentityError(PeerError):
    """The Hello carries no 64-byte id, or one of zeros."""

    reason = DisconnectReason.INVALID_IDENTITY
    severity = Severity.FATAL


class UnexpectedIdentityError(PeerError):
    """The Hello names another id than the one ECIES proved."""

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
    """Another network, genesis, version or fork: a good peer, of somebody else's chain.

    geth answers such a Status with 0x10 as well; a breach (0x02) would get us banned by reth for 12 h.
    """

    reason = DisconnectReason.SUBPROTOCOL_ERROR
    severity = Severity.FATAL


class ForkIdError(StatusError):
    """The remote fork id fails the EIP-2124 filter: one of us may be late for a fork."""

    severity = Severity.MEDIUM


class TimeoutPeerError(PeerError):
    """The peer took longer than its stage allows."""

    reason = DisconnectReason.PING_TIMEOUT


def printable(text: str, max_characters: int = PEER_TEXT_MAX_CHARACTERS) -> str:
    """Text chosen by a peer, cut and escaped so that it can stand in a log line or a terminal."""
    cut = text[:max_characters]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
