"""Handles workers' reports about sessions: places, verdicts and ends follow from them."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from rlpx.engine.ends import Ends
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.engine.intake.dials import Dials
from rlpx.engine.ledger.addresses import address_of
from rlpx.engine.ledger.ledger import Ledger
from rlpx.engine.vacancies import Vacancies
from rlpx.engine.verdicts import Verdicts
from rlpx.protocol.bus import control
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy, Stage


class SessionReports:
    """See the module. `handlers` has a method for each kind of report."""

    def __init__(self, ledger: Ledger, verdicts: Verdicts, dials: Dials, ends: Ends, vacancies: Vacancies) -> None:
        self._ledger = ledger
        self._verdicts = verdicts
        self._dials = dials
        self._ends = ends
        self._vacancies = vacancies
        self.handlers: dict[type, Callable[[WorkerProcess, Any], None]] = {
            control.HandoffLost: self._on_handoff_lost,
            control.SessionConnected: self._on_connected,
            control.SessionStalled: self._on_stalled,
            control.SessionKeyed: self._on_keyed,
            control.SessionAuthenticated: self._on_authenticated,
            control.SessionAlive: self._on_alive,
            control.SessionEstablished: self._on_established,
            control.SessionClosed: self._on_closed,
        }

    def on_worker_lost(self, worker: WorkerProcess, cause: str) -> int:
        """End each session of a lost worker; returns how many it had."""
        by = EndedBy.ENGINE if worker.is_told_to_end else EndedBy.WORKER_LOST
        sessions = self._ledger.counter.of_worker(worker.index)
        for session in sessions:
            self._ends.end(session, by, f"worker {worker.index} ended: {cause}")
        return len(sessions)

    def _on_handoff_lost(self, _worker: WorkerProcess, report: control.HandoffLost) -> None:
        self._ends.end(report.session, EndedBy.ENGINE, report.cause)

    def _on_connected(self, worker: WorkerProcess, report: control.SessionConnected) -> None:
        view = self._ledger.views.get(report.session)
        if view is None:
            return
        view.local, view.remote, view.stage, view.is_connected = report.local, report.remote, Stage.ACK, True
        # The address of a host name was not known when the dial began, and lists and bans may have changed since it was
        # resolved.
        address = address_of(report.remote)
        cause = None if address is None else self._ledger.refuse_address(address)
        if cause is not None:
            worker.command(control.DisconnectSession(view.session, DisconnectReason.DISCONNECT_REQUESTED, cause))

    def _on_stalled(self, _worker: WorkerProcess, report: control.SessionStalled) -> None:
        now = monotonic()
        self._ledger.counter.stall(report.session, has_spoken=report.has_spoken, now=now)
        self._ledger.admission.stall(report.session, has_spoken=report.has_spoken, now=now)
        self._vacancies.offer()

    def _on_keyed(self, _worker: WorkerProcess, report: control.SessionKeyed) -> None:
        view = self._ledger.views.get(report.session)
        if view is not None:
            self._verdicts.on_keyed(view)
            self._vacancies.offer()

    def _on_authenticated(self, _worker: WorkerProcess, report: control.SessionAuthenticated) -> None:
        view = self._ledger.views.get(report.session)
        if view is not None:
            self._verdicts.on_authenticated(view, report.peer)

    def _on_alive(self, _worker: WorkerProcess, report: control.SessionAlive) -> None:
        self._verdicts.settle(report.session)

    def _on_established(self, _worker: WorkerProcess, report: control.SessionEstablished) -> None:
        view = self._ledger.views.get(report.session)
        if view is None or not self._ledger.counter.establish(report.session):
            return
        self._verdicts.end_rival(report.session)
        self._verdicts.settle(report.session)
        view.establish(report)
        if view.peer is not None:
            self._ledger.peers.established(view.peer)
        self._dials.settle(view, None)
        self._vacancies.offer()

    def _on_closed(self, _worker: WorkerProcess, report: control.SessionClosed) -> None:
        self._ends.on_closed(report)
