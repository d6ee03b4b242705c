"""What the engine and its workers say to each other: tagged structs, one union per direction, and their framing.

A worker inherits one end of a SEQPACKET pair. Its first record is a `Configure` with the descriptor of a stream; each
later one is a `Handoffs` with accepted sockets. Commands go down the stream and reports come up it, each as four bytes of
big-endian length and a msgpack struct. The end of either is the end of the other process.
"""

from __future__ import annotations

from typing import Any, Final, Generic, NewType, TypeVar

import msgspec

from protocol.capabilities import SubProtocol
from protocol.errors import DisconnectReason, Severity
from protocol.eth import Head
from protocol.events import Conduct, EndedBy, Stage
from protocol.forkid import Chain

SessionId = NewType("SessionId", int)
WorkerId = NewType("WorkerId", int)
# Ties a reply of a worker to the command it answers.
CallId = NewType("CallId", int)

# The configuration and any handoffs stay far below the 200 KiB that one SEQPACKET record may have.
RECORD_MAX_BYTES: Final = 64 * 1024
# Sockets in one record: as many as a worker adopts in a turn of its loop. The kernel takes 253 (SCM_MAX_FD).
HANDOFFS_AT_ONCE: Final = 32
_LENGTH_BYTES: Final = 4


class NodeConfig(msgspec.Struct, frozen=True):
    """What a worker says of the node in every Hello. `key` is the node's secret; it is never logged."""

    key: bytes
    client: str
    listen_port: int

    def __repr__(self) -> str:
        return f"NodeConfig(client={self.client!r}, key=secret)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What a rich traceback shows of it: msgspec's own would show the key."""
        return [("client", self.client)]


class SessionConfig(msgspec.Struct, frozen=True):
    """Bounds of every session, in seconds and bytes; `conf/engine.toml` explains them."""

    handshake_seconds: float
    pending_inbound_seconds: float
    pending_outbound_seconds: float
    connect_seconds: float
    ping_interval_seconds: float
    ping_seconds: float
    goodbye_seconds: float
    max_goodbyes: int
    max_bad_messages: int
    ends_on_breach: bool
    queue_bytes: int
    write_seconds: float


class OutboxConfig(msgspec.Struct, frozen=True):
    """How traffic events leave a worker: where to, how long they wait for company, and how much waits."""

    endpoint: str
    batch_seconds: float
    batch_bytes: int
    queue_batches: int


class ResponderConfig(msgspec.Struct, frozen=True):
    """Where programs connect that answer peers' requests, and how long one has for an answer."""

    endpoint: str
    seconds: float
    # Requests of one peer that may wait for answers; beyond it is read no further.
    most_open: int


class Configure(msgspec.Struct, frozen=True, array_like=True, tag="configure"):
    """The first record on a worker's pair, with the descriptor of its stream."""

    worker: WorkerId
    node: NodeConfig
    protocols: tuple[SubProtocol, ...]
    required: tuple[str, ...]
    chain: Chain
    head: Head
    is_head_known: bool
    session: SessionConfig
    outbox: OutboxConfig
    responder: ResponderConfig


class Handoff(msgspec.Struct, frozen=True, array_like=True):
    """An accepted socket. `refusal` asks only for a polite goodbye."""

    session: SessionId
    refusal: DisconnectReason | None = None


class Handoffs(msgspec.Struct, frozen=True, array_like=True, tag="handoffs"):
    """Accepted sockets, whose descriptors are in the same record and in the same order."""

    sockets: tuple[Handoff, ...]


# -- commands: engine to worker ---------------------------------------------------------------------------------------------


class Dial(msgspec.Struct, frozen=True, array_like=True, tag="dial"):
    """Connect to a peer and open a session as initiator. `peer` is the 64-byte id."""

    session: SessionId
    peer: bytes
    host: str
    port: int


class Judge(msgspec.Struct, frozen=True, array_like=True, tag="judge"):
    """The verdict on an authenticated session: go on, or end with `refusal` for the given cause."""

    session: SessionId
    refusal: DisconnectReason | None = None
    cause: str = ""


class DisconnectSession(msgspec.Struct, frozen=True, array_like=True, tag="disconnect"):
    """Ask the worker to end one session politely."""

    session: SessionId
    reason: DisconnectReason
    cause: str


class SendMessage(msgspec.Struct, frozen=True, array_like=True, tag="send"):
    """Send one message on one session; a `Reply` follows."""

    call: CallId
    session: SessionId
    capability: str
    message: int
    payload: bytes


class Broadcast(msgspec.Struct, frozen=True, array_like=True, tag="broadcast"):
    """Send one message on many sessions; a `Sent` follows."""

    call: CallId
    sessions: tuple[SessionId, ...]
    capability: str
    message: int
    payload: bytes


class AskPeer(msgspec.Struct, frozen=True, array_like=True, tag="ask_peer"):
    """Send one request on one session; an `Answer` follows, or a `Reply` with the error."""

    call: CallId
    session: SessionId
    capability: str
    message: int
    payload: bytes


class Forget(msgspec.Struct, frozen=True, array_like=True, tag="forget"):
    """Whoever asked this has gone, and awaits no answer any more."""

    call: CallId


class AskSessions(msgspec.Struct, frozen=True, array_like=True, tag="ask_sessions"):
    """Ask for the running figures of some sessions; a `Figures` follows."""

    call: CallId
    sessions: tuple[SessionId, ...]


class SetHead(msgspec.Struct, frozen=True, array_like=True, tag="set_head"):
    """New handshakes announce this head; a `Reply` follows."""

    call: CallId
    head: Head


class SetProtocols(msgspec.Struct, frozen=True, array_like=True, tag="set_protocols"):
    """New handshakes offer these sub-protocols, and want the `required` names shared; a `Reply` follows."""

    call: CallId
    protocols: tuple[SubProtocol, ...]
    required: tuple[str, ...]


class Drain(msgspec.Struct, frozen=True, array_like=True, tag="drain"):
    """Say goodbye to every peer, then end the process."""

    reason: DisconnectReason
    cause: str


Command = (
    Dial
    | Judge
    | DisconnectSession
    | SendMessage
    | Broadcast
    | AskPeer
    | Forget
    | AskSessions
    | SetHead
    | SetProtocols
    | Drain
)

# -- reports: worker to engine ----------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The worker takes handoffs and commands from now on."""

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


class SessionAuthenticated(msgspec.Struct, frozen=True, array_like=True, tag="authenticated"):
    """The peer's id is proved; the engine owes a `Judge`."""

    session: SessionId
    peer: bytes


class RemoteChain(msgspec.Struct, frozen=True, array_like=True):
    """The peer's Status, in the words that users see; hashes in hex with 0x."""

    network_id: int
    genesis: str
    fork_hash: str
    fork_next: int
    head: str
    total_difficulty: str | None = None
    earliest: int | None = None
    latest: int | None = None


class Traffic(msgspec.Struct, frozen=True, array_like=True):
    """Running figures of a session."""

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
    traffic: Traffic


class SessionClosed(msgspec.Struct, frozen=True, array_like=True, tag="closed"):
    """The end of a session: exactly one per handoff or dial."""

    session: SessionId
    ended_by: EndedBy
    reason: DisconnectReason | None
    cause: str
    stage: Stage
    traffic: Traffic
    severity: Severity = Severity.LOW


class Figures(msgspec.Struct, frozen=True, array_like=True, tag="figures"):
    """Answer to `AskSessions`: stage, figures and the block range of each session that the worker has."""

    call: CallId
    sessions: dict[int, tuple[Stage, Traffic, tuple[int, int, str] | None]]


class Sent(msgspec.Struct, frozen=True, array_like=True, tag="sent"):
    """Answer to `Broadcast`: for how many sessions it was sent, and the name of the error for each other."""

    call: CallId
    sent: int
    refused: dict[int, str]


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """Answer to `AskPeer`: the name and the payload of the peer's response, with the asker's own request id."""

    call: CallId
    message: str
    payload: bytes


class SessionMisconduct(msgspec.Struct, frozen=True, array_like=True, tag="misconduct"):
    """A peer did something worth telling; `count` is how often so far in this session."""

    session: SessionId
    conduct: Conduct
    words: str
    count: int


class Reply(msgspec.Struct, frozen=True, array_like=True, tag="reply"):
    """Answer to a command: done, or the name and the words of an error."""

    call: CallId
    error: str | None = None
    message: str = ""


class Pulse(msgspec.Struct, frozen=True, array_like=True, tag="pulse"):
    """Once a second: how the worker is."""

    goodbyes: int
    loop_lag_ms: float
    memory_bytes: int
    dropped_events: int
    unanswered: int


class LogLine(msgspec.Struct, frozen=True, array_like=True, tag="log"):
    """Something for the engine's log; workers have none of their own. `level` as in `logging`."""

    level: str
    message: str


Report = (
    Ready
    | HandoffLost
    | SessionConnected
    | SessionAuthenticated
    | SessionEstablished
    | SessionClosed
    | Figures
    | Answer
    | Sent
    | SessionMisconduct
    | Reply
    | Pulse
    | LogLine
)

Record = Configure | Handoffs

_encoder: Final = msgspec.msgpack.Encoder()
_record_decoder: Final[msgspec.msgpack.Decoder[Record]] = msgspec.msgpack.Decoder(Record)
T = TypeVar("T")


def encode_record(record: Record) -> bytes:
    """One SEQPACKET record."""
    return _encoder.encode(record)


def decode_record(data: bytes) -> Record:
    """Read what `encode_record` wrote."""
    return _record_decoder.decode(data)


def encode(message: Command | Report) -> bytes:
    """One message on the stream, with its length in front."""
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class StreamDecoder(Generic[T]):
    """Messages of one direction, out of a stream of bytes in any cut. Both ends are ours: bad data is a fault."""

    def __init__(self, union: type[T]) -> None:
        self._decode = msgspec.msgpack.Decoder(union).decode
        # The beginning of a message whose end is still to come.
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[T]:
        """Take a chunk; the messages that it completes."""
        rest = self._rest
        if rest:
            rest += data
            with memoryview(rest) as view:
                messages, end = self._read(view)
            del rest[:end]
        else:
            messages, end = self._read(memoryview(data))
            rest += data[end:]
        return messages

    def _read(self, view: memoryview) -> tuple[list[T], int]:
        """The whole messages at the front, and where they end."""
        messages: list[T] = []
        start, size = 0, len(view)
        while size - start >= _LENGTH_BYTES:
            body = start + _LENGTH_BYTES
            end = body + int.from_bytes(view[start:body], "big")
            if end > size:
                break
            messages.append(self._decode(view[body:end]))
            start = end
        return messages, start


def command_decoder() -> StreamDecoder[Command]:
    """For a worker's end of the stream."""
    return StreamDecoder(Command)  # type: ignore[arg-type]  # a union is a type to msgspec


def report_decoder() -> StreamDecoder[Report]:
    """For the engine's end of the stream."""
    return StreamDecoder(Report)  # type: ignore[arg-type]  # a union is a type to msgspec
