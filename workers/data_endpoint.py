"""The worker's endpoint for programs, `worker-<i>.ipc`: responders, feeds and commands over one connection each.

A message has a JSON head and, if there is a payload, a second frame. A key of the head says what the message is about, and
the part of the worker that does this takes it. Each part keeps its own state of a connection, and is told when that ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from rlpx.protocol.bus import zmtp
from rlpx.protocol.bus.clockwork import Clockwork
from rlpx.protocol.bus.control import SetUsers
from rlpx.protocol.bus.curve import CurveServer, ServerKeys
from rlpx.protocol.bus.data_heads import NotUnderstoodError, RefusedMessage, Use, read_use
from rlpx.protocol.bus.endpoint import Endpoint, Security
from rlpx.protocol.bus.link import Limits, Link, Owner
from rlpx.protocol.bus.records import DataKeys
from rlpx.protocol.bus.zmtp import Kind
from rlpx.protocol.rlpx.bounds import MAX_PAYLOAD_BYTES
from rlpx.protocol.settings import ResponderSettings
from rlpx.workers.users import Users

# The largest head: a broadcast that leaves out 10,000 sessions. Payloads, which are larger, have a frame of their own.
HEAD_MAX_BYTES: Final = 256 * 1024
# A program's largest message is an answer or a command with a payload.
MESSAGE_MAX_BYTES: Final = HEAD_MAX_BYTES + MAX_PAYLOAD_BYTES
# A head and a payload; further frames are ignored.
MESSAGE_FRAMES: Final = 8
# Bytes of all programs' messages that have not arrived in full.
UNFINISHED_BYTES: Final = 64 * 1024 * 1024
# Bytes that wait for one program to read them, and for all.
QUEUE_BYTES: Final = 8 * 1024 * 1024
QUEUES_BYTES: Final = 32 * 1024 * 1024
# Programs that may connect at the same moment.
BACKLOG: Final = 64
# The right that a user's key needs for each use.
RIGHTS: Final = {Use.FEED: "events", Use.RESPONDER: "control", Use.CALL: "control"}


class Place(NamedTuple):
    """Where to listen: a path, and TCP sockets of the engine, which are served once it says who may connect."""

    path: str
    tcp: tuple[socket.socket, ...] = ()
    keys: DataKeys = DataKeys()


class Part(Protocol):
    """The part of the worker that takes the messages of one use."""

    def on_message(self, link: Link, frames: list[bytes]) -> str | None:
        """Take a program's message, the head first; returns the text of an error if it cannot be understood."""

    def refuse(self, link: Link, frames: list[bytes], text: str) -> str | None:
        """Refuse a message of a program that has not the right to this use; returns the text if no other error is sent."""

    def on_room(self, link: Link) -> None:
        """The queue of a program is empty again, after it was long. Called for every connection."""

    def on_gone(self, link: Link) -> None:
        """A program has disconnected. Called for every connection, also for those that this part has never heard of."""


class DataEndpoint(Owner):
    """See the module. `refused` is called with the place, the cause, and the number of programs turned away since."""

    def __init__(
        self,
        settings: ResponderSettings,
        clockwork: Clockwork,
        parts: Mapping[Use, Part],
        refused: Callable[[str, str, int], None],
    ) -> None:
        self._parts = parts
        self._refused = refused
        self._is_closing = False
        # Set after `close` once no program is connected.
        self.programs_gone = asyncio.Event()
        limits = Limits(
            links=settings.max_connections,
            queue_bytes=QUEUE_BYTES,
            total_queue_bytes=QUEUES_BYTES,
            total_received_bytes=UNFINISHED_BYTES,
            zmtp=zmtp.Limits(message_bytes=MESSAGE_MAX_BYTES, message_frames=MESSAGE_FRAMES),
        )
        self._users = Users()
        # Sockets that are not listened to yet.
        self._tcp: list[socket.socket] = []
        self._keys = DataKeys()
        self.endpoint = Endpoint(Kind.ROUTER, self, limits, clockwork)

    def start(self, place: Place) -> None:
        """Listen, in place of a worker that was replaced. Raises `OSError`."""
        self.endpoint.listen(_bind(Path(place.path)), "ipc")
        self._tcp, self._keys = list(place.tcp), place.keys
        for sock in self._tcp:
            sock.setblocking(False)

    def set_users(self, command: SetUsers) -> None:
        """Let in those users over TCP, and end the connections of others and of those that have lost a right."""
        changed = self._users.set(command.users)
        for link in list(self.endpoint.links.values()):
            if link.user in changed:
                link.close("its key was removed, or no longer has this right")
        for sock in self._tcp:
            self.endpoint.listen(sock, "tcp", self._security())
        self._tcp = []

    def close(self) -> None:
        """Accept nothing more, and disconnect each program once what waits has left, or a second later."""
        for sock in self._tcp:
            sock.close()
        self._is_closing = True
        self.endpoint.close()
        self._look_whether_closed()

    def _security(self) -> Security:
        secret = self._keys.secret
        if secret is None:
            return zmtp.Null
        pair = ServerKeys.from_secret(secret)
        return lambda: CurveServer(pair, self._users.who, os.urandom)

    # -- the endpoint's owner -----------------------------------------------------------------------------------------------

    def on_ready(self, link: Link) -> None:
        """A program has connected, and has not said what for."""

    def on_message(self, link: Link, frames: list[bytes]) -> None:
        """Pass a message on to the part that it is for."""
        problem: str | None
        try:
            _check_head(frames[0])
            use = read_use(frames[0])
            part, right = self._parts.get(use), RIGHTS[use]
            if part is None:
                problem = "this worker does not do that"
            elif self._users.may(link.user, right):
                problem = part.on_message(link, frames)
            else:
                problem = part.refuse(link, frames, f"the key of {link.user} does not have the right {right}")
        except NotUnderstoodError as error:
            problem = str(error)
        if problem:
            link.offer(zmtp.encode([msgspec.json.encode(RefusedMessage(problem))]))

    def on_room(self, link: Link) -> None:
        """A program has read all that waited for it."""
        for part in self._parts.values():
            part.on_room(link)

    def on_gone(self, link: Link) -> None:
        """A program has disconnected."""
        for part in self._parts.values():
            part.on_gone(link)
        self._look_whether_closed()

    def on_refused(self, remote: str, cause: str, times: int) -> None:
        """Programs were turned away, `times` of them since the last call."""
        self._refused(remote, cause, times)

    def on_subscribed(self, link: Link, prefix: bytes) -> None:
        """Nobody subscribes to a ROUTER."""

    def on_cancelled(self, link: Link, prefix: bytes) -> None:
        """Nobody subscribes to a ROUTER."""

    def _look_whether_closed(self) -> None:
        if self._is_closing and not self.endpoint.links:
            self.programs_gone.set()


def _check_head(head: bytes) -> None:
    """Refuse a head that takes long to decode. Raises `NotUnderstoodError`."""
    if len(head) > HEAD_MAX_BYTES:
        raise NotUnderstoodError(f"a head of {len(head)} bytes; {HEAD_MAX_BYTES} are allowed, a payload is the second frame")


def _bind(path: Path) -> socket.socket:
    """A listening Unix socket in place of whatever has its path: the run directory is the engine's. Raises `OSError`."""
    with suppress(FileNotFoundError):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
