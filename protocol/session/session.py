"""One peer connection from first byte to end, without a socket and without a clock.

    session.receive(data, now=…)   takes bytes and returns events; it never raises because of what a peer sent
    session.tick(now=…)            lets time pass; call it when `deadline` is reached
    session.data_to_send()         returns bytes to write; call it after each of the others

Theory of operation. A session is in one stage at a time, and `stages.py` has the table of what moves it on:

    auth, ack   `Opening` reads one handshake packet. A peer that dialled us is answered with an ack. The frame cipher is
                made of the secrets, and our Hello leaves at once.
    hello       The first frame that opens proves the peer's id (`Authenticated`): the driver now asks for a verdict.
                The peer's Hello settles the base protocol's version and the capabilities that both sides share.
    status      Our Status leaves with the verdict, the peer's may come before. What other capabilities send before eth's
                Status is kept until the session is active.
    verdict     The peer's Status is fine and the verdict is missing: no further frame is opened.
    active      `Inbound` takes messages of capabilities, `OwnRequests` and `KeepAlive` have their deadlines.
    closed      Nothing follows but the bytes that are still to be written, a Disconnect if the peer could read one.

The messages of the base protocol that may come in a stage are the table `_ALLOWED`; absence from it is the error. The one
`except PeerError` is in `receive`: an error knows the Disconnect reason and the severity, and ends the session.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import ClassVar, Final

import msgspec

from rlpx.protocol.errors import (
    DisconnectReason,
    MessageError,
    NotSharedError,
    PeerError,
    Severity,
    TimeoutPeerError,
    UsageError,
    bounded,
    severity_of,
)
from rlpx.protocol.eth import eth
from rlpx.protocol.eth.kinds import MessageKind, MessageTable
from rlpx.protocol.eth.status import (
    RANGE_INTERVAL_SECONDS,
    RANGE_STEP_BLOCKS,
    Status,
    encode_block_range,
)
from rlpx.protocol.lifecycle import EndedBy, Stage
from rlpx.protocol.rlpx import p2p
from rlpx.protocol.rlpx.crypto import Buffer
from rlpx.protocol.rlpx.frames import FrameCipher
from rlpx.protocol.session.events import Alive, Authenticated, Closed, Established, Event, MessageReceived, MessageSent
from rlpx.protocol.session.inbound import SMALL_FRAME_BYTES, BlockRange, Inbound, check_base_size
from rlpx.protocol.session.keepalive import KeepAlive
from rlpx.protocol.session.negotiation import Greeted, Negotiated, greet
from rlpx.protocol.session.opening import Opening
from rlpx.protocol.session.own_requests import OwnRequests
from rlpx.protocol.session.requests import RequestId
from rlpx.protocol.session.send_queue import Rank
from rlpx.protocol.session.sender import Sender
from rlpx.protocol.session.sending import RANKS, Multicast, queued_message
from rlpx.protocol.session.setup import Setup
from rlpx.protocol.session.stages import FIRST_STAGES, TRANSITIONS, Move
from rlpx.protocol.session.tallies import Tallies

# A Status, a Disconnect, a ping: nothing longer is legal before the session is active.
MAX_PENDING_FRAME_BYTES: Final = 2048
# What other capabilities may send before eth's Status: buffered, and processed once the session is active.
MAX_EARLY_BYTES: Final = 64 * 1024
# A peer heard this lately is there: nothing that crashed is up again that soon.
HEARD_LATELY_SECONDS: Final = 1.0
# In these stages no further frame is opened.
_STOPS: Final = frozenset({Stage.VERDICT, Stage.CLOSED})
# In these stages the messages that left are reported.
_REPORTS_SENT: Final = frozenset({Stage.ACTIVE, Stage.CLOSED})


class Session:
    """See the module. Read-only for others: `stage`, `peer`, `hello`, `status`, `deadline` and the counters."""

    __slots__ = (
        "_chain",
        "_cipher",
        "_claimed",
        "_counted_in",
        "_due",
        "_early",
        "_early_bytes",
        "_events",
        "_greeted",
        "_heard_at",
        "_inbound",
        "_is_approved",
        "_keepalive",
        "_last_range",
        "_negotiated",
        "_node",
        "_now",
        "_opening",
        "_pending_due",
        "_queue",
        "_range_due",
        "_range_sent",
        "_refusal",
        "_requests",
        "_sender",
        "_stage_since",
        "_wall_seconds",
        "bytes_in",
        "direction",
        "hello",
        "is_settled",
        "peer",
        "stage",
        "status",
    )

    def __init__(self, setup: Setup, *, now: float) -> None:
        self.direction = setup.direction
        self._node = setup.node
        self._chain = setup.chain
        self._wall_seconds = setup.wall_seconds
        self._refusal = setup.refusal
        self._now = now
        self._heard_at = now
        # When the stage began, until the session is active.
        self._stage_since = now
        self._events: list[Event] = []
        self._sender = Sender(setup.node.interest, setup.node.queues.peer_write_bytes)
        self._queue = self._sender.queue
        self._keepalive = KeepAlive(self._sender, setup.timeouts, now=now)
        self._requests = OwnRequests()
        # There until the handshake is done.
        self._opening: Opening | None = Opening(setup.node, setup.peer)
        # Each of these is there from the stage that it is for until the end: `hello`, `status`, `verdict`, `active`.
        self._cipher: FrameCipher | None = None
        self._greeted: Greeted | None = None
        self._negotiated: Negotiated | None = None
        self._inbound: Inbound | None = None
        self._is_approved = False
        # Messages of other capabilities that came before eth's Status.
        self._early: list[bytes] = []
        self._early_bytes = 0
        # The id in the auth or ack, which the first frame will prove.
        self._claimed = b""
        # The dialled id; None for an inbound session until its id is proved.
        self.peer = setup.peer
        self.hello: p2p.Hello | None = None
        self.status: Status | None = None
        self._last_range: BlockRange | None = None
        self.is_settled = False
        self.bytes_in = 0
        # Messages that came, except those that `Inbound` counts as long as it is there.
        self._counted_in = 0
        # When a pending stage is overdue.
        self._due = now + setup.handshake_seconds
        self._pending_due = now + setup.pending_seconds
        # When our block range is due next, and the latest block that was announced to this peer.
        self._range_due = math.inf
        self._range_sent = setup.chain.head.number
        self.stage = FIRST_STAGES[setup.direction]
        if auth := self._opening.auth:
            self._sender.write(auth)

    # -- what the driver reads --------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether the session has ended: what is still to be written is a goodbye."""
        return self.stage is Stage.CLOSED

    @property
    def deadline(self) -> float:
        """When `tick` is due, on the clock of `now`."""
        keepalive, book = self._keepalive, self._requests.book
        due = min(self._due, self._range_due, keepalive.due, keepalive.pongs.due)
        return due if book is None else min(due, book.deadline)

    @property
    def is_held(self) -> bool:
        """Whether bytes wait for the verdict: the driver should not read more."""
        return self.stage is Stage.VERDICT

    @property
    def has_data_to_send(self) -> bool:
        """Whether `data_to_send` has anything to give."""
        return bool(self._sender.sealed or self._queue.bytes)

    @property
    def queued_bytes(self) -> int:
        """The size of the messages that wait to be sealed."""
        return self._queue.bytes

    @property
    def held_bytes(self) -> int:
        """What has arrived and is not whole or not looked at yet, and what waits to be sealed."""
        cipher = self._cipher
        reader = self._opening if cipher is None else cipher
        return (0 if reader is None else reader.buffered_bytes) + self._early_bytes + self._queue.bytes

    @property
    def queued_responses(self) -> int:
        """How many responses of ours wait to be sealed."""
        return self._queue.waiting(Rank.RESPONSE)

    @property
    def shared(self) -> MessageTable | None:
        """The message table of the shared capabilities, once the Hello is accepted."""
        return None if self._greeted is None else self._greeted.table

    @property
    def remote_range(self) -> BlockRange | None:
        """The peer's earliest and latest block and the latest hash, as it said last; None below eth/69."""
        return self._last_range if self._inbound is None else self._inbound.remote_range

    @property
    def rtt_seconds(self) -> float | None:
        """The latest round trip of a ping, if there was one."""
        return self._keepalive.rtt_seconds

    @property
    def messages_in(self) -> int:
        """Messages that came, those of the base protocol included."""
        count = self._counted_in
        if self._inbound is not None and self._cipher is not None:
            count += self._inbound.messages + self._cipher.counted
        return count

    @property
    def bytes_out(self) -> int:
        """Bytes that were given to be written."""
        return self._sender.bytes_out

    @property
    def messages_out(self) -> int:
        """Messages that were sealed."""
        return self._sender.messages_out

    # -- what the driver calls --------------------------------------------------------------------------------------------

    def receive(self, data: Buffer, *, now: float) -> list[Event]:
        """Take bytes as they came from the peer; return the events they caused, in order. The memory may be reused.

        It sets `is_settled`: whether these are announcements, and nothing but them and counters has come of the bytes. Then
        nothing is to be sent, no deadline has moved, and no byte of the peer's is held.
        """
        self.is_settled = False
        if self.stage is Stage.CLOSED:
            return []
        self._now = self._heard_at = now
        self.bytes_in += len(data)
        cipher, inbound = self._cipher, self._inbound
        try:
            if inbound is not None and cipher is not None:
                content = cipher.open(data)
                if content is not None:
                    inbound.is_settled = True
                    self._open_frames(cipher, chain((content,), cipher.frames()))
                    self.is_settled = inbound.is_settled and not cipher.buffered_bytes
                elif not cipher.buffered_bytes:
                    self.is_settled = True
                    return []
            elif cipher is not None:
                cipher.feed(bytes(data))
                self._open_frames(cipher, cipher.frames())
            elif (cipher := self._open(bytes(data))) is not None:
                self._open_frames(cipher, cipher.frames())
            if cipher is not None and cipher.buffered_bytes > SMALL_FRAME_BYTES:
                self._check_begun(cipher)
        except PeerError as error:
            self._fail(error)
        return self._take_events()

    def approve(self, *, now: float) -> list[Event]:
        """The verdict is yes: continue, and process what was held back."""
        if self.stage is Stage.CLOSED or self._is_approved:
            return []
        self._now = now
        self._is_approved = True
        if self._greeted is not None:
            self._send_status(self._greeted)
        if self._negotiated is not None:
            cipher = self._negotiated.cipher
            try:
                self._establish(self._negotiated)
                self._open_frames(cipher, cipher.frames())
            except PeerError as error:
                self._fail(error)
        return self._take_events()

    def tick(self, *, now: float, is_read: bool = True) -> list[Event]:
        """Let time pass; call it when `deadline` is reached.

        `is_read`: everything that had come from the peer by `now` was received. Otherwise no pong or answer is late.
        """
        if now < self.deadline or self.stage is Stage.CLOSED:
            return []
        self._now = now
        if is_read:
            self._requests.expire(self._events, now=now)
        if now >= self._range_due:
            self._announce_range()
        if now >= self._keepalive.pongs.due:
            self._keepalive.send_waiting_pongs(now=now)
        if now >= self._due:
            self._on_overdue()
        if now >= self._keepalive.due:
            cause = self._keepalive.tick(self._events, now=now, is_read=is_read)
            if cause is not None:
                self._close(EndedBy.US, self._say_goodbye(DisconnectReason.PING_TIMEOUT), cause)
        return self._take_events()

    def probe(self, *, now: float) -> list[Event]:
        """Ask an active peer whether it is there: `Alive` follows within `PROBE_SECONDS`, or the end."""
        if self.stage is Stage.CLOSED:
            return []
        if self.stage is not Stage.ACTIVE or now - self._heard_at < HEARD_LATELY_SECONDS:
            return [Alive()]
        self._now = now
        self._keepalive.probe(now=now)
        return []

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
            if by is EndedBy.NETWORK:
                cause += self._hint()
            self._close(by, None, cause, severity)
        return self._take_events()

    def data_to_send(self, room_bytes: int = sys.maxsize) -> bytes:
        """The bytes to write now, about `room_bytes` of them; the next call gives the next ones."""
        return self._sender.data_to_send(room_bytes)

    @property
    def has_sent(self) -> bool:
        """Whether `take_sent` has anything. Our Status leaves before a session is established and is reported after."""
        return bool(self._sender.sent) and self.stage in _REPORTS_SENT

    def take_sent(self) -> list[MessageSent]:
        """The messages that have left since the last call, of those whose taps are read."""
        return self._sender.take_sent()

    def read_for(self, interest: Mapping[str, object], tallies: Tallies | None = None) -> None:
        """Set what is read from now on: a topic whose value is false is neither inflated nor reported.

        Messages of such topics are left to `tallies`, if there are any: see `LocalNode`.
        """
        self._sender.read_for(interest)
        if self._inbound is not None and self._cipher is not None:
            self._inbound.read_for(interest, tallies)
            self._cipher.tally = self._inbound.tally

    # -- what users send --------------------------------------------------------------------------------------------------

    def send(self, capability: str, message_id: int, payload: bytes) -> MessageKind:
        """Send an RLP payload as one message of a shared capability; returns which message that is.

        Raises `NotSharedError`, `QueueFullError`, `UsageError`.
        """
        return self.send_deflated(capability, message_id, payload, None)

    def send_deflated(self, capability: str, message_id: int, payload: bytes, body: bytes | None) -> MessageKind:
        """As `send`; `body` is the payload if the caller has deflated it already."""
        kind = self._sendable_table().find(capability, message_id)
        rank = RANKS[kind.role]
        self._queue.put(rank, queued_message(rank, kind, payload, body))
        if kind.answer is not None:
            self._requests.count_raw()
        return kind

    def send_multicast(self, message: Multicast) -> MessageKind:
        """As `send`, for a message that goes to other sessions as well."""
        kind, rank, sent = message.of(self._sendable_table())
        self._queue.put(rank, sent)
        if kind.answer is not None:
            self._requests.count_raw()
        return kind

    def request(self, capability: str, message_id: int, payload: bytes, *, now: float) -> RequestId:
        """Send a request under an id of ours in place of the payload's own; `Answered` or `RequestFailed` follows, once.

        Raises `NotSharedError`, `QueueFullError`, and `UsageError` if the message is no request.
        """
        kind = self._sendable_table().find(capability, message_id)
        request_id, payload = self._requests.begin(kind, payload, now=now)
        try:
            self._queue.put(Rank.REQUEST, queued_message(Rank.REQUEST, kind, payload))
        except UsageError:
            self._requests.forget(request_id)
            raise
        return request_id

    def kind(self, capability: str, message_id: int) -> MessageKind:
        """The message of a shared capability. Raises `NotSharedError`."""
        return self._sendable_table().find(capability, message_id)

    def cancel(self, request_id: RequestId) -> None:
        """The caller of a request has gone: no event follows, and a late answer is not counted as misconduct."""
        self._requests.cancel(request_id)

    def answer(self, request: MessageReceived, payload: bytes) -> MessageKind | None:
        """Send the response to a request of the peer; does nothing once the session has ended. Raises `UsageError`."""
        if self.stage is not Stage.ACTIVE or request.kind.answer is None:
            return None
        kind = self._sendable_table().find(request.kind.capability.name, request.kind.answer)
        self._queue.put_unbounded(Rank.RESPONSE, queued_message(Rank.RESPONSE, kind, payload))
        return kind

    # -- the handshake ----------------------------------------------------------------------------------------------------

    def _open(self, data: bytes) -> FrameCipher | None:
        """Take bytes of the handshake; returns the frame cipher once there is one and the session goes on."""
        opened = self._opening.receive(data, now=self._now) if self._opening is not None else None
        if opened is None:
            return None
        self._opening = None
        if opened.ack:
            self._sender.write(opened.ack)
        self._claimed = opened.peer
        cipher = self._cipher = FrameCipher(opened.secrets)
        self._sender.open(cipher)
        self._move(Move.AUTH if opened.ack else Move.ACK)
        self._due = self._pending_due
        if self._refusal is not None:
            self._close(EndedBy.US, self._say_goodbye(self._refusal), "refused before Hello")
            return None
        self._sender.send_hello(cipher, self._node.hello)
        cipher.feed(opened.rest)
        return cipher

    # -- frames -----------------------------------------------------------------------------------------------------------

    def _open_frames(self, cipher: FrameCipher, frames: Iterator[bytes]) -> None:
        """Take every whole frame that has arrived, as long as the stage allows."""
        if self.stage in _STOPS:
            return
        while True:
            inbound = self._inbound
            content = next(frames, None) if inbound is None else inbound.take(frames, self._events, self._now)
            if content is None:
                return
            self._counted_in += 1
            if inbound is not None:
                inbound.is_settled = False
            self._on_other(cipher, content)
            if self.stage in _STOPS:
                return

    def _check_begun(self, cipher: FrameCipher) -> None:
        """A large message that has arrived in part is refused as soon as its beginning is reason enough."""
        inbound, begun = self._inbound, cipher.begun
        if inbound is not None and begun is not None:
            inbound.check_begun(*begun)

    def _on_other(self, cipher: FrameCipher, content: bytes) -> None:
        """Everything but a capability's message on an active session."""
        if self.stage is Stage.HELLO:
            # Only who has the key can make a frame whose MAC is right: an auth or ack alone proves nothing, as any
            # signature recovers to some ephemeral key. Until here the id is a claim, and no place is given to it.
            self.peer = self._claimed
            self._events.append(Authenticated(self._claimed))
        if not content:
            raise MessageError("an empty frame")
        code = content[0]
        if self.stage is Stage.ACTIVE:
            check_base_size(code, len(content))
        handler = self._ALLOWED[self.stage].get(code)
        if handler is not None:
            if self._greeted is not None:
                self._greeted.table.count_in(code, 1, len(content))
            handler(self, cipher, content[1:])
        elif self._greeted is not None and code == self._greeted.status_code:
            self._greeted.table.count_in(code, 1, len(content))
            self._on_status(cipher, self._greeted, content[1:])
        elif self._greeted is not None and self._greeted.table.is_of_others(code):
            self._keep_early(content)
        else:
            raise MessageError(f"message code 0x{code:02x}, which may not come at {self.stage}")

    def _on_hello(self, cipher: FrameCipher, payload: bytes) -> None:
        hello = self.hello = p2p.Hello.decode(payload)
        # A peer of version 4 is refused in a form that it can read.
        self._sender.on_hello(hello.version)
        hello.check(self._claimed)
        # One copy of the id for as long as the session lasts.
        hello = self.hello = msgspec.structs.replace(hello, node_id=self._claimed)
        greeted = self._greeted = greet(hello, self._node)
        self._sender.share(greeted.table)
        # The Hellos, which came before there was a table.
        greeted.table.count_in(p2p.HELLO_BYTE, 1, 1 + len(payload))
        greeted.table.count_out(p2p.HELLO_BYTE, 1, 1 + len(self._node.hello))
        self._move(Move.HELLO)
        cipher.limit_bytes = MAX_PENDING_FRAME_BYTES
        if self._is_approved:
            self._send_status(greeted)

    def _send_status(self, greeted: Greeted) -> None:
        """Ours leaves with the verdict: a peer that is refused never takes the session for established."""
        self._queue.put_unbounded(Rank.CONTROL, greeted.own_status(self._chain, self._wall_seconds))

    def _keep_early(self, content: bytes) -> None:
        """Other capabilities begin when they like (`rlpx.md`): what they send before the eth Status waits for it."""
        self._early_bytes += len(content)
        if self._early_bytes > MAX_EARLY_BYTES:
            raise MessageError(f"over {MAX_EARLY_BYTES} bytes of other capabilities before the eth Status")
        self._early.append(content)

    def _on_status(self, cipher: FrameCipher, greeted: Greeted, payload: bytes) -> None:
        status = greeted.read_status(payload, self._chain, self._wall_seconds)
        self.status = status
        if status.earliest is not None and status.latest is not None:
            self._last_range = (status.earliest, status.latest, status.head)
        self._negotiated = Negotiated(cipher, greeted, status)
        self._move(Move.STATUS)
        if self._is_approved:
            self._establish(self._negotiated)

    def _establish(self, negotiated: Negotiated) -> None:
        """Status and verdict are there: the session is active."""
        self._move(Move.VERDICT)
        hello, table = negotiated.greeted.hello, negotiated.greeted.table
        self._due = math.inf
        self._keepalive.start(now=self._now)
        negotiated.cipher.limit_bytes = max(table.frame_limit_bytes, SMALL_FRAME_BYTES)
        if table.has_ranges:
            self._range_due = self._now + RANGE_INTERVAL_SECONDS
        inbound = self._inbound = Inbound(table, self._node, self._requests, refuses_blocks=self._chain.refuses_blocks)
        inbound.remote_range = self._last_range
        self._events.append(Established(hello, table.shared, negotiated.status))
        self._negotiated = None
        early, self._early = self._early, []
        self._early_bytes = 0
        # They were counted when they came.
        self._counted_in -= len(early)
        inbound.take(iter(early), self._events, self._now)
        negotiated.cipher.tally = inbound.tally

    def _on_disconnect(self, _cipher: FrameCipher, payload: bytes) -> None:
        self._end_by_peer(p2p.decode_disconnect(payload))

    def _end_by_peer(self, goodbye: p2p.Disconnect) -> None:
        self._close(EndedBy.PEER, goodbye.reason, goodbye.cause, severity_of(goodbye.reason))

    def _on_ping(self, _cipher: FrameCipher, payload: bytes) -> None:
        self._keepalive.on_ping(payload, now=self._now)

    def _on_pong(self, _cipher: FrameCipher, payload: bytes) -> None:
        self._keepalive.on_pong(payload, self._events, now=self._now)

    def _on_reserved(self, _cipher: FrameCipher, _payload: bytes) -> None:
        """A code that the base protocol does not use: ignored, as in geth; many are a breach."""
        self._keepalive.on_ignored(now=self._now)

    _PINGS: ClassVar[dict[int, Callable[[Session, FrameCipher, bytes], None]]] = {
        p2p.PING_CODE: _on_ping,
        p2p.PONG_CODE: _on_pong,
        **dict.fromkeys(p2p.RESERVED_CODES, _on_reserved),
    }
    # What of the base protocol may come in which stage, by the code's byte. Absence is the error.
    _ALLOWED: ClassVar[dict[Stage, dict[int, Callable[[Session, FrameCipher, bytes], None]]]] = {
        Stage.HELLO: {p2p.HELLO_BYTE: _on_hello, p2p.DISCONNECT_CODE: _on_disconnect},
        Stage.STATUS: {p2p.DISCONNECT_CODE: _on_disconnect, **_PINGS},
        Stage.ACTIVE: {p2p.DISCONNECT_CODE: _on_disconnect, **_PINGS},
    }

    # -- time and ends ----------------------------------------------------------------------------------------------------

    def _on_overdue(self) -> None:
        """A pending stage has taken too long."""
        if self.stage is Stage.VERDICT:
            self._close(EndedBy.ENGINE, self._say_goodbye(DisconnectReason.TOO_MANY_PEERS), "no verdict came in time")
        else:
            self._fail(TimeoutPeerError(f"the peer took too long at {self.stage}{self._hint()}"))

    def _announce_range(self) -> None:
        """Send our block range if it is known and has moved far enough since the last announcement."""
        self._range_due = self._now + RANGE_INTERVAL_SECONDS
        head = self._node.range.head
        if head is not None and head.number >= self._range_sent + RANGE_STEP_BLOCKS:
            self._range_sent = head.number
            kind = self._sendable_table().find(eth.NAME, eth.BLOCK_RANGE_UPDATE_ID)
            self._queue.put_unbounded(Rank.CONTROL, queued_message(Rank.CONTROL, kind, encode_block_range(head)))

    def _sendable_table(self) -> MessageTable:
        """The messages that may be sent now. Raises `NotSharedError` if the session is not active."""
        if self._inbound is None:
            raise NotSharedError(f"the session is not active but at {self.stage}")
        return self._inbound.table

    def _hint(self) -> str:
        """What may lie behind an end before the other side has said anything that we understand."""
        return "" if self._opening is None else self._opening.hint(self.bytes_in)

    def _say_goodbye(self, reason: DisconnectReason | None) -> DisconnectReason | None:
        """Send a Disconnect if the peer can read one; returns the reason that was actually sent."""
        if reason is None or self._cipher is None:
            return None
        self._sender.send_base(p2p.DISCONNECT_CODE, p2p.encode_disconnect(reason))
        return reason

    def _fail(self, error: PeerError) -> None:
        self._close(EndedBy.US, self._say_goodbye(error.reason), str(error), error.severity)

    def _close(self, by: EndedBy, reason: DisconnectReason | None, cause: str, severity: Severity = Severity.LOW) -> None:
        """The single exit path: report the end, and keep nothing but the goodbye, sealed, and the counters."""
        self._requests.abandon(cause, self._events)
        self._events.append(Closed(by, reason, bounded(cause), self.stage, severity))
        self._sender.close()
        if self._opening is not None:
            self._opening.close()
            self._opening = None
        self._keepalive.stop()
        self._due = self._range_due = math.inf
        self._last_range = self.remote_range
        self._counted_in = self.messages_in
        self._cipher = self._negotiated = self._inbound = None
        self._early = []
        self._early_bytes = 0
        self._move(Move.END)

    def _move(self, move: Move) -> None:
        if move is not Move.END and self._refusal is None:
            self._node.on_passed(self.direction, self.stage, self._now - self._stage_since)
            self._stage_since = self._now
        self.stage = TRANSITIONS[self.stage, move]

    def _take_events(self) -> list[Event]:
        # Never the list that later events go to: a caller that keeps an empty answer must not see them appear in it.
        events, self._events = self._events, []
        return events
