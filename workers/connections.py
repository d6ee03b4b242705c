"""The connections of one worker: those with a live session, by id, and those that are still saying goodbye."""

from __future__ import annotations

import math
from time import monotonic

from rlpx.protocol.bus.control import Dial, SessionId
from rlpx.protocol.bus.records import Configure, Handoff
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Direction
from rlpx.protocol.session.session import Session
from rlpx.protocol.session.setup import Setup
from rlpx.workers.connection import Connection, Host
from rlpx.workers.counters import Counters
from rlpx.workers.setups import Setups
from rlpx.workers.wheel import Wheel


class Connections:
    """Opens connections and knows each until its socket is closed. Read-only for others: `by_id` and `goodbyes`.

    `host` is what the connections call; their deadlines are on `wheel`. What happens to them counts in `counters`.
    """

    def __init__(self, host: Host, wheel: Wheel, setups: Setups, configure: Configure, counters: Counters) -> None:
        self.counters = counters
        self._host = host
        self._wheel = wheel
        self._setups = setups
        self._index = configure.worker
        self._max_goodbyes = configure.settings.queues.goodbyes
        self.by_id: dict[SessionId, Connection] = {}
        self.goodbyes: dict[Connection, None] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no session lives and no goodbye is on its way."""
        return not self.by_id and not self.goodbyes

    def accept(self, handoff: Handoff, refusal: DisconnectReason | None) -> Connection:
        """A connection for an accepted socket. Users never hear of a peer that the engine itself refused."""
        connection = self._open(handoff.session, self._setups.inbound(refusal))
        if handoff.refusal is None:
            connection.view = SessionView(
                handoff.session, self._index, Direction.INBOUND, handoff.remote, handoff.opened_us, monotonic()
            )
        return connection

    def dial(self, command: Dial, started: float) -> Connection:
        """A connection for a dial that began at `started`. Raises `PeerError` if the peer's id is no public key."""
        connection = self._open(command.session, self._setups.outbound(command.peer, monotonic() - started))
        view = SessionView(command.session, self._index, Direction.OUTBOUND, "", command.opened_us, started, command.peer)
        view.dialled = command.enode
        connection.view = view
        return connection

    def discard(self, connection: Connection) -> None:
        """Forget a connection that never had a socket: report nothing and cancel its deadline."""
        self.by_id.pop(connection.id, None)
        connection.session.connection_lost("never connected")
        connection.book()
        connection.deadline = math.inf
        self._wheel.remove(connection)

    def end(self, connection: Connection) -> None:
        """The session has ended: its id is unknown from now on."""
        if self.by_id.pop(connection.id, None) is not None:
            self.counters.on_ended(connection.session)

    def keep_goodbye(self, connection: Connection) -> None:
        """Keep the socket of an ended session until its goodbye is read; beyond the limit the oldest one is closed."""
        self.goodbyes[connection] = None
        if len(self.goodbyes) > self._max_goodbyes:
            oldest = next(iter(self.goodbyes))
            del self.goodbyes[oldest]
            oldest.abort()

    def forget(self, connection: Connection) -> None:
        """The socket is closed: nothing here knows the connection any more."""
        self.goodbyes.pop(connection, None)
        self._wheel.remove(connection)

    def close(self) -> None:
        """Close all sockets at once, including those that are not read and would never notice the end of their peers."""
        for connection in [*self.by_id.values(), *self.goodbyes]:
            connection.abort()

    def _open(self, session_id: SessionId, setup: Setup) -> Connection:
        """A connection whose socket is still to be attached. Its deadlines run from now on."""
        connection = Connection(session_id, Session(setup, now=monotonic()), self._host)
        self.by_id[session_id] = connection
        self._wheel.enter(connection)
        return connection
