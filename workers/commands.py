"""The engine's commands about sessions: carried out on the connection, and answered if the command asks for an answer.

A command for a session that has ended does nothing: its end is on its way to the engine.
"""

from __future__ import annotations

from time import monotonic

from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import SessionStats
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import Stage
from rlpx.workers.connections import Connections
from rlpx.workers.dials import Dials
from rlpx.workers.intake import Intake
from rlpx.workers.publisher import Outbox
from rlpx.workers.reporter import Reporter
from rlpx.workers.shown import remote_range, shown_json


class SessionCommands:
    """One method per command."""

    def __init__(self, connections: Connections, intake: Intake, dials: Dials, reporter: Reporter, outbox: Outbox) -> None:
        self._connections = connections.by_id
        self._intake = intake
        self._dials = dials
        self._reporter = reporter
        self._outbox = outbox

    def take_verdict(self, command: control.Verdict) -> None:
        """Go on with an authenticated session, or end it with the reason that the engine gives."""
        connection = self._connections.get(command.session)
        if connection is None:
            return
        session = connection.session
        if command.refusal is None:
            connection.drive(session.approve(now=monotonic()))
        else:
            connection.drive(session.disconnect(command.refusal, command.cause))

    def disconnect(self, command: control.DisconnectSession) -> None:
        """End a session, call off its dial, or remember the end of a session whose socket is still to come."""
        if not self.end(command):
            self._intake.end_early(command)

    def end(self, command: control.DisconnectSession) -> bool:
        """End a session or call off its dial; returns whether this worker has it."""
        connection = self._connections.get(command.session)
        if connection is not None:
            connection.drive(connection.session.disconnect(command.reason, command.cause, by=command.by))
            return True
        return self._dials.call_off(command.session)

    def make_room(self, command: control.MakeRoom) -> None:
        """End a pending session, because others need its place; one that is active by now stays."""
        connection = self._connections.get(command.session)
        if connection is None or connection.session.stage is Stage.ACTIVE:
            return
        connection.drive(connection.session.disconnect(DisconnectReason.TOO_MANY_PEERS, command.cause))
        if connection.session.messages_out == 0:
            # Without keys we cannot send the peer anything, so its socket has nothing to wait for.
            connection.abort()

    def probe(self, command: control.Probe) -> None:
        """Find out at once whether the peer of an active session is still there."""
        connection = self._connections.get(command.session)
        if connection is not None:
            connection.drive(connection.session.probe(now=monotonic()))

    def report_stats(self, command: control.GetStats) -> None:
        """Report the stage, statistics and block range of each of these sessions that is still here."""
        stats: dict[int, tuple[Stage, SessionStats, tuple[int, int, str] | None]] = {}
        for session_id in command.sessions:
            connection = self._connections.get(session_id)
            if connection is not None:
                stats[session_id] = (connection.session.stage, connection.stats(), remote_range(connection))
        self._reporter.report(control.Stats(command.call, stats))

    def take_snapshot(self, command: control.TakeSnapshot) -> None:
        """Report every session whose opening is published, at this place among the batches of events."""
        shown = (
            shown_json(connection, view)
            for connection in self._connections.values()
            if (view := connection.view) is not None and view.local is not None
        )
        self._outbox.report(control.Snapshot(command.call, tuple(shown)))
