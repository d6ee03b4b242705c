"""Workers that leave: each takes no new sessions, and ends when it has none.

Its sessions end politely, evenly over the drain time, or stay until they end by themselves. Where a session is told to end,
a live one could go to the heir of its worker instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import time_ns
from typing import Final

import structlog

from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.engine.hub.announcer import Announcer
from rlpx.engine.intake.dials import Dials
from rlpx.engine.ledger.ledger import Ledger
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import SessionId, WorkerId
from rlpx.protocol.bus.events import WORKER_LEAVING, WorkerLeaving
from rlpx.protocol.errors import DisconnectReason
from rlpx.protocol.lifecycle import EndedBy

# How often sessions are ended: their peers are back within a second or so, and are to come one after the other.
TICK_SECONDS: Final = 0.1
# The part of the drain time over which the sessions are spread. In the rest the last goodbyes are reported.
SPREAD: Final = 0.9
# Each goodbye costs the engine and the worker some ten microseconds. If more are due, the rest ends at the deadline.
GOODBYES_PER_TICK: Final = 500
# A worker has this long to end after the goodbyes' own deadline. Then it is killed.
END_GRACE_SECONDS: Final = 3.0

log = structlog.get_logger()


class Departure:
    """One worker on its way out. Times are on the loop's clock; `deadline` is `None` if its sessions stay."""

    def __init__(self, worker: WorkerProcess, sessions: list[SessionId]) -> None:
        self.worker = worker
        # The sessions that are not told to end yet, the oldest first. It gets no others.
        self.waiting = deque(sessions)
        self.began_at = 0.0
        self.deadline: float | None = None
        # The number of sessions to end from `began_at` to `deadline`.
        self._total = 0
        # The time at which it is killed, once it has been told to end.
        self.kill_at: float | None = None

    def hasten(self, drain_seconds: float, *, now: float) -> None:
        """End the sessions that are left within this time, unless they end earlier anyway. With 0 nothing changes."""
        if drain_seconds and (self.deadline is None or now + drain_seconds < self.deadline):
            self.began_at, self.deadline, self._total = now, now + drain_seconds, len(self.waiting)

    def due(self, *, now: float) -> int:
        """How many of the waiting sessions are to end now."""
        if self.deadline is None:
            return 0
        share = (now - self.began_at) / ((self.deadline - self.began_at) * SPREAD)
        ended = self._total - len(self.waiting)
        return min(max(0, int(self._total * min(share, 1.0)) - ended), GOODBYES_PER_TICK)


class Departures:
    """See the module. `goodbye_seconds` is how long a peer has to read our goodbye."""

    def __init__(self, fleet: Fleet, ledger: Ledger, dials: Dials, announcer: Announcer, goodbye_seconds: float) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._dials = dials
        self._announcer = announcer
        self._goodbye_seconds = goodbye_seconds
        self._loop = asyncio.get_running_loop()
        self._departures: dict[WorkerId, Departure] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, worker: WorkerProcess, heir: WorkerId | None, drain_seconds: float) -> None:
        """Let a worker leave. Its heir, if it has one, takes sessions already."""
        self._fleet.leave(worker)
        self._dials.move_from(worker.index)
        if worker.is_lost:
            return  # its sessions end as those of any lost worker
        sessions = self._ledger.counter.of_worker(worker.index)
        departure = self._departures[worker.index] = Departure(worker, sessions)
        departure.hasten(drain_seconds, now=self._loop.time())
        self._announcer.publish(
            WORKER_LEAVING,
            WorkerLeaving(time_ns() // 1000, worker.index, worker.pid, heir, len(sessions), drain_seconds),
        )
        log.info("a worker leaves", worker=worker.index, heir=heir, sessions=len(sessions), drain_s=drain_seconds)
        if self._timer is None:
            self._on_tick()

    def hasten(self, drain_seconds: float) -> None:
        """Workers that are leaving already have at most this long from now on."""
        for departure in self._departures.values():
            departure.hasten(drain_seconds, now=self._loop.time())

    def leaves_in_ms(self, worker: WorkerId) -> int | None:
        """The milliseconds until a worker that leaves is told to end, if there is such a time."""
        departure = self._departures.get(worker)
        if departure is None or departure.deadline is None:
            return None
        return max(0, int((departure.deadline - self._loop.time()) * 1000))

    def stop(self) -> None:
        """The engine ends, and all workers with it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._departures.clear()

    def _on_tick(self) -> None:
        now = self._loop.time()
        for departure in list(self._departures.values()):
            if departure.worker.is_lost:
                del self._departures[departure.worker.index]
            elif departure.kill_at is None:
                self._go_on(departure, now)
            elif now >= departure.kill_at:
                departure.worker.dismiss()
        self._timer = self._loop.call_later(TICK_SECONDS, self._on_tick) if self._departures else None

    def _go_on(self, departure: Departure, now: float) -> None:
        """End the sessions that are due; tell the worker to end if it has none left, or no time."""
        worker = departure.worker
        cause = f"worker {worker.index} leaves"
        for _ in range(departure.due(now=now)):
            session = departure.waiting.popleft()
            entry = self._ledger.counter.get(session)
            if entry is not None and entry.worker == worker.index:
                worker.command(control.DisconnectSession(session, DisconnectReason.CLIENT_QUITTING, cause, EndedBy.ENGINE))
        is_over = departure.deadline is not None and now >= departure.deadline
        if is_over or not self._ledger.counter.total_of(worker.index):
            worker.retire(control.Drain(DisconnectReason.CLIENT_QUITTING, cause))
            departure.kill_at = now + self._goodbye_seconds + END_GRACE_SECONDS
