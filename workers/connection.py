"""The asyncio side of one session: bytes from the socket into it, its bytes to the socket, its deadline on the wheel."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol, cast

from rlpx.protocol.bus.control import SessionId, SessionStats
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.errors import printable
from rlpx.protocol.lifecycle import EndedBy
from rlpx.protocol.rlpx.crypto import Buffer
from rlpx.protocol.rlpx.host_port import format_host_port
from rlpx.protocol.session.conduct import BadMessages
from rlpx.protocol.session.events import Event, MessageSent
from rlpx.protocol.session.session import Session
from rlpx.protocol.settings import TimeoutSettings
from rlpx.workers.audience import Audience
from rlpx.workers.budget import Budget
from rlpx.workers.feed import Feed
from rlpx.workers.last_bytes import LastBytes
from rlpx.workers.peer_requests import PeerRequests
from rlpx.workers.stall import StallTimer

# Sealed bytes that may wait unsent: the rest waits in the session, where urgent messages pass the others.
WRITE_AHEAD_BYTES: Final = 256 * 1024
# The time that a connection may take without a pause, and the share of the worker's time that it earns while it is quiet.
# A connection that takes more waits for its turn (see `turns.py`).
BURST_SECONDS: Final = 0.0005
EARNED_SHARE: Final = 0.02
# The size of a read follows the cost of the peer's bytes, so that one read takes a slice of `turns.py`. The first read
# holds every packet of the handshake.
READ_SECONDS: Final = 0.0005
FIRST_READ_BYTES: Final = 4096
MIN_READ_BYTES: Final = 2048
MAX_READ_BYTES: Final = 256 * 1024
# A read that took longer, perhaps only because other processes had the core, shrinks the next one to no less than this
# fraction. The read after that follows the cost of the bytes again.
READ_SHRINKS_TO: Final = 1 / 4


class Host(Protocol):
    """What a connection needs of its worker."""

    timeouts: TimeoutSettings
    turn_due: float
    # The buffer of `MAX_READ_BYTES` into which all sockets are read; all connections share it, as nothing stays in it.
    buffer: memoryview
    budget: Budget
    # The readers of a session about which nothing is known yet.
    audience: Audience

    def relieve(self) -> None:
        """More bytes are in progress than the budget allows: end the session with the most."""

    def turn(self, now: float) -> None:
        """Do what is due by time: a loop that is busy with peers may not reach its timers."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next loop iteration."""

    def on_made(self, connection: Connection) -> None:
        """The socket is up; nothing has been read or written yet."""

    def defer(self, connection: Connection) -> None:
        """The connection has used its time: call `read_on` when its turn comes."""

    def on_room(self, connection: Connection) -> None:
        """Answers have left: parked requests may have their turn."""

    def on_events(self, connection: Connection, events: list[Event]) -> None:
        """Take the events of the session."""

    def on_announcements(self, connection: Connection, events: list[Event]) -> None:
        """Take announcements that left the session settled."""

    def on_sent(self, connection: Connection, sent: list[MessageSent]) -> None:
        """Messages to which somebody subscribed have left."""

    def on_deadline_moved(self, connection: Connection) -> None:
        """The deadline may be nearer than before."""

    def on_goodbye(self, connection: Connection) -> None:
        """The session is over; its socket stays until the peer has read the goodbye or time is up."""

    def on_gone(self, connection: Connection) -> None:
        """The socket is closed."""


class Connection(asyncio.BufferedProtocol):
    """One socket and its session. `deadline` is the session's, and after its end that of the goodbye.

    It is `Timed` for the wheel, a `Holder` for the budget, and `Deferred` for the read queue. It does not inherit from
    these protocols, because their attributes are slots here.
    """

    __slots__ = (
        "_charged_at",
        "_host",
        "_is_deferred",
        "_is_read_paused",
        "_is_saying_goodbye",
        "_is_write_scheduled",
        "_last_bytes",
        "_lost_cause",
        "_read_bytes",
        "_stall",
        "_transport",
        "allowance_seconds",
        "audience",
        "bad_messages",
        "booked_bytes",
        "bucket",
        "deadline",
        "deferred_at",
        "holders",
        "id",
        "is_opening_published",
        "local",
        "peer_hex",
        "requests",
        "session",
        "view",
    )

    def __init__(self, session_id: SessionId, session: Session, host: Host) -> None:
        self.id = session_id
        self.session = session
        self.deadline = session.deadline
        self.bucket: int | None = None
        # The peer's id in hex, because every event of the session repeats it.
        self.peer_hex: str | None = session.peer.hex() if session.peer else None
        self.local = ""
        # The session as users see it, until its end. They never see a goodbye to a peer that was refused.
        self.view: SessionView | None = None
        # The peer's unanswered requests; `None` until its first request.
        self.requests: PeerRequests | None = None
        # The bytes of the worker's budget that this connection holds.
        self.booked_bytes = 0
        # Whether the session's opening has been published.
        self.is_opening_published = False
        # Who reads its messages: anybody who might, until its session is established.
        self.audience = host.audience
        # The lossless feeds that hold it, if there are any: meanwhile nothing is read.
        self.holders: set[Feed] | None = None
        # The peer's recent misconduct; most peers have none.
        self.bad_messages: BadMessages | None = None
        self._host = host
        self._transport: asyncio.Transport | None = None
        # A timer that runs while writing is paused because the peer does not read what we wrote.
        self._stall: StallTimer | None = None
        self._is_write_scheduled = False
        # See `update_reading`.
        self._is_read_paused = False
        self._is_saying_goodbye = False
        # Set after a failed write, until the bytes that the peer sent before it have been read.
        self._last_bytes: LastBytes | None = None
        self._lost_cause = ""
        self._is_deferred = False
        # The time that it may still take, as of `_charged_at`; once that is used up, it waits, since `deferred_at`.
        self.allowance_seconds = BURST_SECONDS
        self._charged_at = 0.0
        self.deferred_at = math.inf
        self._read_bytes = FIRST_READ_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: an initiator's auth goes out."""
        self._transport = cast("asyncio.Transport", transport)
        # Below `WRITE_AHEAD_BYTES`: the transport calls `pause_writing` if the buffer is full, and `resume_writing` later.
        self._transport.set_write_buffer_limits(high=WRITE_AHEAD_BYTES - 1)
        self.local = _address(transport.get_extra_info("sockname"))
        self._host.on_made(self)
        self.drive([])

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature; the hint is always 64 KiB
        """Return the memory for the next read. libuv reads again while reads fill it and reading is not paused."""
        return self._host.buffer[: self._read_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes in the buffer, and fit the next read to what they cost."""
        size = self._read_bytes
        spent = self.data_received(self._host.buffer[:nbytes])
        if nbytes == size or spent > READ_SECONDS:
            fitting = int(nbytes * READ_SECONDS / spent) if spent else MAX_READ_BYTES
            smallest, largest = int(size * READ_SHRINKS_TO), 2 * size
            self._read_bytes = max(MIN_READ_BYTES, smallest, min(fitting, largest, MAX_READ_BYTES))

    def data_received(self, data: Buffer) -> float:
        """Take bytes of the peer, whose memory may be reused; returns the seconds that this took."""
        started = monotonic()
        session = self.session
        events = session.receive(data, now=started)
        if session.is_settled:
            if events:
                self._host.on_announcements(self, events)
            if self.booked_bytes:
                self.book()
        else:
            self.drive(events)
        now = monotonic()
        spent = now - started
        left = self.allowance_seconds
        if left < BURST_SECONDS:
            left = min(left + (started - self._charged_at) * EARNED_SHARE, BURST_SECONDS)
        self.allowance_seconds = left - spent
        self._charged_at = now
        if left < spent and not self._is_deferred:
            self._is_deferred = True
            self._host.defer(self)
            self.update_reading()
        if self._host.budget.is_over:
            self._host.relieve()
        if now >= self._host.turn_due:
            self._host.turn(now)
        return spent

    def read_on(self) -> None:
        """Read again: the turn of this connection has come."""
        self._is_deferred = False
        self._charged_at = monotonic()
        self.update_reading()

    def eof_received(self) -> bool:
        """The peer closed its side: the session is over, and the transport closes."""
        self.drive(self.session.connection_lost("the peer closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone, by an error or because we closed it.

        A write that fails closes the transport, although the kernel may still hold bytes that the peer sent before it
        left, such as its Disconnect. These are read first, so that the session ends by what the peer said.
        """
        self._lost_cause = f"the connection broke: {printable(str(exc))}" if exc else "the connection was closed"
        transport, self._transport = self._transport, None
        if exc is not None and transport is not None and not self.session.is_closed:
            self._last_bytes = LastBytes(transport)
        self._read_last_bytes()

    def _read_last_bytes(self) -> None:
        """Read one piece of the last bytes in each loop iteration, then end."""
        last_bytes, session = self._last_bytes, self.session
        data = b"" if last_bytes is None or session.is_closed else last_bytes.read()
        if data:
            self.drive(session.receive(data, now=monotonic()))
            self._host.call_soon(self._read_last_bytes)
            return
        if last_bytes is not None:
            last_bytes.close()
            self._last_bytes = None
        self.drive(session.connection_lost(self._lost_cause))
        self.deadline = math.inf
        self._host.on_gone(self)

    def pause_writing(self) -> None:
        """The peer reads slower than we write."""
        self._stall = StallTimer(self._unsent_bytes, self._host.timeouts.write_s, now=monotonic())
        self._rearm_deadline()
        self.book()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._stall = None
        self.drive([])

    def on_deadline(self, now: float) -> None:
        """Time is up for the session's stage, its ping, a peer that does not read, or the goodbye."""
        session, stall = self.session, self._stall
        if session.is_closed:
            self.abort()
        elif stall is None or now < stall.due or stall.renew(self._unsent_bytes, now=now):
            # If reading is paused, the pong may already be in the socket, so it is not late.
            self.drive(session.tick(now=now, is_read=not self._is_read_paused))
        else:
            cause = f"the peer read nothing for {self._host.timeouts.write_s:g} s"
            self._host.on_events(self, session.connection_lost(cause, by=EndedBy.US))
            self.abort()

    def drive(self, events: list[Event]) -> None:
        """Pass on events, write bytes and move the deadline. Call it after anything that was done to the session."""
        session = self.session
        if session.is_closed:
            # The goodbye is written first, so that the session's final statistics include it.
            self.write()
            if self.requests is not None:
                self.requests.drop_parked()
        if events:
            self._host.on_events(self, events)
        if session.has_sent:
            self._host.on_sent(self, session.take_sent())
        self.write()
        self.book()
        if self._transport is None:
            return
        if session.is_closed:
            self._begin_goodbye(self._transport)
        else:
            self.update_reading()
            self._rearm_deadline()

    def book(self) -> None:
        """Tell the budget how many bytes the session holds. Written bytes count while the peer does not read them."""
        session = self.session
        held = 0
        if not session.is_closed:
            held = session.held_bytes
            if self.requests is not None:
                held += self.requests.held_bytes
            if self._stall is not None:
                held += self._unsent_bytes
        if held != self.booked_bytes:
            self._host.budget.book(self, held)

    def write(self) -> None:
        """Write what the peer is likely to read soon; after the end, everything. A send needs no other call."""
        self.write_sealed(self.seal())

    def seal(self) -> bytes:
        """Seal what `write` would write. `write_sealed` must follow in the same loop iteration."""
        transport, session = self._transport, self.session
        if transport is None or not session.has_data_to_send or (self._stall is not None and not session.is_closed):
            return b""
        room_bytes = sys.maxsize if session.is_closed else WRITE_AHEAD_BYTES - transport.get_write_buffer_size()
        sealed = session.data_to_send(room_bytes)
        if session.has_sent:
            self._host.on_sent(self, session.take_sent())
        return sealed

    def write_sealed(self, sealed: bytes) -> None:
        """Write what `seal` returned, and arrange for what waits behind it."""
        if self._transport is None:
            return
        if sealed:
            self._transport.write(sealed)
        if self._stall is not None:
            self.book()
            return
        if self.session.has_data_to_send and not self._is_write_scheduled:
            # The transport writes at the end of this loop iteration. Then it either has room, or has called `pause_writing`.
            self._is_write_scheduled = True
            self._host.call_soon(self._write_on)
        requests = self.requests
        if requests is not None and requests.has_parked and not requests.is_turn_due:
            requests.is_turn_due = True
            self._host.on_room(self)

    def _write_on(self) -> None:
        self._is_write_scheduled = False
        self.drive([])

    def _rearm_deadline(self) -> None:
        deadline = self.session.deadline if self._stall is None else min(self.session.deadline, self._stall.due)
        is_nearer = deadline < self.deadline
        self.deadline = deadline
        if is_nearer:
            self._host.on_deadline_moved(self)

    def update_reading(self) -> None:
        """Pause reading while the session is held back, too many requests are parked, a lossless feed has no room, or the
        peer has used its time.
        """
        session, requests = self.session, self.requests
        is_held = session.is_held or self.holders is not None or (requests is not None and requests.has_too_many_parked)
        is_paused = self._is_deferred or (is_held and not session.is_closed)
        transport = self._transport
        if is_paused == self._is_read_paused or transport is None or transport.is_closing():
            return
        self._is_read_paused = is_paused
        if is_paused:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def hold(self, feed: Feed) -> None:
        """Read nothing until `release`: events of this connection cannot leave."""
        self.holders = self.holders or set()
        self.holders.add(feed)
        self.update_reading()

    def release(self, feed: Feed) -> None:
        """Read again, unless another feed holds it."""
        if self.holders is not None:
            self.holders.discard(feed)
            self.holders = self.holders or None
        self.update_reading()

    def abort(self) -> None:
        """Close the socket now, whatever is unsent."""
        if self._transport is not None:
            self._transport.abort()

    def stats(self) -> SessionStats:
        """The session's statistics so far."""
        session = self.session
        rtt = session.rtt_seconds
        return SessionStats(
            bytes_in=session.bytes_in,
            bytes_out=session.bytes_out,
            messages_in=session.messages_in,
            messages_out=session.messages_out,
            rtt_ms=None if rtt is None else round(rtt * 1000, 3),
            queued_bytes=self.queued_bytes,
        )

    @property
    def is_write_paused(self) -> bool:
        """Whether the peer does not read what we wrote."""
        return self._stall is not None

    @property
    def remote(self) -> str:
        """The peer's address; empty once the connection is gone."""
        return "" if self._transport is None else _address(self._transport.get_extra_info("peername"))

    @property
    def is_made(self) -> bool:
        """Whether there is a socket."""
        return self._transport is not None

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be sealed, or are written and not yet taken by the kernel."""
        return self.session.queued_bytes + self._unsent_bytes

    @property
    def _unsent_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def _begin_goodbye(self, transport: asyncio.Transport) -> None:
        """Let the peer read our goodbye: end our side, then wait for it to close (`rlpx.md`: 2 s).

        If bytes of the peer are still unread, closing at once would reset the connection, and the goodbye would be lost.
        """
        if self._is_saying_goodbye or transport.is_closing():
            return
        self._is_saying_goodbye = True
        self.deadline = monotonic() + self._host.timeouts.goodbye_s
        if transport.can_write_eof():
            transport.write_eof()
        self.update_reading()
        self._host.on_goodbye(self)
        self._host.on_deadline_moved(self)


def _address(name: tuple[str, int] | tuple[str, int, int, int] | None) -> str:
    """`host:port`, with brackets around an IPv6 host."""
    if not name:
        return ""
    # An IPv4 address on a dual-stack socket (RFC 4291) is written in its usual form.
    host, port = name[0].removeprefix("::ffff:") if "." in name[0] else name[0], name[1]
    return format_host_port(host, port)
