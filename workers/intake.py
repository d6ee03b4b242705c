"""Accepted sockets: taken from the engine, each with the id of its session, and adopted by this process."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.descriptors import Descriptors
from rlpx.protocol.bus.records import HANDOFFS_AT_ONCE, RECORD_MAX_BYTES, Handoff, Handoffs, decode_record
from rlpx.protocol.errors import DisconnectReason
from rlpx.workers.connection import Connection
from rlpx.workers.connections import Connections
from rlpx.workers.reporter import Reporter

# Sockets adopted in one loop iteration, so that a burst of accepts does not starve the sessions.
HANDOFF_BUDGET: Final = 32
# The part of the reserved descriptors that is for goodbyes to peers for whom there is no room.
POLITE_DESCRIPTORS: Final = 32
OUT_OF_DESCRIPTORS: Final = "the worker is out of file descriptors"


class Intake:
    """Adopts the sockets that come down the pair `handoffs`; call `take` whenever it is readable."""

    def __init__(
        self,
        handoffs: socket.socket,
        loop: asyncio.AbstractEventLoop,
        connections: Connections,
        descriptors: Descriptors,
        reporter: Reporter,
    ) -> None:
        self._handoffs = handoffs
        self._loop = loop
        self._connections = connections
        self._descriptors = descriptors
        self._reporter = reporter
        # The highest session id that was handed over, and disconnects of sessions whose sockets are still to come.
        self._last_session = SessionId(0)
        self._early_ends: dict[SessionId, control.DisconnectSession] = {}
        # The loop itself keeps no reference to its tasks.
        self._tasks: set[asyncio.Task[None]] = set()

    def fileno(self) -> int:
        """The descriptor that is readable when sockets have come."""
        return self._handoffs.fileno()

    def take(self) -> bool:
        """Adopt the sockets that have come, up to the budget; returns False once the engine has closed its end."""
        taken = 0
        while taken < HANDOFF_BUDGET:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._handoffs, RECORD_MAX_BYTES, HANDOFFS_AT_ONCE)
            except BlockingIOError:
                return True
            if not data:
                return False
            record = decode_record(data)
            handoffs = record.sockets if isinstance(record, Handoffs) else ()
            taken += len(handoffs)
            self._last_session = max([self._last_session, *(handoff.session for handoff in handoffs)])
            for handoff, descriptor in zip(handoffs, descriptors, strict=False):
                self._take_one(handoff, descriptor)
            for handoff in handoffs[len(descriptors) :]:
                # Our descriptor table was full, so the kernel has closed these sockets. Their places must not leak.
                self._lose(handoff, OUT_OF_DESCRIPTORS)
        return True

    def end_early(self, command: control.DisconnectSession) -> None:
        """Remember a disconnect that has overtaken its socket: commands and sockets come on different channels."""
        if command.session > self._last_session and len(self._early_ends) < HANDOFF_BUDGET:
            self._early_ends[command.session] = command

    def _take_one(self, handoff: Handoff, descriptor: int) -> None:
        ceiling = self._descriptors.ceiling
        if descriptor >= ceiling + POLITE_DESCRIPTORS:
            os.close(descriptor)
            self._lose(handoff, OUT_OF_DESCRIPTORS)
            return
        # If the table is almost full, there is room for a goodbye but not for a session.
        refusal = DisconnectReason.TOO_MANY_PEERS if descriptor >= ceiling else handoff.refusal
        sock = socket.socket(fileno=descriptor)
        connection = self._connections.accept(handoff, refusal)
        early_end = self._early_ends.pop(handoff.session, None)
        if early_end is not None:
            connection.drive(connection.session.disconnect(early_end.reason, early_end.cause, by=early_end.by))
        # The session is known from here on, although its socket is attached in the next loop iteration.
        task = self._loop.create_task(self._attach(handoff, connection, sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attach(self, handoff: Handoff, connection: Connection, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except OSError as error:
            sock.close()
            self._connections.discard(connection)
            self._lose(handoff, f"the socket could not be adopted: {error}")

    def _lose(self, handoff: Handoff, cause: str) -> None:
        self._early_ends.pop(handoff.session, None)
        self._reporter.report(control.HandoffLost(handoff.session, cause))
