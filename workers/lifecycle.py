"""The lives of sessions: reported to the engine, and published to subscribers.

Reports and events keep the order in which things happened. The engine decides about sessions; only misconduct is decided
here, by the rules of the configuration.
"""

from __future__ import annotations

import math
from time import monotonic, time_ns
from typing import Final

from rlpx.protocol.bus import control, events
from rlpx.protocol.bus.events import AUTHENTICATED, CLOSED, ESTABLISHED, OPENED
from rlpx.protocol.bus.results import RemoteChain
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.errors import DisconnectReason, Severity
from rlpx.protocol.eth.status import Status
from rlpx.protocol.lifecycle import Conduct, Direction, Stage
from rlpx.protocol.session.conduct import BadMessages
from rlpx.protocol.session.events import Alive, Authenticated, Closed, Established, Event, Misconduct
from rlpx.protocol.settings import ConductSettings
from rlpx.workers.connection import Connection
from rlpx.workers.connections import Connections
from rlpx.workers.dials import Dials
from rlpx.workers.publication import Publication
from rlpx.workers.reporter import Reporter
from rlpx.workers.texts import capability_names, hex_text, shared_names

# An accepted peer whose auth takes longer than this may have to make room for others: an honest one needs a round trip.
STALL_SECONDS: Final = 0.5


class Lifecycle:
    """Reports and publishes each stage of a session, from the socket to the end."""

    def __init__(
        self, conduct: ConductSettings, connections: Connections, dials: Dials, reporter: Reporter, publication: Publication
    ) -> None:
        self._conduct = conduct
        self._connections = connections
        self._counters = connections.counters
        self._dials = dials
        self._reporter = reporter
        self._publication = publication
        # Accepted connections that have not sent their auth, and the time at which each counts as slow to send it.
        self._unheard: dict[Connection, float] = {}

    def on_made(self, connection: Connection) -> None:
        """A socket is up: its session is opened."""
        if connection.session.direction is Direction.INBOUND:
            self._unheard[connection] = monotonic() + STALL_SECONDS
        view = connection.view
        if view is None:
            return  # the engine refused it: it only gets a goodbye
        view.local = connection.local
        if view.direction is Direction.OUTBOUND:
            self._dials.connected(connection.id)
            self._counters.on_passed(Direction.OUTBOUND, Stage.CONNECT, monotonic() - view.opened_at)
            view.remote = connection.remote
            self._reporter.report(control.SessionConnected(connection.id, connection.local, connection.remote))
        self._publish_opening(connection, view)

    def report_unauthenticated(self, now: float) -> None:
        """Report the accepted peers whose auth has come, and those that are slow to send it.

        A peer that proves its id at once is left out: the report of its proof says everything.
        """
        for connection, due in list(self._unheard.items()):
            if connection.session.stage is not Stage.AUTH:
                del self._unheard[connection]
                self._reporter.report_later(control.SessionKeyed(connection.id))
            elif now >= due:
                self._unheard[connection] = math.inf
                has_spoken = connection.session.bytes_in > 0
                self._reporter.report_later(control.SessionStalled(connection.id, has_spoken=has_spoken))

    def on_authenticated(self, connection: Connection, event: Authenticated) -> None:
        """The peer has proved its id: the engine decides about it."""
        connection.peer_hex = event.peer.hex()
        self._unheard.pop(connection, None)
        self._reporter.report(control.SessionAuthenticated(connection.id, event.peer))
        view = connection.view
        if view is None:
            return
        view.peer = event.peer
        if self._publication.is_read(AUTHENTICATED):
            authenticated = events.SessionAuthenticated(_now_us(), connection.id, connection.peer_hex)
            self._publication.add(AUTHENTICATED, view, authenticated)

    def on_established(self, connection: Connection, event: Established) -> None:
        """Both sides have agreed on Hello and Status."""
        hello = event.hello
        report = control.SessionEstablished(
            session=connection.id,
            client=hello.client,
            capabilities=capability_names(hello.capabilities),
            shared=shared_names(event.shared),
            listen_port=hello.listen_port,
            local=connection.local,
            chain=_remote_chain(event.status),
            stats=connection.stats(),
            established_us=_now_us(),
        )
        self._reporter.report(report)
        view = connection.view
        if view is None:
            return
        self._counters.on_established(view.direction, view.opened_at)
        view.establish(report)
        self._publication.classify(connection)
        if self._publication.is_read(ESTABLISHED):
            established = events.established(report.established_us, view.shown(report.stats))
            self._publication.add(ESTABLISHED, view, established)

    def on_alive(self, connection: Connection, _event: Alive) -> None:
        """A probed peer has answered."""
        self._reporter.report(control.SessionAlive(connection.id))

    def on_misconduct(self, connection: Connection, event: Misconduct) -> list[Event]:
        """Count and publish a bad message; returns the events of the session's end if it was one too many."""
        bad_messages = connection.bad_messages = connection.bad_messages or BadMessages()
        bad_messages.add(now=monotonic())
        self._counters.misconduct[event.conduct.value] += 1
        count = bad_messages.count
        topic = f"peer.{event.conduct}"
        if connection.view is not None and self._publication.is_read(topic):
            misconduct = events.PeerMisconduct(_now_us(), connection.id, connection.peer_hex, event.text, count)
            self._publication.add(topic, connection.view, misconduct)
        is_breach = event.conduct is Conduct.BREACH and self._conduct.ends_on_breach
        if is_breach or bad_messages.is_over(self._conduct.max_bad_messages):
            cause = event.text if is_breach else f"{count} bad messages, the last: {event.text}"
            return connection.session.disconnect(DisconnectReason.PROTOCOL_BREACH, cause, severity=Severity.MEDIUM)
        return []

    def on_closed(self, connection: Connection, event: Closed) -> None:
        """The session has ended; its socket may still carry the goodbye."""
        self._connections.end(connection)
        self._publication.forget(connection)
        self._unheard.pop(connection, None)
        view = connection.view
        report = control.SessionClosed(
            session=connection.id,
            ended_by=event.ended_by,
            reason=event.reason,
            cause=event.cause,
            stage=event.stage,
            stats=connection.stats(),
            severity=event.severity,
            duration_ms=0 if view is None else view.duration_ms(monotonic()),
        )
        self._reporter.report(report)
        if view is None:
            return
        connection.view = None
        if view.established_us is None:
            self._counters.on_failed(view.direction, event.stage, event.ended_by)
        if not connection.is_opening_published:
            # The session ended before its socket was attached.
            self._publish_opening(connection, view)
        self._publication.mark(CLOSED, connection.id)
        if self._publication.is_read(CLOSED):
            self._publication.add(CLOSED, view, view.closed(report, _now_us()))

    def _publish_opening(self, connection: Connection, view: SessionView) -> None:
        connection.is_opening_published = True
        self._publication.mark(OPENED, connection.id)
        if self._publication.is_read(OPENED):
            self._publication.add(OPENED, view, view.opened(_now_us()))


def _now_us() -> int:
    return time_ns() // 1000


def _remote_chain(status: Status) -> RemoteChain:
    return RemoteChain(
        network_id=status.network_id,
        genesis=hex_text(status.genesis),
        fork_hash=hex_text(status.fork_id.hash),
        fork_next=status.fork_id.next,
        head=hex_text(status.head),
        total_difficulty=None if status.total_difficulty is None else str(status.total_difficulty),
        earliest=status.earliest,
        latest=status.latest,
    )
