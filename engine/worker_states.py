"""The states of workers: ready, short of file descriptors, or lost. The listener accepts accordingly."""

from __future__ import annotations

from time import time_ns

import structlog

from rlpx.engine.fleet.fleet import Fleet
from rlpx.engine.fleet.process import WorkerProcess
from rlpx.engine.hub.announcer import Announcer
from rlpx.engine.hub.data_endpoints import DataEndpoints
from rlpx.engine.intake.accepts import Accepts
from rlpx.engine.node import Node
from rlpx.protocol.bus import control
from rlpx.protocol.bus.control import WorkerId
from rlpx.protocol.bus.events import WORKER_LOST, WORKER_STARTED, WORKER_STOPPED, WorkerEnded, WorkerStarted

log = structlog.get_logger()


class WorkerStates:
    """See the module."""

    def __init__(self, fleet: Fleet, data: DataEndpoints, node: Node, accepts: Accepts, announcer: Announcer) -> None:
        self._fleet = fleet
        self._data = data
        self._node = node
        self._accepts = accepts
        self._announcer = announcer
        # Workers that are almost out of file descriptors.
        self._short: set[WorkerId] = set()

    def on_begun(self, worker: WorkerProcess) -> None:
        """A worker is starting: tell it who may connect to its endpoint."""
        if self._data.is_on:
            worker.command(self._data.users)

    def on_ready(self, worker: WorkerProcess, report: control.Ready) -> None:
        """A worker takes sessions from now on. Tell it what has changed while it was starting."""
        for command in self._node.changes():
            worker.command(command)
        self._accepts.update_listener()
        self._announcer.tally.worker_starts += 1
        self._announcer.publish(WORKER_STARTED, WorkerStarted(time_ns() // 1000, worker.index, report.pid))
        if self._fleet.has_started and not worker.is_joining:
            self._announcer.worker_replaced(worker.index, report.pid)

    def on_pulse(self, worker: WorkerProcess, report: control.Pulse) -> None:
        """`WorkerProcess` keeps the latest pulse for `status`; here only a change of its descriptors matters."""
        if report.has_descriptors == (worker.index not in self._short):
            return
        if report.has_descriptors:
            self._short.discard(worker.index)
        else:
            self._short.add(worker.index)
        self._accepts.update_listener()
        if report.has_descriptors:
            log.info("a worker has file descriptors to spare again", worker=worker.index)
        else:
            log.warning("a worker is almost out of file descriptors and takes no more sessions", worker=worker.index)

    def on_lost(self, worker: WorkerProcess, cause: str, sessions: int) -> None:
        """A worker has ended, and its sessions with it: replace it if it served."""
        self._short.discard(worker.index)
        how = "told" if worker.is_told_to_end else "lost"
        self._announcer.tally.worker_ended(how, None if worker.pulse is None else worker.pulse.counters)
        # What it counted is in the tally now.
        worker.pulse = None
        self._fleet.on_lost(worker)
        self._accepts.update_listener()
        topic = WORKER_STOPPED if worker.is_told_to_end else WORKER_LOST
        self._announcer.publish(topic, WorkerEnded(time_ns() // 1000, worker.index, worker.pid, cause, sessions))
        if not worker.is_told_to_end:
            log.error("a worker is lost", worker=worker.index, pid=worker.pid, cause=cause, sessions=sessions)
