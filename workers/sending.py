"""Messages of users to peers: sent to one, broadcast to many, or as requests whose answers go back to their callers.

A caller is the engine, which passes on a command of `control.ipc` (`engine_calls.py`), or a program that is connected to
this worker (`calls.py`). It is told the outcome of what it asked for, exactly once, unless it cancels that before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from time import monotonic
from typing import Final, Protocol

import msgspec

from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.errors import ErrorName, NoSuchSessionError, QueueFullError, UsageError
from rlpx.protocol.eth.kinds import MessageKind
from rlpx.protocol.eth.sendable import check_sendable
from rlpx.protocol.session.events import Answered, RequestFailed
from rlpx.protocol.session.requests import RequestId
from rlpx.protocol.session.sending import Multicast
from rlpx.workers.budget import Budget
from rlpx.workers.connection import Connection
from rlpx.workers.counters import CANCELLED, Requests
from rlpx.workers.setups import Setups

# The part of one broadcast that is sealed in one loop iteration: about ten milliseconds' work.
BROADCAST_SLICE_BYTES: Final = 2 * 1024 * 1024
# Fixed cost of one frame and one write, expressed in bytes of payload.
BROADCAST_PEER_BYTES: Final = 4 * 1024

Sessions = Mapping[SessionId, Connection]


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message of a capability; `message` is its id there. `is_checked`: refuse what peers would punish (`sendable.py`)."""

    capability: str
    message: int
    payload: bytes
    is_checked: bool


class Caller(Protocol):
    """Whoever has asked for one thing to be sent. Exactly one of these methods is called."""

    @property
    def origin(self) -> Hashable:
        """The program, or the engine; broadcasts of several origins take turns."""

    def on_done(self) -> None:
        """The message is sent, or waits for the peer to read it."""

    def on_answer(self, message: str, payload: bytes) -> None:
        """The name and the payload of the peer's answer to the request."""

    def on_broadcast(self, sent: int, refused: dict[int, ErrorName], complaint: str) -> None:
        """The number of sessions that got the message, and the error of each other session.

        `complaint` is the text of the first error that concerns the message itself.
        """

    def on_refused(self, name: ErrorName, text: str) -> None:
        """It was not sent, or no answer will come."""


class Sender:
    """Sends to one session, and knows what may be sent at all."""

    def __init__(self, connections: Sessions, budget: Budget, setups: Setups) -> None:
        self._connections = connections
        self._budget = budget
        self._setups = setups

    def send(self, session: SessionId, message: Message, caller: Caller) -> None:
        """Send one message."""
        try:
            connection = self.find(session)
            self.check(connection, message)
            connection.session.send(message.capability, message.message, message.payload)
        except UsageError as error:
            caller.on_refused(error.name, str(error))
        else:
            connection.write()
            caller.on_done()

    def find(self, session: SessionId) -> Connection:
        """The connection of a session that lives. Raises `NoSuchSessionError`."""
        connection = self._connections.get(session)
        if connection is None:
            raise NoSuchSessionError(f"session {session} has ended")
        return connection

    def check(self, connection: Connection, message: Message) -> None:
        """Refuse a message for which there is no room and, if the caller asks for it, one that the peer would punish.

        Raises `UsageError`.
        """
        self.check_room(len(message.payload))
        table = connection.session.shared
        if message.is_checked and table is not None:
            self.check_payload(table.find(message.capability, message.message), message.payload)

    def check_room(self, more_bytes: int) -> None:
        """Leave the budget to the peers: none must be disconnected for what we send. Raises `QueueFullError`."""
        budget = self._budget
        if not budget.has_room(more_bytes):
            raise QueueFullError(f"{budget.used_bytes} of {budget.limit_bytes} bytes are in progress in this worker")

    def check_payload(self, kind: MessageKind, payload: bytes) -> None:
        """Refuse a payload that the peer would punish. Raises `UsageError`."""
        check_sendable(kind, payload, is_proof_of_stake=self._setups.refuses_blocks)


class Broadcasts:
    """Sends one message to many sessions, a slice of them in each loop iteration, so that other sessions get their turn.

    Broadcasts of one origin are carried out one after the other: of two, every session gets the first one first. Several
    origins take turns.
    """

    def __init__(self, connections: Sessions, sender: Sender, loop: asyncio.AbstractEventLoop) -> None:
        self._connections = connections
        self._sender = sender
        self._loop = loop
        # The waiting broadcasts of each origin, with the sessions that get them; the origin whose turn is next comes first.
        self._queues: dict[Hashable, deque[tuple[Sequence[SessionId], Message, Caller]]] = {}
        # The callers whose broadcasts wait or are in progress.
        self._callers: set[Caller] = set()
        self._task: asyncio.Task[None] | None = None

    def broadcast(self, sessions: Sequence[SessionId], message: Message, caller: Caller) -> None:
        """Queue a broadcast."""
        self._queues.setdefault(caller.origin, deque()).append((sessions, message, caller))
        self._callers.add(caller)
        if self._task is None:
            self._task = self._loop.create_task(self._send_all())

    def cancel(self, caller: Caller) -> None:
        """Send the message to no more sessions, and tell the caller nothing."""
        self._callers.discard(caller)

    async def _send_all(self) -> None:
        while self._queues:
            origin, queue = next(iter(self._queues.items()))
            await self._send_in_slices(*queue.popleft())
            # The next broadcast of this origin follows those of the others.
            del self._queues[origin]
            if queue:
                self._queues[origin] = queue
        self._task = None

    async def _send_in_slices(self, sessions: Sequence[SessionId], message: Message, caller: Caller) -> None:
        if caller not in self._callers:
            return
        check = self._sender.check_payload if message.is_checked else None
        multicast = Multicast(message.capability, message.message, message.payload, check)
        refused: dict[int, ErrorName] = {}
        complaint = ""
        step = max(1, BROADCAST_SLICE_BYTES // (len(multicast.body) + BROADCAST_PEER_BYTES))
        for start in range(0, len(sessions), step):
            if start:
                await asyncio.sleep(0)
                if caller not in self._callers:
                    return
            for session, error in self._send_slice(sessions[start : start + step], multicast).items():
                refused[session] = error.name
                complaint = complaint or (str(error) if type(error) is UsageError else "")
        self._callers.discard(caller)
        caller.on_broadcast(len(sessions) - len(refused), refused, complaint)
        # Short broadcasts are many: others have their turn after each.
        await asyncio.sleep(0)

    def _send_slice(self, sessions: Sequence[SessionId], message: Multicast) -> dict[int, UsageError]:
        """Send one message to each session; returns those that cannot have it, and why.

        It seals for all sessions, then writes to all. In alternation, sealing and the kernel's writes evict each other's
        data from the caches, which took a third longer.
        """
        refused: dict[int, UsageError] = {}
        sealed: list[tuple[Connection, bytes]] = []
        for session_id in sessions:
            connection = self._connections.get(session_id)
            if connection is None:
                refused[session_id] = NoSuchSessionError(f"session {session_id} has ended")
                continue
            try:
                self._sender.check_room(len(message.body))
                connection.session.send_multicast(message)
            except UsageError as error:
                # Its traceback would keep this stack frame, and with it all that is sealed, until the collector runs.
                refused[session_id] = error.with_traceback(None)
            else:
                sealed.append((connection, connection.seal()))
        for connection, data in sealed:
            connection.write_sealed(data)
        return refused


class Waiting(msgspec.Struct, frozen=True, eq=False):
    """A caller that waits for an answer: to which request, on which connection, and since when."""

    caller: Caller
    connection: Connection
    request: RequestId
    kind: MessageKind
    sent_at: float


class Callers:
    """Sends requests to peers, and knows which caller waits for which answer. `meter` counts how requests end."""

    def __init__(self, sender: Sender, meter: Requests) -> None:
        self._sender = sender
        self._meter = meter
        self._waiting: dict[tuple[SessionId, RequestId], Waiting] = {}
        self._open: dict[Caller, Waiting] = {}

    def request(self, session: SessionId, message: Message, caller: Caller) -> None:
        """Send a request."""
        now = monotonic()
        try:
            connection = self._sender.find(session)
            self._sender.check(connection, message)
            kind = connection.session.kind(message.capability, message.message)
            request = connection.session.request(message.capability, message.message, message.payload, now=now)
        except UsageError as error:
            caller.on_refused(error.name, str(error))
        else:
            waiting = Waiting(caller, connection, request, kind, now)
            self._waiting[connection.id, request] = self._open[caller] = waiting
            connection.drive([])

    def cancel(self, caller: Caller) -> None:
        """Nobody awaits the answer any more: the caller is told nothing."""
        waiting = self._open.pop(caller, None)
        if waiting is not None:
            del self._waiting[waiting.connection.id, waiting.request]
            self._meter.ended(waiting.kind, CANCELLED)
            waiting.connection.session.cancel(waiting.request)

    def on_answered(self, connection: Connection, event: Answered) -> None:
        """A peer has answered."""
        waiting = self._release(connection, event.request)
        self._meter.answered(waiting.kind, monotonic() - waiting.sent_at)
        waiting.caller.on_answer(event.kind.name, event.payload)

    def on_request_failed(self, connection: Connection, event: RequestFailed) -> None:
        """No answer will come: the session says why."""
        waiting = self._release(connection, event.request)
        self._meter.ended(waiting.kind, event.name.value)
        waiting.caller.on_refused(event.name, event.text)

    def _release(self, connection: Connection, request: RequestId) -> Waiting:
        """Return the caller that waits for this answer, and forget it."""
        waiting = self._waiting.pop((connection.id, request))
        del self._open[waiting.caller]
        return waiting
