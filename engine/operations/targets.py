"""Finds the sessions that commands name, and their workers."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.engine.intake.dials import Dials
from rlpx.engine.ledger.ledger import Ledger
from rlpx.protocol.bus import commands, control
from rlpx.protocol.bus.arguments import reason_of
from rlpx.protocol.bus.control import SessionId
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.sessions import SessionView, matches, receivers
from rlpx.protocol.errors import ErrorName


class Targets:
    """See the module."""

    def __init__(self, ledger: Ledger, fleet: Fleet, dials: Dials) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._dials = dials

    def view(self, number: int) -> SessionView:
        """The session of this number. Raises `CommandError`."""
        view = self._ledger.views.get(SessionId(number))
        if view is None:
            raise CommandError(ErrorName.NO_SUCH_SESSION, f"there is no session {number}")
        return view

    def worker_of(self, view: SessionView) -> WorkerProcess:
        """The worker of a session. Raises `CommandError` if it is lost."""
        worker = self._fleet.get(view.worker)
        if worker is None:
            raise CommandError(ErrorName.WORKER_LOST, f"worker {view.worker} of session {view.session} has ended")
        return worker

    def matching(self, wanted: commands.Filter) -> list[SessionView]:
        """The sessions that match every filter, the oldest first."""
        return [view for view in self._ledger.views.values() if matches(view, wanted)]

    def receivers(self, wanted: commands.BroadcastParameters) -> list[SessionView]:
        """The sessions to which a broadcast goes."""
        return receivers(self._ledger.views.values(), wanted)

    def disconnect(self, view: SessionView, reason: str) -> None:
        """Let the worker end a session politely. Raises `CommandError` if the worker is lost."""
        if not self._dials.call_off(view.session, "the dial was called off"):
            worker = self.worker_of(view)
            worker.command(control.DisconnectSession(view.session, reason_of(reason), "disconnected by command"))

    def disconnect_each(self, views: Iterable[SessionView], reason: str) -> int:
        """End these sessions; returns how many. A lost worker's sessions end by themselves, and are not counted."""
        done = 0
        for view in views:
            with suppress(CommandError):
                self.disconnect(view, reason)
                done += 1
        return done
