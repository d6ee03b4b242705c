"""One peer connection from first byte to end, without a socket and without a clock.

    session.receive(data, now=…)   bytes in: a list of events out; never raises because of what a peer sent
    session.tick(now=…)            let time pass, once `deadline` is reached
    session.outgoing()             bytes to write, drained after every call

Inside, one stage at a time. The handshake is another object than the frame cipher; what may come in which stage is one
table, and absence from it is the error.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import ClassVar, Final, cast

import msgspec

from protocol import eth, handshake, p2p, rlp
from protocol.capabilities import SubProtocol, share
from protocol.crypto import Entropy, PrivateKey
from protocol.errors import (
    DisconnectReason,
    MessageError,
    NotSharedError,
    PeerError,
    QueueFullError,
    RlpError,
    Severity,
    TimeoutPeerError,
    UsageError,
    UselessPeerError,
    severity_of,
)
from protocol.events import (
    Answered,
    Authenticated,
    Closed,
    Conduct,
    EndedBy,
    Established,
    Event,
    MessageReceived,
    Misconduct,
    RequestFailed,
    Stage,
)
from protocol.frames import MAX_FRAME_BYTES, FrameCipher
from protocol.messages import MessageKind, MessageTable, message_table
from protocol.outgoing import RANKS, Multicast, outgoing
from protocol.requests import BREACH_SECONDS, RequestId, Requests, is_answer
from protocol.send_queue import QUEUE_BYTES, Outgoing, Rank, SendQueue

# A Status, a Disconnect, a ping: nothing longer is legal before the session is active.
MAX_PENDING_FRAME_BYTES: Final = 2048
# What other capabilities may send before eth's Status is there: kept, and taken with the session's first breath.
MAX_EARLY_BYTES: Final = 64 * 1024
# At these no further frame is opened.
_STOPS: Final = frozenset({Stage.VERDICT, Stage.CLOSED})
# What every message asks for: as plain names these are found faster.
_ACTIVE: Final = Stage.ACTIVE
_ANNOUNCEMENT: Final = eth.Role.ANNOUNCEMENT
_FIRST_CODE: Final = p2p.FIRST_CAPABILITY_CODE
# Behind the message code of a frame's content, and the length that Snappy starts with.
_LENGTH_END: Final = 1 + p2p.LENGTH_MAX_BYTES


class Role(StrEnum):
    """Who opened the connection: the initiator dialled."""

    INITIATOR = "outbound"
    RESPONDER = "inbound"


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds each part of a session may take.

    `handshake` bounds auth and ack, `pending` all until active counted from the start of the session, `ping_interval` is
    the time from active, and from each pong, to our next ping, `ping` what the pong may take.
    """

    handshake: float = 5.0
    pending: float = 10.0
    ping_interval: float = 15.0
    ping: float = 15.0


class LocalNode(msgspec.Struct, frozen=True):
    """What all sessions of a worker have in common. `hello` is the payload of ours, `interest` says for a topic whether
    anybody reads it.
    """

    key: PrivateKey
    hello: bytes
    protocols: tuple[SubProtocol, ...]
    interest: Mapping[str, bool]
    entropy: Entropy
    range: eth.LocalRange
    # Names of capabilities without which a peer is of no use.
    required: frozenset[str] = frozenset()
    # Of messages that wait for one peer.
    queue_bytes: int = QUEUE_BYTES


class Setup(msgspec.Struct, frozen=True):
    """What one session starts from. `peer` is the dialled id; `refusal` ends it politely after the ECIES handshake."""

    role: Role
    node: LocalNode
    chain: eth.LocalChain
    wall_seconds: int
    timeouts: Timeouts = Timeouts()
    peer: bytes | None = None
    refusal: DisconnectReason | None = None


class Session:
    """See the module. Read-only for others: `stage`, `peer`, `hello`, `status`, `deadline` and the counters."""

    __slots__ = (
        "_bucket",
        "_chain",
        "_cipher",
        "_claimed",
        "_due",
        "_early",
        "_early_bytes",
        "_events",
        "_handshake_buffer",
        "_has_cipher",
        "_hello_sent",
        "_initiator",
        "_is_admitted",
        "_node",
        "_now",
        "_out",
        "_ping_sent_at",
        "_queue",
        "_range_due",
        "_range_sent",
        "_raw_requests",
        "_refusal",
        "_requests",
        "_table",
        "_timeouts",
        "_wall_seconds",
        "bytes_in",
        "bytes_out",
        "hello",
        "messages_in",
        "messages_out",
        "peer",
        "remote_range",
        "role",
        "rtt_seconds",
        "stage",
        "status",
    )

    def __init__(self, setup: Setup, *, now: float) -> None:
        self.role = setup.role
        self._node = setup.node
        self._chain = setup.chain
        self._wall_seconds = setup.wall_seconds
        self._timeouts = setup.timeouts
        self._refusal = setup.refusal
        self._now = now
        self._events: list[Event] = []
        # Sealed, or of the handshake; and what waits to be sealed.
        self._out: list[bytes] = []
        self._queue = SendQueue(setup.node.queue_bytes)
        self._early: list[bytes] = []
        self._early_bytes = 0
        # Requests sent as raw messages, whose answers may come.
        self._raw_requests = 0
        self._handshake_buffer = b""
        # There from Stage.HELLO on.
        self._cipher: FrameCipher
        self._has_cipher = False
        self._table: MessageTable | None = None
        self._bucket = p2p.PingBucket(now=now)
        self._hello_sent = False
        self._is_admitted = False
        self._ping_sent_at: float | None = None
        self._claimed = b""
        # Of a dial whom we dialled, of an accept nobody until the id is proved.
        self.peer = setup.peer
        self.hello: p2p.Hello | None = None
        self.status: eth.Status | None = None
        # Earliest, latest and latest hash, from Status and later updates; None below eth/69.
        self.remote_range: tuple[int, int, bytes] | None = None
        self.rtt_seconds: float | None = None
        self.bytes_in = self.bytes_out = self.messages_in = self.messages_out = 0
        # When the stage, or the pong we wait for, is overdue.
        self._due = now + self._timeouts.handshake
        self._requests: Requests | None = None
        # When our block range is looked at next, and the latest block that this peer was told.
        self._range_due = math.inf
        self._range_sent = setup.chain.head.number
        self.stage = Stage.AUTH
        self._initiator: handshake.Initiator | None = None
        if setup.peer is not None:
            self._initiator = handshake.Initiator(self._node.key, setup.peer, self._node.entropy)
            self._write(self._initiator.auth)
            self.stage = Stage.ACK

    # -- what the driver calls ------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Nothing follows: what is still to be written is a goodbye."""
        return self.stage is Stage.CLOSED

    @property
    def deadline(self) -> float:
        """When `tick` is due, on the clock of `now`."""
        due = min(self._due, self._range_due)
        return due if self._requests is None else min(due, self._requests.deadline)

    @property
    def is_held(self) -> bool:
        """Bytes wait for the verdict: the driver should not read more."""
        return self.stage is Stage.VERDICT

    @property
    def has_outgoing(self) -> bool:
        """Whether `outgoing` has anything to give."""
        return bool(self._out or self._queue.bytes)

    @property
    def queued_bytes(self) -> int:
        """What waits to be sealed."""
        return self._queue.bytes

    @property
    def queued_responses(self) -> int:
        """How many responses of ours wait to be sealed."""
        return self._queue.waiting(Rank.RESPONSE)

    @property
    def shared(self) -> MessageTable | None:
        """The message table of the negotiated capabilities, once Hello is done."""
        return self._table

    def receive(self, data: bytes, *, now: float) -> list[Event]:
        """Take bytes as they came from the peer; the events they caused, in order."""
        if self.stage is Stage.CLOSED:
            return []
        self._now = now
        self.bytes_in += len(data)
        try:
            if self._has_cipher:
                self._cipher.feed(data)
            else:
                self._on_handshake_bytes(data)
            if self._has_cipher:
                self._open_frames(self._cipher)
        except PeerError as error:
            self._fail(error)
        return self._take_events()

    def admit(self, *, now: float) -> list[Event]:
        """The verdict is yes: go on, with what has been held back as well."""
        if self.stage is Stage.CLOSED:
            return []
        self._now = now
        if self._is_admitted:
            return []
        self._is_admitted = True
        if self._table is not None:
            self._send_status(self._table)
        if self.stage is Stage.VERDICT:
            try:
                self._establish()
                self._open_frames(self._cipher)
            except PeerError as error:
                self._fail(error)
        return self._take_events()

    def tick(self, *, now: float) -> list[Event]:
        """Let time pass; call it when `deadline` is reached."""
        if now < self.deadline or self.stage is Stage.CLOSED:
            return []
        self._now = now
        if self._requests is not None:
            self._expire_requests(self._requests)
        if now >= self._range_due:
            self._announce_range()
        if now < self._due:
            return self._take_events()
        if self.stage is Stage.VERDICT:
            self._close(EndedBy.ENGINE, self._say_goodbye(DisconnectReason.TOO_MANY_PEERS), "no verdict came in time")
        elif self.stage is not Stage.ACTIVE:
            self._fail(TimeoutPeerError(f"the peer took too long at {self.stage}"))
        elif self._ping_sent_at is not None and self._queue.waiting(Rank.CONTROL):
            # Our ping may be waiting still: not the pong is late. Whoever reads nothing at all is the driver's to judge.
            self._due = now + self._timeouts.ping
        elif self._ping_sent_at is not None:
            cause = f"no pong within {self._timeouts.ping:g} s"
            self._close(EndedBy.US, self._say_goodbye(DisconnectReason.PING_TIMEOUT), cause)
        else:
            self._ping_sent_at = now
            self._due = now + self._timeouts.ping
            self._send_base(p2p.PING_CODE, p2p.EMPTY_LIST)
        return self._take_events()

    def disconnect(
        self, reason: DisconnectReason, cause: str, *, by: EndedBy = EndedBy.US, severity: Severity = Severity.LOW
    ) -> list[Event]:
        """Say goodbye with `reason` and end. `severity`: how soon the peer may be dialled again."""
        if self.stage is not Stage.CLOSED:
            self._close(by, self._say_goodbye(reason), cause, severity)
        return self._take_events()

    def connection_lost(
        self, cause: str, *, by: EndedBy = EndedBy.NETWORK, severity: Severity = Severity.LOW
    ) -> list[Event]:
        """The connection is gone, or has to go, without a goodbye."""
        if self.stage is not Stage.CLOSED:
            if by is EndedBy.NETWORK and not self.bytes_in:
                cause += " before it sent a byte"
            self._close(by, None, cause, severity)
        return self._take_events()

    def send(self, capability: str, message_id: int, payload: bytes) -> MessageKind:
        """Send an RLP payload as one message of a shared capability; which message that is.

        Raises `NotSharedError`, `QueueFullError`, `UsageError`.
        """
        return self.send_deflated(capability, message_id, payload, None)

    def send_deflated(self, capability: str, message_id: int, payload: bytes, body: bytes | None) -> MessageKind:
        """As `send`; `body` is the payload deflated before, whatever it is."""
        kind = self._sendable_table().find(capability, message_id)
        rank = RANKS[kind.role]
        self._queue.put(rank, outgoing(rank, kind, payload, body))
        self._raw_requests += kind.answer is not None
        return kind

    def send_multicast(self, message: Multicast) -> MessageKind:
        """As `send`, of what goes to other sessions as well."""
        kind, rank, sent = message.of(self._sendable_table())
        self._queue.put(rank, sent)
        self._raw_requests += kind.answer is not None
        return kind

    def request(self, capability: str, message_id: int, payload: bytes, *, now: float) -> RequestId:
        """Send a request under an id of ours in place of the payload's own; `Answered` or `RequestFailed` follows, once.

        Raises `NotSharedError`, `QueueFullError`, `UsageError` where the message is no request.
        """
        kind = self._sendable_table().find(capability, message_id)
        if kind.answer is None:
            raise UsageError(f"{kind.topic} is no request")
        if self._requests is None:
            self._requests = Requests()
        if self._requests.is_full:
            raise QueueFullError(f"{len(self._requests)} requests to this peer are in flight")
        try:
            asker_id = rlp.first_uint(payload)
        except RlpError as error:
            raise UsageError(f"payload: {error}") from error
        request_id = self._requests.begin(kind, asker_id, now=now)
        try:
            sent = outgoing(Rank.REQUEST, kind, rlp.with_first(payload, request_id))
            self._queue.put(Rank.REQUEST, sent)
        except UsageError:
            self._requests.forget(request_id)
            raise
        return request_id

    def cancel(self, request_id: RequestId) -> None:
        """Nobody waits for this answer any more: it ends without an event, and the answer is nobody's fault."""
        if self._requests is not None:
            self._requests.cancel(request_id)

    def answer(self, request: MessageReceived, payload: bytes) -> MessageKind | None:
        """Send the response to a request of the peer; after the end it is nobody's any more. Raises `UsageError`."""
        if self.stage is not Stage.ACTIVE or request.kind.answer is None:
            return None
        kind = self._sendable_table().find(request.kind.capability.name, request.kind.answer)
        self._queue.owe(Rank.RESPONSE, outgoing(Rank.RESPONSE, kind, payload))
        return kind

    def outgoing(self, room_bytes: int = sys.maxsize) -> bytes:
        """The bytes to write now, about `room_bytes` of them; asking again gives the next ones."""
        out, queue = self._out, self._queue
        if queue.bytes:
            room_bytes -= sum(map(len, out))
            while queue.bytes and room_bytes > 0:
                frame = self._cipher.seal(queue.take().content)
                self.messages_out += 1
                room_bytes -= len(frame)
                out.append(frame)
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self.bytes_out += len(data)
        return data

    # -- the handshake ----------------------------------------------------------------------------------------------------

    def _on_handshake_bytes(self, data: bytes) -> None:
        data = self._handshake_buffer + data
        if len(data) >= handshake.SIZE_BYTES:
            end = handshake.SIZE_BYTES + handshake.packet_size(data[: handshake.SIZE_BYTES])
            if len(data) >= end:
                self._handshake_buffer = b""
                self._on_handshake_packet(data[:end])
                self._cipher.feed(data[end:])
                return
        self._handshake_buffer = data

    def _on_handshake_packet(self, packet: bytes) -> None:
        if self._initiator is not None:
            peer = self._initiator.peer.id
            secrets = self._initiator.open_ack(packet)
            self._initiator = None
        else:
            responder = handshake.Responder(packet, self._node.key, self._node.entropy)
            peer, secrets = responder.peer.id, responder.secrets
            self._write(responder.ack)
        self._claimed = peer
        self._cipher = FrameCipher(secrets)
        self._has_cipher = True
        self.stage = Stage.HELLO
        self._due += self._timeouts.pending - self._timeouts.handshake
        if self._refusal is not None:
            self._close(EndedBy.US, self._say_goodbye(self._refusal), "refused before Hello")
            return
        self._write(self._cipher.seal(bytes([p2p.HELLO_BYTE]) + self._node.hello))
        self._hello_sent = True
        self.messages_out += 1

    # -- frames -----------------------------------------------------------------------------------------------------------

    def _open_frames(self, cipher: FrameCipher) -> None:
        if self.stage in _STOPS:
            return
        for content in cipher.frames():
            self.messages_in += 1
            if self.stage is _ACTIVE and content and content[0] >= _FIRST_CODE:
                self._on_message(content)
                continue
            self._on_other(content)
            if self.stage in _STOPS:
                return

    def _on_message(self, content: bytes) -> None:
        """A capability's message on an active session: the hot path."""
        table = self._table
        kind = table.by_code[content[0]] if table is not None else None
        if kind is None:
            raise MessageError(f"message code 0x{content[0]:02x}, which no shared capability has")
        topic = kind.topic
        handler = self._ON_OWN_MESSAGE.get(topic)
        if handler is not None:
            handler(self, kind, content[1:])
        is_read = self._node.interest[topic]
        is_announcement = kind.role is _ANNOUNCEMENT
        if not is_read and (is_announcement or (kind.answer is None and not self._requests)):
            # Nobody reads it: the length is still checked, nothing is inflated.
            p2p.inflated_bytes(content[1:_LENGTH_END], kind.limit_bytes)
            if not is_announcement:
                self._on_unasked(kind)
            return
        payload = p2p.inflate(content[1:], kind.limit_bytes)
        if is_announcement:
            self._events.append(MessageReceived(kind, payload, len(content) - 1))
            return
        # eth/66 and snap: requests and responses are lists that start with their id (EIP-2481).
        request_id = rlp.first_uint(payload)
        if is_read or kind.answer is not None:
            self._events.append(MessageReceived(kind, payload, len(content) - 1, request_id))
        if kind.answer is None:
            self._on_response(kind, request_id, payload)

    def _on_status_again(self, _kind: MessageKind, _payload: bytes) -> None:
        raise MessageError("a second Status")

    def _on_block_gossip(self, kind: MessageKind, _payload: bytes) -> None:
        if self._chain.refuses_blocks:
            raise MessageError(f"{kind.name} on a chain of proof of stake")

    def _on_block_range(self, kind: MessageKind, payload: bytes) -> None:
        self.remote_range = eth.decode_block_range(p2p.inflate(payload, kind.limit_bytes))

    # Messages that concern the session itself, beside whoever reads them.
    _ON_OWN_MESSAGE: ClassVar[dict[str, Callable[[Session, MessageKind, bytes], None]]] = {
        "eth.Status": _on_status_again,
        "eth.NewBlockHashes": _on_block_gossip,
        "eth.NewBlock": _on_block_gossip,
        "eth.BlockRangeUpdate": _on_block_range,
    }

    def _on_other(self, content: bytes) -> None:
        """All that is not a capability's message on an active session."""
        if self.stage is Stage.HELLO:
            # Only whoever has the key can make a frame whose MAC is right: an auth or ack alone proves nothing, as any
            # signature recovers to some ephemeral key. Until here the id is a claim, and no place is given to it.
            self.peer = self._claimed
            self._events.append(Authenticated(self._claimed))
        if not content:
            raise MessageError("an empty frame")
        code: int | Stage = content[0]
        table = self._table
        if table is not None and table.eth is not None and code == table.eth.offset:
            code = Stage.STATUS
        elif self.stage is Stage.STATUS and table is not None and table.is_of_others(content[0]):
            self._keep_early(content)
            return
        handler = self._ALLOWED[self.stage].get(code)
        if handler is None:
            raise MessageError(f"message code 0x{content[0]:02x}, which may not come at {self.stage}")
        handler(self, content[1:])

    def _on_hello(self, payload: bytes) -> None:
        hello = p2p.Hello.decode(payload)
        self.hello = hello
        hello.check(self._claimed)
        table = message_table(share(self._node.protocols, hello.capabilities))
        if table.eth is None:
            offered = ", ".join(map(str, hello.capabilities)) or "nothing"
            raise UselessPeerError(f"no shared version of eth; the peer offers {offered}")
        missing = sorted(self._node.required - table.capabilities.keys())
        if missing:
            raise UselessPeerError(f"no shared version of {', '.join(missing)}")
        self._table = table
        self.stage = Stage.STATUS
        self._cipher.limit_bytes = MAX_PENDING_FRAME_BYTES
        if self._is_admitted:
            self._send_status(table)

    def _send_status(self, table: MessageTable) -> None:
        """Ours goes out with the verdict: a peer that is refused never takes the session for established."""
        kind = table.find(eth.NAME, eth.STATUS_ID)
        status = eth.local_status(kind.capability.version, self._chain, self._wall_seconds)
        self._queue.owe(Rank.CONTROL, outgoing(Rank.CONTROL, kind, status.encode()))

    def _keep_early(self, content: bytes) -> None:
        """Other capabilities begin when they like (`rlpx.md`): what they send before the eth Status waits for it."""
        self._early_bytes += len(content)
        if self._early_bytes > MAX_EARLY_BYTES:
            raise MessageError(f"over {MAX_EARLY_BYTES} bytes of other capabilities before the eth Status")
        self._early.append(content)

    def _on_status(self, payload: bytes) -> None:
        version = self._table.eth.capability.version if self._table and self._table.eth else 0
        status = eth.decode_status(p2p.inflate(payload, eth.MAX_STATUS_BYTES), version)
        eth.check_status(status, version, self._chain, self._wall_seconds)
        self.status = status
        if status.earliest is not None and status.latest is not None:
            self.remote_range = (status.earliest, status.latest, status.head)
        self.stage = Stage.VERDICT
        if self._is_admitted:
            self._establish()

    def _establish(self) -> None:
        self.stage = Stage.ACTIVE
        self._due = self._now + self._timeouts.ping_interval
        self._cipher.limit_bytes = MAX_FRAME_BYTES
        if cast("MessageTable", self._table).has_ranges:
            self._range_due = self._now + eth.RANGE_INTERVAL_SECONDS
        # The stage says that all three are there.
        hello, status = cast("p2p.Hello", self.hello), cast("eth.Status", self.status)
        self._events.append(Established(hello, cast("MessageTable", self._table).shared, status))
        early, self._early = self._early, []
        for content in early:
            self._on_message(content)

    def _on_disconnect_before_hello(self, payload: bytes) -> None:
        self._on_remote_disconnect(p2p.decode_disconnect(payload))

    def _on_disconnect(self, payload: bytes) -> None:
        self._on_remote_disconnect(p2p.decode_disconnect_after_hello(payload))

    def _on_remote_disconnect(self, reason: DisconnectReason | None) -> None:
        cause = "the peer said goodbye" if reason is not None else "the peer left without a reason"
        self._close(EndedBy.PEER, reason, cause, severity_of(reason))

    def _on_ping(self, payload: bytes) -> None:
        p2p.check_ping_payload(payload)
        self._bucket.take(now=self._now)
        self._send_base(p2p.PONG_CODE, p2p.EMPTY_LIST)

    def _on_pong(self, payload: bytes) -> None:
        # A pong nobody asked for is ignored, as geth does.
        p2p.check_ping_payload(payload)
        if self._ping_sent_at is not None:
            self.rtt_seconds = self._now - self._ping_sent_at
            self._ping_sent_at = None
            self._due = self._now + self._timeouts.ping_interval

    # What may come in which stage, by the code's byte; eth's Status, whose code depends on what is shared, by its stage.
    # Absence is the error.
    _ALLOWED: ClassVar[dict[Stage, dict[int | Stage, Callable[[Session, bytes], None]]]] = {
        Stage.HELLO: {
            p2p.HELLO_BYTE: _on_hello,
            p2p.DISCONNECT_CODE: _on_disconnect_before_hello,
        },
        Stage.STATUS: {
            Stage.STATUS: _on_status,
            p2p.DISCONNECT_CODE: _on_disconnect,
            p2p.PING_CODE: _on_ping,
            p2p.PONG_CODE: _on_pong,
        },
        Stage.ACTIVE: {
            p2p.DISCONNECT_CODE: _on_disconnect,
            p2p.PING_CODE: _on_ping,
            p2p.PONG_CODE: _on_pong,
        },
    }

    # -- requests of ours -------------------------------------------------------------------------------------------------

    def _on_response(self, kind: MessageKind, request_id: int, payload: bytes) -> None:
        pending = self._requests.answered(request_id, kind, now=self._now) if self._requests is not None else None
        if pending is None:
            self._on_unasked(kind)
        elif pending.has_timed_out:
            return  # late: its asker was told, and it is nobody's fault
        elif is_answer(pending.kind, kind):
            self._events.append(Answered(pending.id, kind, rlp.with_first(payload, pending.asker_id)))
        else:
            words = f"{kind.topic} as the answer to {pending.kind.topic}"
            self._events.append(RequestFailed(pending.id, "bad_response", words))
            self._events.append(Misconduct(Conduct.BAD_MESSAGE, words))

    def _on_unasked(self, kind: MessageKind) -> None:
        if self._raw_requests:
            # A request that went out by `send`, under an id that is not ours to know.
            self._raw_requests -= 1
            return
        self._events.append(Misconduct(Conduct.BAD_MESSAGE, f"{kind.topic} that nobody asked for"))

    def _expire_requests(self, requests: Requests) -> None:
        expired, is_breach = requests.expire(now=self._now)
        for pending in expired:
            words = f"no answer to {pending.kind.topic} within {self._now - pending.sent_at:.1f} s"
            self._events.append(RequestFailed(pending.id, "timed_out", words))
        if is_breach:
            self._events.append(Misconduct(Conduct.BREACH, f"no answer to a request for {BREACH_SECONDS:g} s"))

    # -- out ----------------------------------------------------------------------------------------------------------------

    def _announce_range(self) -> None:
        """Tell our block range where it is known and has moved far enough since this peer was told."""
        self._range_due = self._now + eth.RANGE_INTERVAL_SECONDS
        head = self._node.range.head
        if head is not None and head.number >= self._range_sent + eth.RANGE_STEP_BLOCKS:
            self._range_sent = head.number
            kind = self._sendable_table().find(eth.NAME, eth.BLOCK_RANGE_UPDATE_ID)
            self._queue.owe(Rank.CONTROL, outgoing(Rank.CONTROL, kind, eth.encode_block_range(head)))

    def _sendable_table(self) -> MessageTable:
        """The messages that may be sent now. Raises `NotSharedError` where none may."""
        if self.stage is not _ACTIVE or self._table is None:
            raise NotSharedError(f"the session is not active but at {self.stage}")
        return self._table

    def _send_base(self, code: int, payload: bytes) -> None:
        """A base protocol message. Snappy is on for all that follows our Hello (`rlpx.md`, "Snappy")."""
        body = p2p.deflate(payload) if self._hello_sent else payload
        self._queue.owe(Rank.CONTROL, Outgoing.of(code, body))

    def _write(self, data: bytes) -> None:
        self._out.append(data)

    def _say_goodbye(self, reason: DisconnectReason | None) -> DisconnectReason | None:
        """Send a Disconnect where one can be read; the reason that was really told."""
        if reason is None or not self._has_cipher:
            return None
        self._send_base(p2p.DISCONNECT_CODE, p2p.encode_disconnect(reason))
        return reason

    def _fail(self, error: PeerError) -> None:
        self._close(EndedBy.US, self._say_goodbye(error.reason), str(error), error.severity)

    def _close(self, by: EndedBy, reason: DisconnectReason | None, cause: str, severity: Severity = Severity.LOW) -> None:
        if self._requests is not None:
            for pending in self._requests.abandon():
                self._events.append(RequestFailed(pending.id, "session_ended", cause))
            self._requests = None
        self._queue.clear()
        self._events.append(Closed(by, reason, cause, self.stage, severity))
        self.stage = Stage.CLOSED
        self._due = self._range_due = math.inf
        self._initiator = None

    def _take_events(self) -> list[Event]:
        # Never the list that later events go to: who keeps an empty answer must not see them appear in it.
        events, self._events = self._events, []
        return events
