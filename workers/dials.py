"""Dials under way: each is a task until its socket is attached to a session, which from then on reports its own end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from time import monotonic

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import SessionId, SessionStats
from rlpx.protocol.bus.descriptors import Descriptors
from rlpx.protocol.errors import PeerError, Severity
from rlpx.protocol.lifecycle import Direction, EndedBy, Stage
from rlpx.workers.connections import Connections
from rlpx.workers.intake import OUT_OF_DESCRIPTORS
from rlpx.workers.reporter import Reporter
from rlpx.workers.tcp import ConnectError, connect


class Dials:
    """Connects to peers, each within `connect_seconds`. A dial ends by its session's end or by one `SessionClosed` here."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connect_seconds: float,
        connections: Connections,
        descriptors: Descriptors,
        reporter: Reporter,
    ) -> None:
        self._loop = loop
        self._connect_seconds = connect_seconds
        self._connections = connections
        self._descriptors = descriptors
        self._reporter = reporter
        # Dials whose socket is not attached to a session yet.
        self._under_way: dict[SessionId, asyncio.Task[None]] = {}
        # All tasks, as the loop itself keeps no reference to them.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_empty(self) -> bool:
        """Whether no dial is under way."""
        return not self._under_way

    def dial(self, command: control.Dial) -> None:
        """Begin to connect."""
        task = self._loop.create_task(self._dial(command))
        self._under_way[command.session] = task
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._on_done(command.session, done))

    def connected(self, session: SessionId) -> None:
        """Forget a dial, because its socket is attached. Call it as soon as the connection reports that.

        The dial's own task runs later: by then the peer's answer may have been read, and the session may have ended.
        """
        self._under_way.pop(session, None)

    def call_off(self, session: SessionId) -> bool:
        """End a dial; returns whether it was under way."""
        task = self._under_way.get(session)
        if task is not None:
            task.cancel()
        return task is not None

    def call_off_all(self, then: Callable[[], None]) -> None:
        """End all dials; `then` is called after each."""
        for task in list(self._under_way.values()):
            task.add_done_callback(lambda _: then())
            task.cancel()

    def _on_done(self, session: SessionId, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            # Reported here, not in the coroutine: a task that is cancelled before its first step never runs.
            self._fail(session, "the dial was called off", by=EndedBy.US)

    async def _dial(self, command: control.Dial) -> None:
        started = monotonic()
        session = command.session
        if not self._descriptors.has_room():
            self._fail(session, OUT_OF_DESCRIPTORS, by=EndedBy.US)
            return
        sock: socket.socket | None = None
        try:
            async with asyncio.timeout(self._connect_seconds):
                sock = await connect(self._loop, command.addresses)
            connection = self._connections.dial(command, started)
            await self._loop.create_connection(lambda: connection, sock=sock)
        except TimeoutError:
            self._fail(session, f"no TCP connection within {self._connect_seconds:g} s", severity=Severity.MEDIUM)
        except PeerError as error:
            self._fail(session, f"the enode has no valid key: {error}")
        except ConnectError as error:
            severity = Severity.HIGH if error.is_refused else Severity.MEDIUM
            self._fail(session, f"no TCP connection: {error}", severity=severity)
        except OSError as error:
            self._fail(session, f"no TCP connection: {error}", severity=Severity.MEDIUM)
        else:
            sock = None  # the transport owns it now
        finally:
            if sock is not None:
                sock.close()

    def _fail(
        self, session: SessionId, cause: str, by: EndedBy = EndedBy.NETWORK, severity: Severity = Severity.LOW
    ) -> None:
        if self._under_way.pop(session, None) is None:
            return  # it has connected: its session reports the end
        connection = self._connections.by_id.get(session)
        if connection is not None:
            self._connections.discard(connection)
        self._connections.counters.on_failed(Direction.OUTBOUND, Stage.CONNECT, by)
        self._reporter.report(control.SessionClosed(session, by, None, cause, Stage.CONNECT, SessionStats(), severity))
