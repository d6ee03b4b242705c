"""What a `Session` tells: facts, in the order in which they happened."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from protocol.capabilities import Shared
from protocol.errors import DisconnectReason, Severity
from protocol.eth import Status
from protocol.messages import MessageKind
from protocol.p2p import Hello
from protocol.requests import RequestId


class Stage(StrEnum):
    """How far a session has come. All but `active` and `closed` are pending."""

    CONNECT = "connect"
    AUTH = "auth"
    ACK = "ack"
    HELLO = "hello"
    STATUS = "status"
    VERDICT = "verdict"
    ACTIVE = "active"
    CLOSED = "closed"


class EndedBy(StrEnum):
    """Whose decision an end was."""

    US = "us"
    PEER = "peer"
    NETWORK = "network"
    WORKER_LOST = "worker_lost"
    ENGINE = "engine"


class Authenticated(msgspec.Struct, frozen=True):
    """The peer has proved its id (64 bytes), by the first frame whose MAC is right; now a verdict is due."""

    peer: bytes


class Established(msgspec.Struct, frozen=True):
    """Status exchanged and verdict in hand: the session is active."""

    hello: Hello
    shared: tuple[Shared, ...]
    status: Status


class MessageReceived(msgspec.Struct, frozen=True, gc=False):
    """One message. `payload` is the RLP as the peer sent it, inflated; `wire_bytes` what it took deflated.

    `request_id` is the peer's where the message is a request or a response.
    """

    kind: MessageKind
    payload: bytes
    wire_bytes: int
    request_id: int | None = None


class Closed(msgspec.Struct, frozen=True):
    """The end, always last. `reason` is the Disconnect reason sent or received, `cause` says why in words."""

    ended_by: EndedBy
    reason: DisconnectReason | None
    cause: str
    stage: Stage
    severity: Severity = Severity.LOW


class Answered(msgspec.Struct, frozen=True):
    """The response to a request of ours; its payload has the id of the asker's own message again."""

    request: RequestId
    kind: MessageKind
    payload: bytes


class RequestFailed(msgspec.Struct, frozen=True):
    """A request of ours has no answer: `name` is the typed error that its asker gets."""

    request: RequestId
    name: str
    words: str


class Conduct(StrEnum):
    """What a peer did that is worth telling though the session goes on."""

    BAD_MESSAGE = "bad_message"
    BREACH = "breach"


class Misconduct(msgspec.Struct, frozen=True):
    """The peer has sent what nobody asked for, or answers nothing."""

    conduct: Conduct
    words: str


Event = Authenticated | Established | MessageReceived | Answered | RequestFailed | Misconduct | Closed
