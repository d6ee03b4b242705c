"""Commands on sessions: lists and snapshots of them, dials, and goodbyes."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

import msgspec

from rlpx.engine.fleet.calls import PlacedSnapshot, WorkerReply
from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.hub import arguments
from rlpx.engine.hub.events import EventsHub
from rlpx.engine.intake.dials import Dials
from rlpx.engine.ledger.ledger import Ledger
from rlpx.engine.operations.targets import Targets
from rlpx.protocol.bus import commands, control, results
from rlpx.protocol.bus.control import SessionId, SessionStats, WorkerId
from rlpx.protocol.bus.error_codes import CommandError
from rlpx.protocol.bus.sessions import SessionView
from rlpx.protocol.errors import ErrorName
from rlpx.protocol.lifecycle import EndedBy, Stage

# If workers keep ending, a snapshot is given up after this many attempts.
SNAPSHOT_ATTEMPTS: Final = 5
# The reason that the peer of a cancelled dial is given.
CALLED_OFF: Final = "disconnect_requested"


class SessionCommands:
    """Each method carries out one command, and raises `CommandError` if it cannot be done."""

    def __init__(self, targets: Targets, ledger: Ledger, fleet: Fleet, dials: Dials, events: EventsHub) -> None:
        self._targets = targets
        self._ledger = ledger
        self._fleet = fleet
        self._dials = dials
        self._events = events

    async def sessions(self, parameters: commands.SessionsParameters) -> results.SessionsResult:
        """The sessions that match every filter, the oldest first."""
        matching = self._targets.matching(parameters)
        shown = matching[: parameters.limit]
        return results.SessionsResult(await self._with_stats(shown), len(matching))

    async def snapshot(self, _parameters: commands.NoParameters) -> results.SnapshotResult[msgspec.Raw]:
        """All sessions that are published as open, and the ordinals in the stream at which that is true."""
        for _ in range(SNAPSHOT_ATTEMPTS):
            taken = await self._take_snapshot()
            if taken is not None:
                return taken
        raise CommandError(ErrorName.WORKER_LOST, f"a worker ended meanwhile, {SNAPSHOT_ATTEMPTS} times in a row")

    async def _take_snapshot(self) -> results.SnapshotResult[msgspec.Raw] | None:
        """Ask every worker; each answers at its own moment. Returns nothing if one ends meanwhile."""
        fleet, events = self._fleet, self._events
        for worker in fleet:
            if worker.is_lost:
                # Wait until the ends of its sessions are published.
                await worker.ended.wait()
        # A worker that is not ready has no sessions; what it publishes later follows its present position.
        # The number of a worker that has left may be given to another one, which publishes from there.
        positions = {index: events.positions(index) for index in events.publishers if index is not None}
        asked = [worker for worker in fleet if worker.is_ready]
        answers = await asyncio.gather(
            *(self._fleet.calls.ask(worker, control.TakeSnapshot) for worker in asked), return_exceptions=True
        )
        sessions: list[msgspec.Raw] = []
        for worker, answer in zip(asked, answers, strict=True):
            if not isinstance(answer, PlacedSnapshot) or fleet.get(worker.index) is not worker:
                return None
            positions[worker.index] = answer.next
            sessions += map(msgspec.Raw, answer.sessions)
        # Send the ends that lost workers left, so that the engine's own positions come after them.
        events.flush()
        next_events: list[tuple[str, int | None, int]] = [
            (topic, worker, following)
            for worker, topics in [*positions.items(), (None, events.positions(None))]
            for topic, following in topics.items()
        ]
        return results.SnapshotResult(events.run, sessions, next_events)

    async def session(self, parameters: commands.SessionParameters) -> results.SessionObject:
        """One session."""
        (shown,) = await self._with_stats([self._targets.view(parameters.session)])
        return shown

    async def dial(self, parameters: commands.DialParameters) -> results.DialResult:
        """Connect to a peer; returns the session's number at once, or with `wait` the outcome."""
        view = self._dials.begin(arguments.enode_of(parameters))
        session = view.session
        if not parameters.wait:
            return results.DialResult(session)
        try:
            closed = await self._dials.outcome(session)
        except asyncio.CancelledError:
            # Nobody waits for this peer any more.
            with suppress(CommandError):
                self._targets.disconnect(view, CALLED_OFF)
            raise
        if closed is None:
            (shown,) = await self._with_stats([view])
            return results.DialResult(session, shown)
        name = ErrorName.WORKER_LOST if closed.ended_by is EndedBy.WORKER_LOST else ErrorName.REFUSED
        reason = f" ({closed.reason.label})" if closed.reason is not None else ""
        raise CommandError(name, f"session {session} ended at {closed.stage} by {closed.ended_by}{reason}: {closed.cause}")

    async def disconnect(self, parameters: commands.DisconnectParameters) -> results.DoneResult:
        """End one session politely."""
        view = self._targets.view(parameters.session)
        self._targets.disconnect(view, parameters.reason)
        return results.DoneResult(1)

    async def disconnect_all(self, parameters: commands.DisconnectAllParameters) -> results.DoneResult:
        """End all sessions politely, including dials in progress."""
        return results.DoneResult(self._targets.disconnect_each(list(self._ledger.views.values()), parameters.reason))

    async def history(self, parameters: commands.HistoryParameters) -> list[results.EndedSession]:
        """The last ended sessions and attempts, the latest first."""
        return [entry for entry, _ in zip(reversed(self._ledger.history), range(parameters.limit), strict=False)]

    async def _with_stats(self, views: list[SessionView]) -> list[results.SessionObject]:
        """Session objects with the statistics that their workers have now; zeros if a worker does not answer."""
        asked: dict[WorkerId, list[SessionId]] = {}
        for view in views:
            asked.setdefault(view.worker, []).append(view.session)
        calls: list[Coroutine[Any, Any, WorkerReply]] = []
        for index, ids in asked.items():
            worker = self._fleet.get(index)
            if worker is not None:
                calls.append(self._fleet.calls.ask(worker, lambda call, ids=tuple(ids): control.GetStats(call, ids)))  # type: ignore[misc]
        answered: dict[int, tuple[Stage, SessionStats, tuple[int, int, str] | None]] = {}
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, control.Stats):
                answered.update(answer.sessions)
        shown = []
        for view in views:
            stage, stats, span = answered.get(view.session, (view.stage, SessionStats(), None))
            shown.append(view.shown(stats, stage, span))
        return shown
