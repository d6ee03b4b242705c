"""The events of a `Session`: facts, in the order in which they happened."""

from __future__ import annotations

import msgspec

from rlpx.protocol.errors import DisconnectReason, ErrorName, Severity
from rlpx.protocol.eth.kinds import MessageKind
from rlpx.protocol.eth.status import Status
from rlpx.protocol.lifecycle import Conduct, EndedBy, Stage
from rlpx.protocol.rlpx.capabilities import Shared
from rlpx.protocol.rlpx.p2p import Hello
from rlpx.protocol.session.requests import RequestId


class Authenticated(msgspec.Struct, frozen=True):
    """The peer has proved its id (64 bytes) by its first frame with a valid MAC. A verdict is now due."""

    peer: bytes


class Established(msgspec.Struct, frozen=True):
    """Both Statuses are exchanged and the peer is approved: the session is active."""

    hello: Hello
    shared: tuple[Shared, ...]
    status: Status


class MessageReceived(msgspec.Struct, frozen=True, gc=False):
    """One message. `payload` is the RLP as the peer sent it, inflated; `wire_bytes` its deflated size.

    `request_id` is set if the message is a request or a response.
    """

    kind: MessageKind
    payload: bytes
    wire_bytes: int
    request_id: int | None = None


class MessageSent(msgspec.Struct, frozen=True, gc=False):
    """A sealed message of a capability; `payload` is its RLP, inflated. It is made only if its tap has a reader."""

    kind: MessageKind
    payload: bytes


class Closed(msgspec.Struct, frozen=True):
    """The session has ended; always the last event. `reason` is the Disconnect reason sent or received, `cause` a text."""

    ended_by: EndedBy
    reason: DisconnectReason | None
    cause: str
    stage: Stage
    severity: Severity = Severity.LOW


class Answered(msgspec.Struct, frozen=True):
    """The response to one of our requests. Its payload has the request id of the caller's own message."""

    request: RequestId
    kind: MessageKind
    payload: bytes


class RequestFailed(msgspec.Struct, frozen=True):
    """One of our requests gets no answer. `name` is the error that its caller gets."""

    request: RequestId
    name: ErrorName
    text: str


class Alive(msgspec.Struct, frozen=True):
    """A probed peer is alive, or cannot be shown to be gone."""


class Misconduct(msgspec.Struct, frozen=True):
    """The peer has sent a response that no request matches, or answers no requests."""

    conduct: Conduct
    text: str


Event = Authenticated | Established | MessageReceived | Answered | RequestFailed | Misconduct | Alive | Closed
