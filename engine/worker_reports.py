"""Takes the reports and batches of workers, in the order of each worker; every kind of report has one handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import structlog

from rlpx.engine.fleet.calls import PlacedSnapshot, WorkerReply
from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.fleet.process import Owner, WorkerProcess
from rlpx.engine.hub.announcer import Announcer
from rlpx.engine.hub.events import EventsHub
from rlpx.engine.session_reports import SessionReports
from rlpx.engine.worker_states import WorkerStates
from rlpx.protocol.bus import control
from rlpx.protocol.bus.reports import Published
from rlpx.protocol.errors import printable

# The number of characters kept of a traceback: its end, which says most.
TRACE_MAX_CHARACTERS: Final = 8192

log = structlog.get_logger()


class WorkerReports(Owner):
    """See the module. It is the owner of the fleet."""

    def __init__(
        self, sessions: SessionReports, states: WorkerStates, fleet: Fleet, events: EventsHub, announcer: Announcer
    ) -> None:
        self._sessions = sessions
        self._states = states
        self._fleet = fleet
        self._events = events
        self._announcer = announcer
        self._handlers: dict[type, Callable[[WorkerProcess, Any], None]] = {
            **sessions.handlers,
            control.Ready: states.on_ready,
            control.Pulse: states.on_pulse,
            control.Stats: self._on_answer,
            control.PeerResponse: self._on_answer,
            control.Sent: self._on_answer,
            control.Reply: self._on_answer,
            control.Snapshot: self._on_snapshot,
            control.InterestSet: self._on_interest_set,
            control.LogLine: self._on_log,
        }

    # -- the fleet's owner --------------------------------------------------------------------------------------------------

    def on_begun(self, worker: WorkerProcess) -> None:
        """A worker's stream is up: send the first commands, with all that it must know before it publishes and listens."""
        self._states.on_begun(worker)
        worker.command(self._events.begin(worker.index))

    def on_report(self, worker: WorkerProcess, report: control.Report) -> None:
        """A worker reports something."""
        self._handlers[type(report)](worker, report)

    def on_published(self, worker: WorkerProcess, published: Published) -> None:
        """A worker publishes a batch, at its place among its reports."""
        self._announcer.on_published(worker.index, published)

    def on_worker_lost(self, worker: WorkerProcess, cause: str) -> None:
        """End each session of the worker, answer the calls to it with an error, and replace it."""
        self._announcer.on_worker_lost(worker.index)
        sessions = self._sessions.on_worker_lost(worker, cause)
        self._fleet.calls.on_worker_lost(worker.index)
        self._events.on_worker_lost(worker.index)
        self._states.on_lost(worker, cause, sessions)

    # -- reports ------------------------------------------------------------------------------------------------------------

    def _on_answer(self, _worker: WorkerProcess, report: WorkerReply) -> None:
        self._fleet.calls.on_answer(report)

    def _on_snapshot(self, worker: WorkerProcess, report: control.Snapshot) -> None:
        # Look up the place in the worker's stream now, because a batch may follow in the same read.
        positions = self._events.positions(worker.index)
        self._fleet.calls.on_answer(PlacedSnapshot(report.call, report.sessions, positions))

    def _on_interest_set(self, worker: WorkerProcess, report: control.InterestSet) -> None:
        self._events.on_interest_set(worker.index, report.number)

    def _on_log(self, worker: WorkerProcess, report: control.LogLine) -> None:
        write = getattr(log, report.level)
        trace = {"exception": report.trace[-TRACE_MAX_CHARACTERS:]} if report.trace else {}
        write(printable(report.message), worker=worker.index, **trace)
