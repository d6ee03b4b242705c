"""The asyncio side of one session: bytes from the socket into it, its bytes to the socket, its deadline on the wheel."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from time import monotonic
from typing import Final, Protocol, cast

from protocol.control import SessionId, Traffic
from protocol.errors import printable
from protocol.events import EndedBy, Event, MessageReceived
from protocol.session import Session

# Above this much unsent the peer's requests are not read either: answering a slow reader fills memory.
PAUSE_READING_BYTES: Final = 256 * 1024


class Host(Protocol):
    """What a connection needs of its worker."""

    goodbye_seconds: float
    write_queue_bytes: int

    def on_events(self, connection: Connection, events: list[Event]) -> None:
        """Take what the session told."""

    def on_deadline_moved(self, connection: Connection) -> None:
        """The deadline may be nearer than before."""

    def on_goodbye(self, connection: Connection) -> None:
        """The session is over; its socket stays until the peer has read the goodbye or time is up."""

    def on_gone(self, connection: Connection) -> None:
        """The socket is closed."""


class Connection(asyncio.Protocol):
    """One socket and its session. `deadline` is the session's, and after its end that of the goodbye."""

    __slots__ = (
        "_excepted_bytes",
        "_host",
        "_is_choked",
        "_is_leaving",
        "_is_paused",
        "_is_waiting",
        "_transport",
        "bucket",
        "deadline",
        "id",
        "local",
        "misconduct",
        "parked",
        "peer_hex",
        "remote",
        "session",
        "waiting_requests",
    )

    def __init__(self, session_id: SessionId, session: Session, host: Host) -> None:
        self.id = session_id
        self.session = session
        self.deadline = session.deadline
        self.bucket: int | None = None
        # The id in hex, as every event of the session repeats it.
        self.peer_hex: str | None = session.peer.hex() if session.peer else None
        self.local = self.remote = ""
        # Requests of the peer that responders have and have not answered.
        self.waiting_requests = 0
        # And those that came with them and wait for their turn.
        self.parked: deque[MessageReceived] = deque()
        # How often the peer sent what nobody asked for, and the like.
        self.misconduct = 0
        self._host = host
        self._transport: asyncio.Transport | None = None
        # Reading is paused while the session is held back or the peer does not read what we wrote.
        self._is_choked = False
        self._is_paused = False
        self._is_leaving = False
        self._is_waiting = False
        self._excepted_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: an initiator's auth goes out."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=PAUSE_READING_BYTES)
        self.local = _address(transport.get_extra_info("sockname"))
        self.remote = _address(transport.get_extra_info("peername"))
        self.drive([])

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer."""
        self.drive(self.session.receive(data, now=monotonic()))

    def eof_received(self) -> bool:
        """The peer closed its side: the session is over, and the transport closes."""
        self.drive(self.session.connection_lost("the peer closed the connection"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone, by an error or because we closed it."""
        cause = f"the connection broke: {printable(str(exc))}" if exc else "the connection was closed"
        self._transport = None
        self.drive(self.session.connection_lost(cause))
        self.deadline = math.inf
        self._host.on_gone(self)

    def pause_writing(self) -> None:
        """The peer reads slower than we write."""
        self._is_choked = True
        self._heed_pauses()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._is_choked = False
        self._heed_pauses()

    def on_deadline(self, now: float) -> None:
        """Time is up for the session's stage, its ping, or the goodbye."""
        if self.session.is_closed:
            self.abort()
        else:
            self.drive(self.session.tick(now=now))

    def drive(self, events: list[Event]) -> None:
        """After anything that was done to the session: pass its events on, write its bytes, heed its deadline."""
        session = self.session
        if events:
            self._host.on_events(self, events)
        transport = self._transport
        if transport is None:
            return
        data = session.outgoing()
        if data:
            queued = transport.get_write_buffer_size()
            limit = self._host.write_queue_bytes
            if queued > limit + self._excepted_bytes and not session.is_closed:
                lost = session.connection_lost(f"the peer left {queued} bytes unread", by=EndedBy.US)
                self._host.on_events(self, lost)
                self.abort()
                return
            if queued <= limit:
                # One large message may pass the limit; while it drains, pings and the like do not count against it.
                self._excepted_bytes = max(0, queued + len(data) - limit)
            transport.write(data)
        if session.is_closed:
            self._begin_goodbye(transport)
        else:
            self._heed_pauses()
            if session.deadline < self.deadline:
                self.deadline = session.deadline
                self._host.on_deadline_moved(self)
            else:
                self.deadline = session.deadline

    def hold_requests(self, *, is_held: bool) -> None:
        """Read no further while too many of its requests wait for answers."""
        self._is_waiting = is_held
        self._heed_pauses()

    def expect_answer(self, size: int) -> None:
        """An answer of so many bytes is about to be written: it may wait for a slow reader, that is not its fault.

        Bounded by the requests that wait at a time, and no more are read while much is unsent.
        """
        self._excepted_bytes += size

    def abort(self) -> None:
        """Close the socket now, whatever is unsent."""
        if self._transport is not None:
            self._transport.abort()

    def traffic(self) -> Traffic:
        """The session's running figures."""
        session = self.session
        rtt = session.rtt_seconds
        return Traffic(
            bytes_in=session.bytes_in,
            bytes_out=session.bytes_out,
            messages_in=session.messages_in,
            messages_out=session.messages_out,
            rtt_ms=None if rtt is None else round(rtt * 1000, 3),
            queued_bytes=self.queued_bytes,
        )

    @property
    def is_made(self) -> bool:
        """Whether there is a socket."""
        return self._transport is not None

    @property
    def queued_bytes(self) -> int:
        """How much is written and not yet taken by the kernel."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def _begin_goodbye(self, transport: asyncio.Transport) -> None:
        """Let the peer read our goodbye: end our side, then wait for it to close (`rlpx.md`: 2 s).

        Closing at once would reset the connection where bytes of the peer are still unread, and with it lose the goodbye.
        """
        if self._is_leaving or transport.is_closing():
            return
        self._is_leaving = True
        self.deadline = monotonic() + self._host.goodbye_seconds
        if transport.can_write_eof():
            transport.write_eof()
        self._heed_pauses()
        self._host.on_goodbye(self)
        self._host.on_deadline_moved(self)

    def _heed_pauses(self) -> None:
        session = self.session
        is_paused = (session.is_held or self._is_choked or self._is_waiting) and not session.is_closed
        transport = self._transport
        if is_paused == self._is_paused or transport is None or transport.is_closing():
            return
        self._is_paused = is_paused
        if is_paused:
            transport.pause_reading()
        else:
            transport.resume_reading()


def _address(name: tuple[str, int] | tuple[str, int, int, int] | None) -> str:
    """`host:port`, with brackets around an IPv6 host."""
    if not name:
        return ""
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
