"""One user's connection to an endpoint: its handshake, its messages, and the queue of messages to it.

It is an asyncio protocol around `zmtp.ServerConnection`. It knows no commands and no topics; its owner does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.clockwork import Clockwork, Timer, Transport
from rlpx.protocol.bus.turns import ReadTurns
from rlpx.protocol.bus.zmtp import Cancelled, Event, Kind, Mechanism, Message, Ready, ServerConnection, Subscribed, Wire

# libzmq's own deadline is 30 s. A program on the same machine needs some milliseconds, one across the world a second.
HANDSHAKE_SECONDS: Final = 10.0
# The most frames of one user to handle before the next user's, and the time after which no more are begun.
FRAMES_AT_ONCE: Final = 32
SERVE_SECONDS: Final = 0.0005
# If a user's queue has exceeded this, `on_room` is called once it is empty.
HIGH_WATER_BYTES: Final = 64 * 1024
# While a user's queue is above the high water, the answers to its pings are collected, up to this size. They leave with the
# next message, or when the queue is empty. Each written by itself would cost some ten times its seven bytes of memory.
ANSWERS_BYTES: Final = 64 * 1024
# The time for the queue to leave after a user's mistake, or when we end.
LINGER_SECONDS: Final = 1.0


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one endpoint: connections, bytes queued for one user and for all, unfinished bytes from all of them."""

    links: int
    queue_bytes: int
    total_queue_bytes: int
    total_received_bytes: int
    zmtp: zmtp.Limits


class Owner(Protocol):
    """The owner of an endpoint. It may close links from within any of these methods."""

    def on_ready(self, link: Link) -> None:
        """A user is connected."""

    def on_subscribed(self, link: Link, prefix: bytes) -> None:
        """The user has subscribed to a prefix; `link.prefixes` contains it already."""

    def on_cancelled(self, link: Link, prefix: bytes) -> None:
        """The user has cancelled a prefix; `link.prefixes` does not contain it any more."""

    def on_message(self, link: Link, frames: list[bytes]) -> None:
        """A whole message of a ROUTER's user."""

    def on_room(self, link: Link) -> None:
        """The queue of this user is empty again, after it exceeded `HIGH_WATER_BYTES`."""

    def on_gone(self, link: Link) -> None:
        """A user that was ready is gone; `link.cause` says why if we ended it. `link.prefixes` is as it was."""

    def on_refused(self, remote: str, cause: str, times: int) -> None:
        """Connections were refused before they were ready, or could not be accepted; `times` since the last call."""


class LinkHost(Protocol):
    """The part of an endpoint that a link uses."""

    kind: Kind
    owner: Owner
    limits: Limits
    clockwork: Clockwork
    turns: ReadTurns

    def has_queue_room(self, queued: int, more: int) -> bool:
        """Whether a user with `queued` waiting bytes may be queued `more`."""

    def count_queue(self, link: Link, queued: int) -> None:
        """Set the link's part of the sum of all queues."""

    def count_received(self, link: Link, held: int) -> None:
        """Set the link's part of the sum of unfinished bytes."""

    def refuse(self, remote: str, cause: str) -> None:
        """Report a refused connection to the owner."""

    def on_link_ready(self, link: Link) -> None:
        """The link's handshake is done."""

    def on_data(self, link: Link, held_bytes: int) -> None:
        """The link has received something; `held_bytes` of it are unfinished."""

    def forget(self, link: Link) -> None:
        """The link is gone."""


class Link:
    """See the module. The first section is for the owner, the second for the endpoint and its turns."""

    def __init__(self, host: LinkHost, number: int, remote: str, mechanism: Mechanism) -> None:
        self._host = host
        self.number = number
        self.remote = remote
        # The owner may keep anything here.
        self.owner_state: Any = None
        # Why it ended, if we ended it.
        self.cause: str | None = None
        self.socket_type = ""
        # The numbers of offered messages that were refused, and that were taken.
        self.refused_messages = 0
        self.sent_messages = 0
        self._zmtp = ServerConnection(host.kind, host.limits.zmtp, mechanism)
        self._transport: Transport | None = None
        self._timer: Timer | None = None
        self._is_held = False
        # The queue has exceeded the high water; its bytes are counted until it is empty.
        self._is_full = False
        self.is_waiting = False
        self.is_adopted = False
        # This link's parts of the endpoint's sums.
        self.counted_queue_bytes = 0
        self.counted_received_bytes = 0

    @property
    def prefixes(self) -> set[bytes]:
        """The prefixes that it has subscribed to."""
        return self._zmtp.prefixes

    @property
    def user(self) -> str | None:
        """The owner's name of the key that it has proved to have."""
        return self._zmtp.user

    @property
    def is_ready(self) -> bool:
        """Whether the handshake is done."""
        return self._zmtp.is_ready

    @property
    def is_closing(self) -> bool:
        """Whether nothing more can be sent to it."""
        return self._transport is None or self._transport.is_closing()

    @property
    def queued_bytes(self) -> int:
        """The number of bytes that wait for it to read."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def offer(self, wire: Wire) -> bool:
        """Queue a message made by `zmtp.encode`, or refuse it whole. An empty queue takes any one message."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        queued = transport.get_write_buffer_size()
        if queued and not self._host.has_queue_room(queued, len(wire)):
            self.refused_messages += 1
            return False
        self._write(transport, wire)
        return True

    def offer_parts(self, parts: Sequence[Wire]) -> bool:
        """As `offer`, for a message in parts, which are not copied unless they must be encrypted."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        queued = transport.get_write_buffer_size()
        if queued and not self._host.has_queue_room(queued, sum(map(len, parts))):
            self.refused_messages += 1
            return False
        self.sent_messages += 1
        self._write_answers(transport)
        transport.writelines(self._zmtp.seal_parts(parts))
        if self._is_full:
            self._host.count_queue(self, transport.get_write_buffer_size())
        return True

    def append(self, wire: Wire) -> None:
        """Queue a message regardless of the limit; callers use this for the few small messages when they end."""
        if self._transport is not None and not self._transport.is_closing():
            self._write(self._transport, wire)

    def hold(self) -> None:
        """Read nothing more until `release`: this user has as many messages in progress as allowed."""
        self._is_held = True
        self.pause()

    def release(self) -> None:
        """Read again."""
        if self._is_held:
            self._is_held = False
            self._host.turns.wait(self)

    def close(self, cause: str) -> None:
        """End the connection once its queue has left, or a second later."""
        if self._transport is None or self._transport.is_closing():
            return
        self.cause = cause
        self._set_timer(LINGER_SECONDS, self.abort)
        self._write_answers(self._transport)
        self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- for the endpoint and its turns -------------------------------------------------------------------------------------

    def serve(self) -> bool:
        """Handle a few of its frames; returns whether more can be handled at once."""
        clock = self._host.clockwork.clock
        ends = clock() + SERVE_SECONDS
        for _ in range(FRAMES_AT_ONCE):
            if self._zmtp.is_starved or self._is_held or self.is_closing:
                break
            event = self._zmtp.step()
            self._send()
            if event is not None:
                self._on_event(event)
            if clock() > ends:
                break
        self._host.count_received(self, self._zmtp.held_bytes)
        return not (self._zmtp.is_starved or self._is_held or self.is_closing)

    def pause(self) -> None:
        """Stop reading from its socket."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def read_on(self) -> None:
        """Read from its socket again, unless it is held."""
        if self._transport is not None and not self._is_held and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: Transport) -> None:
        """Send the greeting."""
        self._transport = transport
        transport.set_write_buffer_limits(HIGH_WATER_BYTES, 0)
        self._set_timer(HANDSHAKE_SECONDS, self._on_handshake_late)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the user."""
        self._zmtp.receive(data)
        self._host.on_data(self, self._zmtp.held_bytes)

    def eof_received(self) -> None:
        """The user has closed its side; the transport closes ours."""

    def pause_writing(self) -> None:
        """The queue has exceeded the high water."""
        self._is_full = True

    def resume_writing(self) -> None:
        """The queue is empty."""
        self._is_full = False
        self._host.count_queue(self, 0)
        self._send()
        if self.is_ready:
            self._host.owner.on_room(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how a user's connection ends is its own affair
        """The socket is closed."""
        self._cancel_timer()
        self._transport = None
        self._host.forget(self)

    # -- helpers ------------------------------------------------------------------------------------------------------------

    def _write(self, transport: Transport, wire: Wire) -> None:
        self.sent_messages += 1
        self._write_answers(transport)
        transport.write(self._zmtp.seal(wire))
        if self._is_full:
            self._host.count_queue(self, transport.get_write_buffer_size())

    def _send(self) -> None:
        """Send the answers of the handshake and of commands."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if not self._is_full:
            self._write_answers(transport)
        elif self._zmtp.outgoing_bytes > ANSWERS_BYTES:
            self._fail("it does not read what it is answered")

    def _write_answers(self, transport: Transport) -> None:
        if out := self._zmtp.outgoing():
            transport.write(out)

    def _on_event(self, event: Event) -> None:
        owner = self._host.owner
        if isinstance(event, Message):
            owner.on_message(self, event.frames)
        elif isinstance(event, Subscribed):
            owner.on_subscribed(self, event.prefix)
        elif isinstance(event, Cancelled):
            owner.on_cancelled(self, event.prefix)
        elif isinstance(event, Ready):
            self.socket_type = event.socket_type
            self._cancel_timer()
            self._host.on_link_ready(self)
            owner.on_ready(self)
        else:
            self._fail(event.cause)

    def _fail(self, cause: str) -> None:
        if not self.is_ready:
            self._host.refuse(self.remote, cause)
        self.close(cause)

    def _set_timer(self, seconds: float, callback: Callable[[], object]) -> None:
        self._cancel_timer()
        self._timer = self._host.clockwork.loop.call_later(seconds, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_handshake_late(self) -> None:
        self._host.refuse(self.remote, f"no handshake within {HANDSHAKE_SECONDS:g} s")
        self.abort()
