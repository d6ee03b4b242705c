"""The asyncio side of one session: bytes from the socket into it, its bytes to the socket, its deadline on the wheel."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol, cast

from protocol.control import SessionId, Traffic
from protocol.errors import printable
from protocol.events import EndedBy, Event, MessageReceived
from protocol.session import Session

# What may be sealed and unsent at a time: the rest waits in the session, where what is urgent passes what is not.
WRITE_AHEAD_BYTES: Final = 256 * 1024
# Requests of one peer that wait to be looked at, and their bytes; what is over stays in its socket, pings as well.
MOST_PARKED: Final = 64
MOST_PARKED_BYTES: Final = 256 * 1024


class Host(Protocol):
    """What a connection needs of its worker."""

    goodbye_seconds: float
    write_seconds: float
    turn_due: float

    def turn(self, now: float) -> None:
        """Do what is due by time: a loop that is busy with peers may not get to its timers."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back with the next turn of the loop."""

    def on_room(self, connection: Connection) -> None:
        """Responses have left: parked requests may have their turn."""

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
        "_host",
        "_is_choked",
        "_is_leaving",
        "_is_paused",
        "_is_waiting",
        "_is_writing_on",
        "_parked_bytes",
        "_stalled_at",
        "_transport",
        "_unread_bytes",
        "bucket",
        "deadline",
        "id",
        "is_served_soon",
        "local",
        "misconduct",
        "parked",
        "peer_hex",
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
        self.local = ""
        # Requests of the peer that responders have and have not answered.
        self.waiting_requests = 0
        # And those that came with them and wait for their turn.
        self.parked: list[MessageReceived] = []
        self._parked_bytes = 0
        # They have their turn with the next one of the loop.
        self.is_served_soon = False
        # How often the peer sent what nobody asked for, and the like.
        self.misconduct = 0
        self._host = host
        self._transport: asyncio.Transport | None = None
        # The peer does not read what we wrote; by then it has to have read some of what was unread.
        self._is_choked = False
        self._unread_bytes = 0
        self._stalled_at = math.inf
        self._is_writing_on = False
        # Reading is paused while the session is held back or too many of its requests wait.
        self._is_paused = False
        self._is_leaving = False
        self._is_waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: an initiator's auth goes out."""
        self._transport = cast("asyncio.Transport", transport)
        # Below what is written ahead: a buffer that has no room is one that says so, and later that it has.
        self._transport.set_write_buffer_limits(high=WRITE_AHEAD_BYTES - 1)
        self.local = _address(transport.get_extra_info("sockname"))
        self.drive([])

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer."""
        now = monotonic()
        self.drive(self.session.receive(data, now=now))
        if now >= self._host.turn_due:
            self._host.turn(now)

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
        self._unread_bytes = sys.maxsize
        self._await_reading(monotonic())
        self._heed_deadline()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._is_choked = False
        self._stalled_at = math.inf
        self.drive([])

    def on_deadline(self, now: float) -> None:
        """Time is up for the session's stage, its ping, a peer that does not read, or the goodbye."""
        session = self.session
        if session.is_closed:
            self.abort()
        elif now < self._stalled_at or self._await_reading(now):
            self.drive(session.tick(now=now))
        else:
            cause = f"the peer read nothing for {self._host.write_seconds:g} s"
            self._host.on_events(self, session.connection_lost(cause, by=EndedBy.US))
            self.abort()

    def _await_reading(self, now: float) -> bool:
        """Give the peer time to read on, if it has read anything since it was last given some."""
        unread, before = self._unsent_bytes, self._unread_bytes
        self._unread_bytes = unread
        self._stalled_at = now + self._host.write_seconds
        return unread < before

    def drive(self, events: list[Event]) -> None:
        """After anything that was done to the session: pass its events on, write its bytes, heed its deadline."""
        session = self.session
        if session.is_closed:
            # The goodbye first, so that the figures of the end count it.
            self.write()
        if events:
            self._host.on_events(self, events)
        self.write()
        if self._transport is None:
            return
        if session.is_closed:
            self._begin_goodbye(self._transport)
        else:
            self._heed_pauses()
            self._heed_deadline()

    def write(self) -> None:
        """Write what the peer is likely to read soon, and after an end all that is left. A send needs no more than this."""
        self.write_sealed(self.seal())

    def seal(self) -> bytes:
        """Seal what `write` would write: `write_sealed` has to follow in the same turn of the loop."""
        transport, session = self._transport, self.session
        if transport is None or not session.has_outgoing or (self._is_choked and not session.is_closed):
            return b""
        room_bytes = sys.maxsize if session.is_closed else WRITE_AHEAD_BYTES - transport.get_write_buffer_size()
        return session.outgoing(room_bytes)

    def write_sealed(self, sealed: bytes) -> None:
        """Write what `seal` gave, and see to what waits behind it."""
        if self._transport is None:
            return
        if sealed:
            self._transport.write(sealed)
        if self._is_choked:
            return
        if self.session.has_outgoing and not self._is_writing_on:
            # The transport writes at the end of this turn: then it either has room or says that it has none.
            self._is_writing_on = True
            self._host.call_soon(self._write_on)
        if self.parked and not self.is_served_soon:
            self.is_served_soon = True
            self._host.on_room(self)

    def _write_on(self) -> None:
        self._is_writing_on = False
        self.drive([])

    def _heed_deadline(self) -> None:
        deadline = min(self.session.deadline, self._stalled_at)
        is_nearer = deadline < self.deadline
        self.deadline = deadline
        if is_nearer:
            self._host.on_deadline_moved(self)

    def park(self, request: MessageReceived) -> None:
        """Let a request of the peer wait for its turn. While many do, nothing more is read; until then pings are."""
        self.parked.append(request)
        self._parked_bytes += len(request.payload)
        self._heed_parked()

    def unpark(self) -> MessageReceived:
        """The request whose turn it is."""
        request = self.parked.pop(0)
        self._parked_bytes -= len(request.payload)
        self._heed_parked()
        return request

    def _heed_parked(self) -> None:
        self._is_waiting = len(self.parked) > MOST_PARKED or self._parked_bytes > MOST_PARKED_BYTES
        self._heed_pauses()

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
    def remote(self) -> str:
        """The peer's address; empty once the connection is gone."""
        return "" if self._transport is None else _address(self._transport.get_extra_info("peername"))

    @property
    def is_made(self) -> bool:
        """Whether there is a socket."""
        return self._transport is not None

    @property
    def queued_bytes(self) -> int:
        """How much waits to be sealed, or is written and not yet taken by the kernel."""
        return self.session.queued_bytes + self._unsent_bytes

    @property
    def _unsent_bytes(self) -> int:
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
        is_paused = (session.is_held or self._is_waiting) and not session.is_closed
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
